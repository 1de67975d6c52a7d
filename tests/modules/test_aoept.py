"""AOEPT: the release's reference numbers, a slow oracle, its memory, and a run through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.modules import build_model
from clip.modules.backbones.clip import convert_clip
from clip.modules.prompted_clip import PLACEHOLDERS
from clip.transforms.clip import ClipTransform
from tests.modules.vectors import assert_gradient, draw

DATA = Path(__file__).parents[1] / "data" / "aoept_a.npz"
BACKBONE = {
    "model.text_model.final_layer_norm": "text_encoder.ln_final",
    "model.vision_model.post_layernorm": "image_encoder.ln_post",
    "model.visual_projection.weight": "image_encoder.proj",
    "model.text_projection.weight": "text_encoder.text_projection",
}
PARTS = {"query": "queries", "layer_norm": "norm", "shared_layer_norm": "shared_norm", "shared_proj": "projections"}
PARTS |= {"gate_mlp": "gates", "shared_gate_mlp": "shared_gates", "init_tokens": "memory"}


def our_name(theirs):
    """Translate a name of the release, such as shared_text_gate_mlp.0.gate_net.2.bias."""
    for prefix, ours in BACKBONE.items():
        if theirs.startswith(prefix):
            return theirs.replace(prefix, ours)
    head, _, tail = theirs.replace("gate_net.", "").partition(".")
    if head in ("classifier", "logit_scale", "shared_query"):
        return {"classifier": f"classifier.{tail}", "shared_query": "prompts.shared"}.get(head, f"prompts.{theirs}")
    tower = "text" if "text" in head else "vision"
    part = PARTS[head.replace(f"{tower}_", "")]
    return ".".join(["prompts.towers", tower.replace("vision", "image"), part, tail]).rstrip(".")


@pytest.fixture
def released(monkeypatch):
    vectors = dict(np.load(DATA, allow_pickle=False))
    config = json.loads(str(vectors["config"]))
    backbone = convert_clip({name: draw(name, shape) for name, shape in config["backbone"].items()})
    mean, std = (torch.tensor(x)[:, None, None] for x in (ClipTransform.mean, ClipTransform.std))
    monkeypatch.setitem(PLACEHOLDERS, "white", 255 * (mean + std))  # missing images are ones behind the normalisation
    settings = {name: config[name] for name in ("memory", "reduction")} | {"coefficient": config["loss_alpha"]}
    model = build_model(
        backbone, "aoept", 6, config["own"] + config["shared"], config["depth"], reading="released",
        backbone_settings={"missing": "dummy"}, **settings,
    ).eval()  # fmt: skip
    tensors = model.state_dict()
    own = [name for name in config["trainable"] if not name.startswith("model.")]  # the others are the backbone's
    for name in [*own, *config["frozen_memory"]]:
        tensors[our_name(name)].copy_(draw(name, tensors[our_name(name)].shape))
    return model, config, vectors


def test_released_logits_losses_and_gradients(released):
    model, config, vectors = released
    batch = [torch.from_numpy(vectors[name]) for name in ("image", "ids", "cases")]
    logits = model(*batch)
    np.testing.assert_allclose(logits.detach(), vectors["logits"], atol=1e-5, rtol=0)
    auxiliary = model.prompts.auxiliary_loss()
    np.testing.assert_allclose(auxiliary.item() / config["loss_alpha"], vectors["aux_loss"], atol=0, rtol=1e-6)
    loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(vectors["labels"])) + auxiliary
    np.testing.assert_allclose(loss.item(), vectors["loss"], atol=1e-6, rtol=0)
    loss.backward()
    parameters = dict(model.named_parameters())
    assert {our_name(name) for name in config["trainable"]} == set(model.trainable_names())
    for name in config["trainable"]:
        gradient = parameters[our_name(name)].grad
        assert_gradient(gradient.T if name.endswith("_projection.weight") else gradient, vectors[f"grad.{name}"])
