"""The contract of the prompted CLIP and of DCP: what is read, what trains, initial values, equations by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules import build_model
from clip.modules.prompted_clip import build_index
from clip.modules.prompts import PromptConfig, TowerInput
from clip.modules.prompts.dcp import DCP
from clip.modules.prompts.released_queries import draw_queries
from tests import tiny

MIXED = [COMPLETE, MISSING_TEXT, MISSING_IMAGE, COMPLETE, MISSING_IMAGE]


@pytest.fixture(scope="module")
def state():
    return tiny.clip_state()


def build(state, prompt_type="dcp", **changes):
    torch.manual_seed(3)
    changes = {"prompt_length": tiny.LENGTH, "prompt_depth": tiny.DEPTH} | changes
    return build_model(state, prompt_type, 5, **changes).eval()


def test_equations_4_and_7_as_printed(state):
    """F and D with every norm and MLP written out (the slow form takes these parts as they are)."""
    dcp = build(state, formulas="paper").prompts

    def norm(layer, x):
        return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias)

    def mlp(first, last, x):
        return F.linear(F.gelu(F.linear(x, first.weight, first.bias)), last.weight, last.bias)

    case = torch.tensor([MISSING_TEXT])
    image, text = dcp.initial["image"][MISSING_TEXT], dcp.initial["text"][MISSING_TEXT]
    (first, _, last), outer = dcp.generators["text"][0]
    wanted = norm(outer, mlp(first, last, torch.cat([image, text], -1)))
    torch.testing.assert_close(dcp.prompts_by_case()["text"][1][MISSING_TEXT], wanted)
    inputs, one = TowerInput(torch.randn(1, 5, tiny.SIZES.image_width), case), dcp.dynamic["image"]
    inner, (first, _, last), outer = one.refine
    read = one.attention(one.queries[case], inputs.tokens)
    wanted = norm(outer, mlp(first, last, norm(inner, read)))
    torch.testing.assert_close(one(inputs), wanted)


def test_the_index_of_the_loader_is_that_of_the_model(state):
    model = build(state)
    image, tokens, case = tiny.batch(MIXED)
    present = build_index(tokens, case)
    assert present.image_rows.tolist() == [0, 1, 3]
    assert present.text_rows.tolist() == [0, 2, 3, 4]
    assert present.longest == 7  # the last text: start, five words, end
    counted = model.features(image, tokens, case, present)
    assert torch.equal(counted, model.features(image, tokens, case))
    longer = present._replace(longest=40)
    torch.testing.assert_close(model.features(image, tokens, case, longer), counted)


def test_a_sample_does_not_depend_on_its_batch(state):
    model = build(state)
    image, tokens, case = tiny.batch(MIXED)
    together = model(image, tokens, case)
    for i in range(len(case)):
        alone = model(image[i : i + 1], tokens[i : i + 1], case[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)


def test_the_trainable_set_is_what_the_owners_declare(state):
    model = build(state)
    assert type(model.prompts) is DCP
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == set(model.trainable_names())
    outside = {name for name in trainable if not name.startswith(("prompts.", "classifier."))}
    assert outside == {
        "image_encoder.ln_post.weight", "image_encoder.ln_post.bias", "image_encoder.proj",
        "text_encoder.ln_final.weight", "text_encoder.ln_final.bias",
    }  # fmt: skip
    baseline = build(state, "none")
    assert set(baseline.trainable_names()) == {"classifier.weight", "classifier.bias"}
    assert "image_encoder.proj" in build(state, "none", unfreeze=("image_proj",)).trainable_names()


def test_published_parameter_counts():
    """5,419,776 in the prompts of ViT-B/16 and 5,815,552 with norms and projection.

    The dynamic queries are not counted there: the released code never trains them.
    """
    dcp = DCP(PromptConfig(tiny.VIT_B_16, length=36, depth=6))
    queries = sum(one.queries.numel() for one in dcp.dynamic.values())
    count = sum(p.numel() for p in dcp.parameters()) - queries
    assert queries == 3 * 12 * (768 + 512)
    assert count == 5_419_776
    assert count + 768 * 512 + 2 * (768 + 512) == 5_815_552


class ReleasedBlock(nn.Module):
    """The layers of one block of the released towers, in the order in which they are made."""

    def __init__(self, width, first, length):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.ln_2 = nn.LayerNorm(width)
        if first:
            self.attn_prompt = nn.MultiheadAttention(width, 1)
            self.complete, self.image, self.text = (
                nn.init.normal_(torch.empty(length, 1, width), std=0.02) for _ in range(3)
            )


def test_fixed_queries_are_drawn_as_the_released_constructor_draws_them():
    sizes, length = tiny.OTHER, 4
    torch.manual_seed(11)
    nn.Conv2d(3, sizes.image_width, sizes.patch, sizes.patch, bias=False)
    torch.randn(sizes.image_width)
    torch.randn(sizes.grid**2 + 1, sizes.image_width)
    blocks = [ReleasedBlock(sizes.image_width, i == 0, length) for i in range(sizes.image_layers)]
    torch.randn(sizes.image_width, sizes.embed_dim)
    blocks.append(ReleasedBlock(sizes.text_width, True, length))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    found = draw_queries(sizes, length, seed=11)
    assert torch.equal(torch.get_rng_state(), state)
    for tower, block in (("image", blocks[0]), ("text", blocks[-1])):
        wanted = torch.stack([block.complete, block.image, block.text]).squeeze(2)
        assert torch.equal(found[tower], wanted)
    model = build(tiny.clip_state(sizes), dynamic_queries="fixed", seed=11, prompt_length=12)
    assert torch.equal(model.prompts.dynamic["text"].queries, found["text"])
    assert "prompts.dynamic.text.queries" not in model.trainable_names()
    assert "prompts.dynamic.text.queries" in model.adapter_state_dict()


def test_initial_values(state):
    model = build(state, prompt_length=60)
    assert model.classifier.bias.abs().max() == 0
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert model.prompts.common.std().item() == pytest.approx(0.02, rel=0.2)
    for tower in ("image", "text"):
        first, *others = (list(g.parameters()) for g in model.prompts.generators[tower])
        assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
