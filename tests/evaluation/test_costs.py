"""What is counted against what is multiplied out by hand."""

import pytest

from clip.cli.schema import make_config
from clip.evaluation.costs import PARTS, PUBLISHED_SIZES, cost, print_costs
from clip.modules.factory import build_model
from clip.modules.prompted_clip import PromptedCLIP
from clip.modules.prompts import PROMPT_TYPES
from tests.tiny import DEPTH, LENGTH, SIZES, VIT_B_16, clip_state

CLASSES = 5
SHAPE = {"prompt_length": LENGTH, "prompt_depth": DEPTH}


def init_linear(width_in: int, width_out: int) -> int:
    return width_in * width_out + width_out


def mlp(width_in: int, width_out: int) -> int:
    hidden = width_in // 16
    return init_linear(width_in, hidden) + init_linear(hidden, width_out)


def test_parameters_of_the_tiny_model_by_hand():
    third, image, text = LENGTH // 3, 128, 64
    joint = image + text
    parts = cost(SIZES, "dcp", CLASSES, **SHAPE)
    initial = 2 * third * joint  # present and missing
    queries, common = 3 * third * joint, 3 * third * text
    assert parts["prompts"] == initial + queries + common
    generators = DEPTH * sum(2 * joint + mlp(joint, width) for width in (image, text))
    attention = sum(4 * init_linear(width, width) for width in (image, text))
    assert parts["generators"] == generators + attention + mlp(text, image) + mlp(text, text)
    assert parts["unfrozen"] == 2 * image + 2 * text + image * 32
    assert parts["head"] == init_linear(64, CLASSES)


def test_dcp_at_published_size():
    """5.42M in prompts and generators, 5.82M with what is unfrozen, in the released code."""
    fixed = cost(VIT_B_16, "dcp", 23, dynamic_queries="fixed")
    assert fixed["prompts"] + fixed["generators"] == 5_419_776
    assert fixed["prompts"] + fixed["generators"] + fixed["unfrozen"] == 5_815_552
    assert fixed["share"] == 5_815_552 / 149_620_736  # the head, which all methods have, left out
    trained = cost(VIT_B_16, "dcp", 23)
    assert trained["prompts"] - fixed["prompts"] == 3 * 12 * (768 + 512)  # trained queries
    assert trained["head"] == 1024 * 23 + 23
    assert cost(VIT_B_16, "none", 23)["backbone"] == 149_620_736


def tower_flops(length: int, width: int, layers: int, embed_dim: int) -> int:
    block = 2 * length * 12 * width**2 + 4 * length**2 * width
    # Of the last block one query is run: keys and values of all tokens, the rest of one.
    last = 2 * length * 2 * width**2 + 4 * length * width + 2 * 10 * width**2
    return (layers - 1) * block + last + 2 * width * embed_dim


@pytest.mark.parametrize("sizes", [SIZES, VIT_B_16])
def test_flops_of_the_baseline_by_formula(sizes):
    patches, width = sizes.grid**2, sizes.image_width
    image = 2 * patches * 3 * sizes.patch**2 * width
    image += tower_flops(patches + 1, width, sizes.image_layers, sizes.embed_dim)
    text = tower_flops(sizes.context, sizes.text_width, sizes.text_layers, sizes.embed_dim)
    head = 2 * 2 * sizes.embed_dim * CLASSES
    counted = cost(sizes, "none", CLASSES)
    assert counted["forward_flops"] == image + text + head
    assert counted["step_flops"] == image + text + 2 * head  # only the head's weight has a gradient


def test_prompts_cost_what_a_longer_sequence_costs():
    """A step of a method with prompts runs back through the towers; the towers see L + P tokens."""
    plain, dcp = (cost(VIT_B_16, name, 23) for name in ("none", "dcp"))
    longer = sum(
        tower_flops(length + 36, width, 12, 512) - tower_flops(length, width, 12, 512)
        for length, width in ((197, 768), (77, 512))
    )
    # What five layers would make of twelve prompts that the next ones replace: out_proj and MLP.
    drop_first = sum(5 * 12 * (2 + 8 + 8) * width**2 for width in (768, 512))
    own = dcp["forward_flops"] - plain["forward_flops"] - longer + drop_first
    assert 0 < own < 0.02 * plain["forward_flops"]  # prompts are made once, not once a token
    assert 2 < dcp["step_flops"] / dcp["forward_flops"] < 2.1  # no gradients of frozen weights


@pytest.mark.parametrize("method", PROMPT_TYPES)
def test_every_method_counts_what_a_real_model_trains(method):
    observed = build_model(clip_state(), method, CLASSES, LENGTH, DEPTH)
    counted = cost(SIZES, method, CLASSES, **SHAPE)
    assert counted["total"] == sum(p.numel() for p in observed.parameters() if p.requires_grad)
    assert counted["total"] == sum(counted[part] for part in PARTS)
    assert counted["step_flops"] > counted["forward_flops"] > 0


def test_the_costs_command_prints_every_method_without_weights(capsys, monkeypatch):
    assert PUBLISHED_SIZES["ViT-B/16"] == VIT_B_16
    monkeypatch.setitem(PUBLISHED_SIZES, "ViT-B/16", SIZES)  # its twelve layers take long
    print_costs(make_config({"vit": "ViT-B/16", "prompt_length": LENGTH, "prompt_depth": DEPTH}))
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[2:]}
    assert rows.keys() == PROMPT_TYPES.keys()
    total = cost(SIZES, "dcp", 23, **SHAPE)["total"]
    assert f"{total:,}" in rows["dcp"]
    assert PromptedCLIP.example_inputs(SIZES, "meta").tokens.shape == (1, 77)
