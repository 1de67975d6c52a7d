"""Each hook of ``PromptMethod`` does what its docstring says, shown by a toy method on both backbones."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip.config import OptimizerSettings
from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules import build_model
from clip.modules.backbones.vilt import convert_vilt
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from clip.modules.layers import Prepended
from clip.modules.objectives import TASKS
from clip.modules.prompted_model import Inputs
from clip.modules.prompted_vilt import PromptedViLT
from clip.modules.prompts import PROMPT_TYPES, PromptMethod
from clip.modules.prompts.baselines import LinearProbe
from clip.modules.vision_transformer_prompts import finish
from tests import tiny, tiny_vilt

CASES = [COMPLETE, MISSING_TEXT, MISSING_IMAGE]
LAYERS = {"text": 1, "image": 2}


@pytest.fixture
def build(monkeypatch):
    """Build a CLIP or a ViLT with a toy method."""

    def build(method, backbone="clip"):
        monkeypatch.setitem(PROMPT_TYPES, "toy", method)
        torch.manual_seed(0)
        vilt = backbone == "vilt"
        state = convert_vilt(tiny_vilt.random_vilt().state_dict()) if vilt else tiny.clip_state()
        return build_model(state, "toy", 5, 4, 2, backbone=backbone).eval()

    return build


def inputs(backbone="clip"):
    if backbone == "clip":
        return tiny.batch(CASES)
    batch = PromptedViLT.collate(tiny_vilt.pairs(CASES, [(96, 128), (64, 96), (32, 160)]))
    return [batch[key] for key in Inputs._fields[:2]] + [batch["missing_type"], batch["present"]]


def recorded(model, towers, call):
    """Return the tokens that entered each block while ``call`` ran."""
    entered = []
    hooks = [
        block.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
        for tower in towers
        for block in model.get_submodule(tower).transformer.resblocks
    ]
    call()
    for hook in hooks:
        hook.remove()
    return entered


def maximum(x):
    """Prompts of one token: the maximum over the tokens that enter a layer, as in MemPrompt."""
    return x.amax(dim=1, keepdim=True)


class FromLayerTokens(PromptMethod):
    """Functions of the tokens that enter layers 0 and 1; they replace at layer 1, or stay if ``kept``."""

    kept = False

    def __init__(self, config, settings=None):
        super().__init__(config, settings)
        self.towers = tuple(config.sizes.towers)

    def prompts_by_case(self):
        return {tower: [] for tower in self.towers}

    def select(self, name, prompts, inputs):
        return [lambda layer: Prepended(maximum(layer.tokens)) if self.kept else maximum(layer.tokens)] * 2


class Kept(FromLayerTokens):
    kept = True


@pytest.mark.parametrize("method", [FromLayerTokens, Kept])
def test_an_entry_may_be_a_function_of_the_tokens_that_enter_its_layer(build, method):
    model, (image, *_) = build(method), inputs()
    here, x = model.image_encoder, model.image_encoder.embed(image)
    entries = model.prompts.select("image", {}, None)
    entered = recorded(model, ["image_encoder"], lambda: finish(here.encode(x, entries)))
    first, second = entered[:2]  # the last block pools
    torch.testing.assert_close(first, torch.cat([maximum(x), x], dim=1))
    before = here.transformer.resblocks[0](first, False, None, 0, None, None)
    tokens_of_layer = before[:, 1:]
    wanted = torch.cat([maximum(tokens_of_layer), before if method.kept else tokens_of_layer], dim=1)
    torch.testing.assert_close(second, wanted)
    assert build(method, "vilt")(*inputs("vilt")).isfinite().all()


class Reweighted(LinearProbe):
    """Scales the projections of one layer of each tower."""

    def __init__(self, config, settings=None):
        super().__init__(config, settings)
        self.towers = config.sizes.towers
        self.weights = nn.ParameterDict({t: torch.randn(3 * d, d) / d**0.5 for t, d in self.towers.items()})
        self.calls = 0

    def input_projections(self, attentions):
        self.calls += 1
        layers = {tower: LAYERS.get(tower, 1) for tower in self.towers}
        return {
            tower: {layer: attentions[tower][layer].projection._replace(weight=self.weights[tower])}
            for tower, layer in layers.items()
        }


@pytest.mark.parametrize(("backbone", "towers"), [("clip", ["image", "text"]), ("vilt", ["joint"])])
def test_input_projections_replace_those_of_a_layer(build, backbone, towers):
    method, plain = build(Reweighted, backbone), build(LinearProbe, backbone)
    found, before = method(*inputs(backbone)), plain(*inputs(backbone))
    assert method.prompts.calls == 1
    for tower in towers:
        name = {"joint": "stream"}.get(tower, f"{tower}_encoder")
        block = plain.get_submodule(name).transformer.resblocks[LAYERS.get(tower, 1)]
        with torch.no_grad():
            block.attn.in_proj_weight.copy_(method.prompts.weights[tower])
    plain.classifier.load_state_dict(method.classifier.state_dict())
    torch.testing.assert_close(found, plain(*inputs(backbone)))
    assert (found - before).abs().max() > 1e-3
    found.sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in method.prompts.weights.values())


class PrototypeHead(LinearProbe):
    """A head, a loss and an auxiliary loss that see the missing case, and a buffer that is prepared."""

    def __init__(self, config, settings=None):
        super().__init__(config, settings)
        self.shift = nn.Parameter(torch.arange(3.0))
        self.register_buffer("mean", torch.zeros(()))

    def heads(self, features, classifier, missing_case):
        return [(1.0, classifier(features) * self.shift[missing_case][:, None])]

    def loss(self, heads, label, missing_case, task_loss):
        return super().loss(heads, label, missing_case, task_loss) + missing_case.float().mean()

    def auxiliary_loss(self):
        return 10 * self.shift.sum()

    def prepare(self, model, batches):
        logits = [classify for batch in batches for classify in model(*batch).mean(dim=1).unbind()]
        self.mean.copy_(torch.stack(logits).mean())


def test_head_and_losses_see_the_missing_case(build, monkeypatch):
    model, (image, tokens, case), label = build(PrototypeHead), inputs(), torch.tensor([4, 0, 2])
    plain = model.classifier(model.features(image, tokens, case))
    logits = model(image, tokens, case)
    torch.testing.assert_close(logits, plain * torch.tensor([[0.0], [1.0], [2.0]]))
    module = MissingAwarePromptModule(model, TASKS["food101"], OptimizerSettings(), lambda image: image, {})
    for log in ("log", "log_dict"):  # there is no Trainer
        monkeypatch.setattr(module, log, lambda *_, **__: None)
    batch = {"image": image, "tokens": tokens, "missing_type": case, "present": None, "label": label}
    wanted = F.cross_entropy(logits, label) + 1.0 + 30.0
    torch.testing.assert_close(module.model_step(batch, "val/"), wanted)


def test_prepare_fills_buffers_that_are_saved(build):
    model, batch = build(PrototypeHead), inputs()
    with torch.no_grad():
        model.prompts.prepare(model, (Inputs(*batch, None) for _ in range(2)))
        torch.testing.assert_close(model.prompts.mean, model(*batch).mean())
    assert "prompts.mean" in model.adapter_state_dict()


@pytest.mark.parametrize("backbone", ["clip", "vilt"])
def test_select_sees_how_many_tokens_are_text(build, backbone):
    seen = {}

    class Selective(LinearProbe):
        def select(self, name, prompts, inputs):
            seen[name] = inputs
            return super().select(name, prompts, inputs)

    model = build(Selective, backbone)
    batch = inputs(backbone)
    model(*batch)
    text = seen["text"]
    if backbone == "clip":
        assert (seen["image"].num_text, text.num_text) == (0, 77)
        assert text.missing_case.tolist() == [COMPLETE, MISSING_IMAGE]
        torch.testing.assert_close(text.tokens, model.text_encoder.embed(batch[1][[0, 2]]))
    else:
        ids = batch[1][:, : text.num_text]
        torch.testing.assert_close(text.tokens[0, : text.num_text], model.stream.embed_text(ids)[0])
        assert torch.equal(text.mask[0, : text.num_text], ids[0] != 0)
