"""MoRA, LoRA, DoRA and BitFit: the release's reference numbers, slow oracles, and weights merged into the backbone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules import build_model
from clip.modules.backbones.clip import convert_clip
from clip.modules.prompts.adapters.mora import MoRA
from tests import tiny
from tests.modules.vectors import assert_gradient, draw

DATA = Path(__file__).parents[1] / "data" / "mora_a.npz"
RELEASED = {"modality_A": "own_in", "modality_B": "own_out", "shared_magnitude": "shared_magnitude"}
RELEASED |= {"specific_magnitude": "own_magnitude"}
SHARED = {"shared_A": "text", "shared_B": "image"}
CASES = [COMPLETE, MISSING_TEXT, MISSING_IMAGE, COMPLETE]


def our_name(theirs):
    """Translate a name of the release, such as model.text_model.encoder.layers.2.self_attn.q_proj.modality_A."""
    if theirs.startswith("cls_head."):
        return theirs.replace("cls_head", "classifier")
    parts = theirs.split(".")
    tower, layer, projection = parts[1].replace("vision", "image").split("_")[0], int(parts[4]), parts[6][0]
    if parts[-1] in SHARED:
        return f"prompts.shared.{SHARED[parts[-1]]}_{layer - 2}"
    return f"prompts.{RELEASED[parts[-1]]}.{tower}_{layer}_{projection}"


def test_released_features_logits_loss_and_gradients():
    vectors = dict(np.load(DATA, allow_pickle=False))
    config = json.loads(str(vectors["config"]))
    backbone = convert_clip({name: draw(name, shape) for name, shape in config["backbone"].items()})
    settings = {"projections": "qv", "layers": config["layers"] - config["start_layer"]}
    model = build_model(backbone, "mora", 6, 0, 1, rank=config["rank"], alpha=config["alpha"], **settings).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, shape in config["trainable"].items():
            parameters[our_name(name)].copy_(draw(name, shape))
    image, ids = torch.from_numpy(vectors["image"]), torch.from_numpy(vectors["ids"])
    complete = torch.zeros(len(ids), dtype=torch.long)  # the release encodes dummies: they are in the file
    features = model.features(image, ids, complete)
    for name, half in zip(("image_features", "text_features"), features.chunk(2, dim=1), strict=True):
        np.testing.assert_allclose(half.detach(), vectors[name], atol=1e-5, rtol=0)
    logits = model.classifier(features)
    loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(vectors["labels"]))
    np.testing.assert_allclose(logits.detach(), vectors["logits"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(loss.item(), vectors["loss"], atol=1e-6, rtol=0)
    loss.backward()
    compared = [name for name in config["trainable"] if f"grad.{name}" in vectors]
    assert len(compared) >= len(model.trainable_names())
    for name in compared:
        assert_gradient(parameters[our_name(name)].grad, vectors[f"grad.{name}"])


def adapted(method, **settings):
    """Build a model whose method differs from its start."""
    model = build_model(tiny.clip_state(), method, 5, 0, 1, **settings)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.prompts.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("method", ["lora", "dora", "bitfit"])
def test_start_is_the_frozen_backbone(method):
    state, batch = tiny.clip_state(), tiny.batch(CASES)
    model, plain = (build_model(state, name, 5, 0, 1).eval() for name in (method, "none"))
    torch.testing.assert_close(model.features(*batch), plain.features(*batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["lora", "dora", "bitfit"])
def test_merged_weights_equal_the_unmerged_model(method):
    model, plain = adapted(method, projections="qkv"), build_model(tiny.clip_state(), "none", 5, 0, 1).eval()
    for tower, layers in model.prompts.input_projections(model.attentions()).items():
        for i, projection in layers.items():
            attention = plain.attentions()[tower][i]
            attention.in_proj_weight.data, attention.in_proj_bias.data = (part.detach() for part in projection)
    assert torch.equal(model.features(*tiny.batch(CASES)), plain.features(*tiny.batch(CASES)))


def column_by_column(weight, change):
    """Divide each column of the sum by its norm, one number at a time."""
    out = torch.empty_like(weight)
    for j in range(weight.shape[1]):
        column = weight[:, j] + change[:, j]
        out[:, j] = column / sum(x.item() ** 2 for x in column) ** 0.5
    return out


def test_slow_oracles_of_one_projection():
    torch.manual_seed(0)
    settings = {"projections": "v", "layers": 1}
    lora, dora = (adapted(method, **settings, rank=2, alpha=3.0) for method in ("lora", "dora"))
    bitfit = adapted("bitfit", **settings)
    key, layer = "text_3_v", 3
    frozen = lora.attentions()["text"][layer]
    weight, bias = frozen.in_proj_weight[-64:], frozen.in_proj_bias[-64:]

    def changed(model):
        weight, bias = model.prompts.input_projections(model.attentions())["text"][layer]
        assert torch.equal(weight[:-64], frozen.in_proj_weight[:-64])
        return weight[-64:], bias[-64:]

    change = 1.5 * lora.prompts.b[key] @ lora.prompts.a[key]
    torch.testing.assert_close(changed(lora)[0], weight + change)
    wanted = dora.prompts.magnitude[key] * column_by_column(weight, 1.5 * dora.prompts.b[key] @ dora.prompts.a[key])
    torch.testing.assert_close(changed(dora)[0], wanted, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(changed(bitfit)[1], bias + bitfit.prompts.offset[key])
    assert torch.equal(changed(bitfit)[0], weight)


@pytest.mark.parametrize(("start", "disturbed"), [("released", True), ("mild", False)])
def test_start_of_mora(start, disturbed):
    state, batch = tiny.clip_state(), tiny.batch(CASES)
    mora = build_model(state, "mora", 5, 0, 1, start=start, alpha=0.1).eval()
    assert isinstance(mora.prompts, MoRA)
    change = (mora.features(*batch) - build_model(state, "none", 5, 0, 1).eval().features(*batch)).abs().max()
    assert (change > 1e-3) == disturbed
    mora(*batch).sum().backward()
    assert all(p.grad is not None for p in mora.parameters() if p.requires_grad)
    assert mora.prompts.shared["text_0"].grad.abs().max() > 0
