"""The MMP release's own numbers on ViLT (tests/data/mmp_*_a.npz), both designs, and its files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.cli.build import load_checkpoint
from clip.cli.schema import make_config
from clip.config import PUBLISHED_WEIGHTS
from clip.modules.factory import build_model
from clip.modules.released import check_backbone, read_released
from clip.modules.released.mmp import HEAD, PROMPTS, convert_mmp
from clip.utils.errors import UserError
from tests.modules.test_released_dcp import draw, normal

DATA = Path(__file__).parents[1] / "data"


class Callback:
    """A class that release checkpoints name, and that must not be imported to read them."""


@pytest.fixture(scope="module", params=["mmp_input_a", "mmp_attention_a"])
def published(request):
    vectors = dict(np.load(DATA / f"{request.param}.npz", allow_pickle=False))
    config = json.loads(str(vectors["config"]))
    trainable, frozen = (json.loads(str(vectors[key])) for key in ("trainable", "frozen"))
    return vectors, config, {name: draw(name, s) for name, s in (trainable | frozen).items()}


def loaded(state, config):
    released = convert_mmp(state, config)
    shape = [released["model_config"][f"prompt_{key}"] for key in ("length", "depth")]
    kind = released["model_config"]["prompt_type"]
    model = build_model(released["released"], kind, 23, *shape, backbone="vilt", activation="gelu")
    model.load_adapter(released["state_dict"], "these vectors")
    check_backbone(model, released["released"], "these vectors")
    return model


def ours(gradients, name):
    if name in PROMPTS:
        return gradients["prompts.layers.joint"][:, PROMPTS.index(name)]
    head = HEAD.fullmatch(name)
    return gradients[f"classifier.{head[2]}" if head else name.replace("pooler.dense", "stream.pooler")]


def test_features_loss_and_every_gradient(published):
    vectors, config, state = published
    model = loaded(state, config)
    cases = torch.tensor(config["cases"])
    image = normal(f"{config['name']}.image", (len(cases), *config["image"]))
    ids = torch.from_numpy(vectors["ids"]).long()
    assert torch.equal(ids != 0, torch.from_numpy(vectors["mask"]).bool())
    features = model.features(image, ids, cases)
    logits = model.classifier(features)
    labels = (normal(f"{config['name']}.labels", logits.shape) > 0.8).float()
    loss = F.binary_cross_entropy_with_logits(logits, labels)
    for found, name in ((features, "cls_feats"), (logits, "logits"), (loss, "loss")):
        wanted = torch.from_numpy(np.asarray(vectors[name])).to(found.dtype)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    for name in json.loads(str(vectors["trainable"])):
        flat, stored = ours(gradients, name).flatten(), torch.from_numpy(vectors[f"grad.{name}"])
        found = torch.cat([flat.norm()[None], flat[:: max(1, len(flat) // 16)][:16]]).double()
        assert (found - stored).abs().max() <= 1e-4 * stored[0], name


def test_a_checkpoint_of_the_release(published, tmp_path):
    _, config, state = published
    content = {
        "state_dict": state,
        "callbacks": {Callback: {"best": 1}},
        "hyper_parameters": {"config": {"prompt_type": config["prompt_type"]}},
    }
    torch.save(content, tmp_path / "mmp.ckpt")
    read = read_released(tmp_path / "mmp.ckpt", 0)
    kind = {"input": "mmp", "attention": "mmp_attention"}[config["prompt_type"]]
    assert read["model_config"]["prompt_type"] == kind
    assert read["model_config"]["task"] == "mmimdb"
    assert read["model_config"]["vilt.max_text_len"] == 40
    assert torch.equal(read["state_dict"]["prompts.layers.joint"][1, 2], state[PROMPTS[2]][1])
    assert load_checkpoint(make_config({"load_path": str(tmp_path / "mmp.ckpt")}))[0].vit == PUBLISHED_WEIGHTS["vilt"]
    model = loaded(state, config)
    other = read["released"] | {"ln_final.bias": read["released"]["ln_final.bias"] + 1}
    with pytest.raises(UserError, match="stream.ln_final.bias"):
        check_backbone(model, other, "x")
    with pytest.raises(UserError, match="missing_img_prompt"):
        convert_mmp({k: v for k, v in state.items() if k != PROMPTS[2]}, {})
