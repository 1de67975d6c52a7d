"""DPL: the reference numbers of its release, a slow oracle of one sample at a time, and cosines of exactly one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.modules import build_model
from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.prompts.base import PromptConfig
from clip.modules.prompts.on_top.dpl import DPL, DPLSettings
from tests import tiny
from tests.modules.vectors import assert_gradient, draw

DATA = Path(__file__).parents[1] / "data" / "dpl_a.npz"
NAMES = {"w_mi_c": "image_complete", "w_mi_tm": "image_missing_text", "w_mt_c": "text_complete"}
NAMES |= {"w_mt_im": "text_missing_image"}


def method(classes, embed_dim, **settings):
    sizes = ClipSizes(64, 2, 8, 2, 64, 2, 77, 300, embed_dim)
    return DPL(PromptConfig(sizes, 6, 2, classes), DPLSettings(base="none", **settings))


@pytest.fixture(scope="module")
def released():
    vectors = dict(np.load(DATA, allow_pickle=False))
    config = json.loads(str(vectors["config"]))
    settings = {"scale": list(config["scales"].values()), "margin": list(config["margins"].values())}
    dpl = method(config["classes"], config["width"], **settings)
    for theirs, ours in NAMES.items():
        dpl.prototypes[ours].data = draw(f"dpl.{theirs}", config["names"][theirs])
    return dpl, {name: torch.from_numpy(array) for name, array in vectors.items() if array.dtype.kind in "fi"}


def test_released_logits_losses_and_gradients(released):
    dpl, vectors = released
    features, cases = vectors["features"].requires_grad_(), vectors["cases"]
    heads = dpl.heads(features, None, cases)
    torch.testing.assert_close(heads[0][1], vectors["logits"], atol=1e-6, rtol=0)
    losses = {
        "multilabel": dpl.loss(heads, vectors["multilabel"], cases, F.binary_cross_entropy_with_logits),
        "multiclass": dpl.loss(heads, vectors["classes"], cases, F.cross_entropy),
    }
    for name, loss in losses.items():
        torch.testing.assert_close(loss.double(), vectors[f"loss_{name}"], atol=1e-6, rtol=1e-6)
    (losses["multilabel"] + dpl.auxiliary_loss()).backward()
    for theirs, ours in NAMES.items():
        assert_gradient(dpl.prototypes[ours].grad, vectors[f"grad.{theirs}"].numpy())
    torch.testing.assert_close(features.grad, vectors["grad.features"].view_as(features), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("contrast", ["both", "text", "image"])
def test_released_contrast(released, contrast):
    dpl, vectors = released
    dpl.settings = dpl.settings.model_copy(update={"contrast": contrast, "coefficient": 1.0})
    torch.testing.assert_close(dpl.auxiliary_loss().double(), vectors[f"prc_{contrast}"], atol=1e-6, rtol=1e-6)


def slow_logits(dpl, feature, case, label):
    """Return the cosines and scaled, shifted logits of one sample, class by class, in float64."""
    halves = feature.double().chunk(2)
    used = {0: ((0, "image_complete"), (1, "text_complete")), 1: ((0, "image_missing_text"),)}
    used[2] = ((1, "text_missing_image"),)
    cosines, logits = [], []
    for c in range(dpl.prototypes["image_complete"].shape[1]):
        terms = []
        for half, name in used[case]:
            prototype = dpl.prototypes[name][:, c].double()
            terms.append(halves[half] @ prototype / halves[half].norm() / prototype.norm())
        z, margin = sum(terms) / len(terms), float(dpl.margin[case])
        angle = z.acos() + margin
        shifted = angle.cos() if angle < math.pi else z - margin * math.sin(math.pi - margin)
        cosines.append(z)
        logits.append(float(dpl.scale[case]) * (shifted if label[c] else z))
    return torch.stack(cosines), torch.stack(logits)


def slow_contrast(dpl):
    """Return the contrastive loss of the prototypes, one of them at a time, in float64."""
    rows = [(c, x / x.norm()) for w in dpl.prototypes.values() for c, x in enumerate(w.double().T)]
    losses = []
    for i, (label, anchor) in enumerate(rows):
        others = [(c, anchor @ x) for j, (c, x) in enumerate(rows) if j != i]
        total = torch.stack([similarity for _, similarity in others]).exp().sum().log()
        losses.append(torch.stack([total - similarity for c, similarity in others if c == label]).mean())
    return dpl.settings.coefficient * torch.stack(losses).mean()


@pytest.mark.parametrize(("classes", "width", "batch"), [(7, 24, 12), (3, 40, 5)])
def test_a_slow_oracle(classes, width, batch):
    torch.manual_seed(3)
    dpl = method(classes, width, margin=[0.1, 0.3, 0.5], scale=[30.0, 20.0, 10.0])
    features, cases = torch.randn(batch, 2 * width), torch.arange(batch) % 3
    label = (torch.rand(batch, classes) > 0.5).float()
    opposite = torch.cat([dpl.prototypes[name].detach()[:, 2] for name in ("image_complete", "text_complete")])
    features[0] = -opposite - 1e-3 * torch.randn(2 * width)  # not quite, since a clamped cosine has no gradient
    label[0, 2] = 1  # its angle plus the margin is more than pi
    leaves = [features.requires_grad_(), *dpl.prototypes.values()]
    rows = [slow_logits(dpl, *sample) for sample in zip(features, cases.tolist(), label, strict=True)]
    cosines, logits = map(torch.stack, zip(*rows, strict=True))
    heads = dpl.heads(features, None, cases)
    torch.testing.assert_close(heads[0][1], cosines.float(), atol=1e-6, rtol=0, msg="logits")
    task_loss = F.binary_cross_entropy_with_logits
    losses = dpl.loss(heads, label, cases, task_loss), task_loss(logits, label.double()).float()
    losses = losses[0] + dpl.auxiliary_loss(), losses[1] + slow_contrast(dpl).float()
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5, msg="loss")
    for ours, theirs in zip(*(torch.autograd.grad(loss, leaves) for loss in losses), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4 * float(theirs.abs().max()), rtol=0, msg="gradient")


@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_are_finite_at_a_cosine_of_one(sign):
    dpl = method(3, 16)
    halves = [sign * dpl.prototypes[name].detach()[:, 0] for name in ("image_complete", "text_complete")]
    features = torch.cat(halves)[None].requires_grad_()
    heads, case = dpl.heads(features, None, torch.zeros(1, dtype=torch.long)), torch.zeros(1, dtype=torch.long)
    dpl.loss(heads, torch.zeros(1, dtype=torch.long), case, F.cross_entropy).backward()
    assert features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for name, p in dpl.prototypes.items() if name.endswith("complete"))


def test_it_stands_on_another_method_and_leaves_out_the_linear_head():
    model = build_model(tiny.clip_state(), "dpl", 5, 6, 2, base="mmp")
    assert not any(name.startswith("classifier.") for name in model.trainable_names())
    assert any(name.startswith("prompts.base.layers.") for name in model.trainable_names())
    model(*tiny.batch([0, 1, 2, 0])).sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert idle == []
