"""The config states the activation without doubt, and the tokenizer fits the weights."""

import json

import pytest
import torch

from clip.demo.pretrain import train_tokenizer
from clip.modules.backbones.clip import OPENAI_SHA256, find_activation, load_clip
from clip.modules.backbones.clip_convert import ClipSizes
from clip.utils.errors import UserError
from tests import tiny


def config(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        tower, _, key = key.partition("__")
        content[f"{tower}_config"][key] = value
    (folder / "config.json").write_text(json.dumps(content))


def overruled(folder):
    """A second section, of old versions, that overrules the first."""
    content = json.loads((folder / "config.json").read_text())
    content |= {"vision_config_dict": None, "text_config_dict": content["text_config"] | {"hidden_act": "gelu"}}
    (folder / "config.json").write_text(json.dumps(content))


def foreign_tokenizer(folder):
    train_tokenizer(["other words and others"] * 3, 530).save(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: config(folder, vision__hidden_act="relu"), "relu"),
        (overruled, "'gelu'"),
        (lambda folder: config(folder, vision__num_attention_heads=4), "num_attention_heads of vision_config is 4"),
        (lambda folder: config(folder, text__num_hidden_layers=12), "num_hidden_layers of text_config is 12"),
        (lambda folder: config(folder, text__layer_norm_eps=1e-6), "layer_norm_eps of text_config is 1e-06"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{}"), "activation="),
        (lambda folder: (folder / "config.json").unlink(), "activation="),
        (lambda folder: (folder / "vocab.json").unlink(), "vocab.json"),
        (lambda folder: (folder / "merges.txt").unlink(), "vocab.json and merges.txt"),
        (lambda folder: (folder / "vocab.json").write_text("[]"), "vocab.json and merges.txt"),
        (foreign_tokenizer, "526"),
        (lambda folder: (folder / "model.safetensors").unlink(), "none of model.safetensors, "),
    ],
)
def test_a_broken_folder_is_refused_by_name(folder, change, words):
    change(folder)
    assert words in tiny.refusal(folder)


def test_conflicting_activations_raise(folder, state):
    assert load_clip(str(folder), "quick_gelu").activation == "quick_gelu"
    message = tiny.refusal(folder, "gelu")
    assert "config.json says quick_gelu, activation= says gelu" in message
    model = {"embed_dim": 32, "vision_cfg": {"width": 128}, "text_cfg": {"width": 64, "heads": 1}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    assert "open_clip_config.json says gelu" in tiny.refusal(folder)
    (folder / "config.json").unlink()
    assert load_clip(str(folder)).activation == "gelu"


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("vision_cfg", {"timm_model_name": "vit_so400m"}, "timm_model_name"),
        ("vision_cfg", {"head_width": 80}, "head_width=80"),
        ("text_cfg", {"no_causal_mask": True}, "no_causal_mask"),
    ],
)
def test_variants_of_open_clip_are_refused(folder, section, values, words):
    model = {"quick_gelu": True, "vision_cfg": {}, "text_cfg": {}} | {section: values}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    assert words in tiny.refusal(folder)


def test_the_checksum_of_openais_archives_states_the_activation(tmp_path, state):
    sizes = ClipSizes.of(state)
    assert len(OPENAI_SHA256) == 4
    for checksum in OPENAI_SHA256:
        assert find_activation(tmp_path, sizes, checksum, None) == "quick_gelu"
        with pytest.raises(UserError, match="quick_gelu.*activation= says gelu"):
            find_activation(tmp_path, sizes, checksum, "gelu")
    with pytest.raises(UserError, match="activation="):
        find_activation(tmp_path, sizes, "0" * 64, None)


def test_a_tower_wider_than_the_published_ones_needs_a_configuration(tmp_path, state):
    width = 1280  # ViT-H/14 has 16 heads of 80 there
    state["visual.conv1.weight"] = torch.zeros(width, 3, 8, 8)
    with pytest.raises(UserError, match="1280"):
        find_activation(tmp_path, ClipSizes.of(state), "0" * 64, "gelu")
