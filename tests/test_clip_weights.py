"""Frozen CLIPs on disk: ours and transformers' are the same, and wrong ones are refused."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from clip.errors import UserError
from clip.missing import COMPLETE
from clip.modules import build_model
from clip.modules.clip_weights import load_clip
from tests import tiny


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def folder(request, tmp_path_factory):
    return tiny.write_clip(tmp_path_factory.mktemp("clip") / "x", request.param)


def test_plain_clip_equals_transformers(folder):
    frozen = load_clip(str(folder))
    model = build_model(frozen.state, "none", 2, activation=frozen.activation).eval()
    oracle = CLIPModel.from_pretrained(folder).eval()
    tokens = frozen.tokenizer(tiny.TEXTS)
    image = torch.randn(len(tokens), 3, 16, 16)
    with torch.no_grad():
        seen = oracle.visual_projection(oracle.vision_model(image).pooler_output)
        read = oracle.text_projection(oracle.text_model(tokens).pooler_output)
        found = model.features(image, tokens, torch.full((len(tokens),), COMPLETE))
    torch.testing.assert_close(found, torch.cat([seen, read], 1), atol=1e-5, rtol=0)


def test_what_transformers_writes_loads_to_equal_tensors(folder, tmp_path):
    CLIPModel.from_pretrained(folder).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(folder / name, tmp_path)
    ours, theirs = load_clip(str(folder)).state, load_clip(str(tmp_path)).state
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def broken(folder, target, change):
    shutil.copytree(folder, target)
    change(target)
    return target


def drop_tensor(path):
    state = load_file(path / "model.safetensors")
    state.pop("text_model.encoder.layers.1.mlp.fc1.bias")
    save_file(state, path / "model.safetensors")


def add_tensor(path):
    state = load_file(path / "model.safetensors") | {"pooler.weight": torch.zeros(1)}
    save_file(state, path / "model.safetensors")


def truncate(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def other_activation(path):
    config = json.loads((path / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "relu"
    (path / "config.json").write_text(json.dumps(config))


def pickled_code(path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(path / "ran"),)

    (path / "model.safetensors").unlink()
    torch.save({"logit_scale": Payload()}, path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_tensor, "text_model.encoder.layers.1.mlp.fc1.bias"),
        (add_tensor, "pooler.weight"),
        (truncate, "cannot be read"),
        (other_activation, "relu"),
        (pickled_code, "more than tensors"),
        (lambda path: (path / "vocab.json").unlink(), "vocab.json"),
        (lambda path: (path / "config.json").write_text("{"), "config.json"),
        (lambda path: (path / "model.safetensors").unlink(), "model.safetensors"),
    ],
)
def test_a_broken_folder_is_refused_by_name(folder, tmp_path, change, words):
    path = broken(folder, tmp_path / "clip", change)
    with pytest.raises(UserError, match=words):
        load_clip(str(path))
    assert not (path / "ran").exists()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="ViT-B/16"):
        load_clip("ViT-X/99")
