"""The released code's own numbers (tests/data/released_a.npz): forward, loss and every gradient.

The weights are drawn again from the released parameter names: a normal draw seeded by the CRC of
the name and scaled by the kind of tensor.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.modules.factory import build_model
from clip.modules.released.dcp import SETTINGS, convert_dcp, our_names
from clip.utils.errors import UserError
from tests.modules.vectors import draw, normal, sampled

DATA = Path(__file__).parents[1] / "data" / "released_a.npz"
CHANNELS = slice(None, None, 5)  # of the stored prompts
WIDTHS = {"image": 768, "text": 512}


@pytest.fixture(scope="module")
def vectors():
    return dict(np.load(DATA, allow_pickle=False))


@pytest.fixture(scope="module")
def released(vectors):
    shapes = {**json.loads(str(vectors["trainable"])), **json.loads(str(vectors["frozen"]))}
    for tower, width in WIDTHS.items():
        for case in ("complete", "image", "text"):
            name = f"{tower}_encoder.transformer.resblocks.0.prompts_dynamic_{case}"
            shapes[name] = [12, 1, width]
    state = {name: draw(name, shape) for name, shape in shapes.items()}
    head = {
        "mmimdb_classifier.weight": 0.02 * normal("vectors_a.head.weight", (23, 1024)),
        "mmimdb_classifier.bias": 0.02 * normal("vectors_a.head.bias", (23,)),
    }
    return {f"model.{name}": tensor for name, tensor in state.items()} | head


def from_published(state, seed=0):
    """Our model with the tensors of a state dict of the released code; the seed draws the queries if it has none."""
    converted = convert_dcp(state, seed)
    shape = {key: converted["model_config"][key] for key in ("prompt_length", "prompt_depth")}
    classes = len(converted["state_dict"]["classifier.bias"])
    model = build_model(converted["released"], num_classes=classes, **shape, **SETTINGS.model_dump())
    model.load_adapter(converted["state_dict"], "this state dict")
    return model.eval()


@pytest.fixture(scope="module")
def model(released):
    return from_published(released)


@pytest.fixture(scope="module")
def inputs(vectors):
    cases = torch.tensor(json.loads(str(vectors["config"]))["cases"])
    image = normal("vectors_a.image", (len(cases), 3, 64, 64))
    return image, torch.from_numpy(vectors["tokens"]).long(), cases


def test_features_logits_loss_and_all_gradients(vectors, model, inputs):
    features = model.features(*inputs)
    logits = model.classifier(features)
    labels = (normal("vectors_a.labels", logits.shape) > 0.8).float()
    loss = F.binary_cross_entropy_with_logits(logits, labels)
    for name, tensor in (("features", features), ("logits", logits), ("loss", loss)):
        np.testing.assert_allclose(tensor.detach().numpy(), vectors[name], atol=1e-5, rtol=0)
    model.zero_grad()
    loss.backward()
    gradients = released_gradients(model)
    stored = {key.removeprefix("grad.") for key in vectors if key.startswith("grad.")}
    assert gradients.keys() >= stored
    assert len(stored) == 100
    for name in stored:
        found, wanted = sampled(gradients[name]), vectors[f"grad.{name}"]
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


def released_gradients(model):
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found = dict(ours)  # the unfrozen parts keep their names
    for name, theirs in our_names(6):
        rows = ours[name] if len(theirs) > 1 else ours[name][None]
        found |= dict(zip(theirs, rows, strict=True))
    return found


def test_prompts_of_all_three_cases(vectors, model):
    cases = model.prompts.prompts_by_case()
    for tower in WIDTHS:
        for layer, prompts in enumerate(cases[tower]):
            stored = vectors[f"{tower}_prompts.{layer}"]  # of a sample of each case in turn
            found = prompts.detach().numpy()[..., CHANNELS]
            np.testing.assert_allclose(found, stored, atol=1e-5, rtol=0)


def test_lacking_or_foreign_tensors_are_named(released):
    name = "model.prompt_learner.layernorm_text.3.bias"
    with pytest.raises(UserError, match="layernorm_text.3.bias"):
        from_published({k: v for k, v in released.items() if k != name})
    with pytest.raises(UserError, match="pooler.weight"):
        from_published(released | {"model.pooler.weight": torch.zeros(1)})
