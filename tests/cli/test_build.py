"""From settings and checkpoints to a model."""

import pytest
import torch

from clip.cli.build import build_all
from clip.cli.schema import make_config
from clip.modules.backbones.clip import load_clip
from clip.modules.layers import QuickGELU
from clip.utils.errors import UserError
from tests import tiny
from tests.conftest import CPU


@pytest.fixture(scope="module")
def lone_file(clip_folder, tmp_path_factory):
    """The weights without the config.json that states their activation."""
    path = tmp_path_factory.mktemp("lone") / "weights.pt"
    backbone = load_clip(str(clip_folder))
    torch.save(backbone.state, path)
    backbone.tokenizer.save(path.parent)
    return path


def build(arrow_folder, **settings):
    shape = {"prompt_length": tiny.LENGTH, "prompt_depth": tiny.DEPTH, "num_gpus": 0, "data_root": str(arrow_folder)}
    overrides = {f"{key}.{name}" for key, value in settings.items() if isinstance(value, dict) for name in value}
    return build_all(make_config(shape | settings, set(settings) | overrides), CPU)


def save(module, path):
    torch.save({"model_config": module.model_config, "state_dict": module.model.adapter_state_dict()}, path)
    return str(path)


def test_a_checkpoint_keeps_the_activation_that_the_user_set(lone_file, arrow_folder, tmp_path):
    with pytest.raises(UserError, match="activation="):
        build(arrow_folder, vit=str(lone_file))
    _, module, _ = build(arrow_folder, vit=str(lone_file), activation="quick_gelu")
    assert any(isinstance(part, QuickGELU) for part in module.modules())
    path = save(module, tmp_path / "epoch-0.pt")
    _, again, _ = build(arrow_folder, load_path=path)
    assert again.model_config == module.model_config
    with pytest.raises(UserError, match="activation=quick_gelu.*activation=gelu"):
        build(arrow_folder, load_path=path, activation="gelu")


def test_the_model_config_states_what_the_backbone_is(clip_folder, arrow_folder):
    _, module, _ = build(arrow_folder, vit=str(clip_folder))
    assert module.model_config["activation"] == "quick_gelu"
    assert len(module.model_config["backbone_sha256"]) == 64


def test_a_checkpoint_brings_the_settings_of_its_method(clip_folder, arrow_folder, tmp_path):
    _, module, _ = build(arrow_folder, vit=str(clip_folder), dcp={"generator": "fc", "common_depth": 2})
    assert module.model_config["dcp.generator"] == "fc"
    assert not [key for key in module.model_config if key.startswith(("coop.", "dept."))]
    path = save(module, tmp_path / "epoch-0.pt")
    config, again, _ = build(arrow_folder, load_path=path)
    assert again.model_config == module.model_config
    assert config.dcp.common_depth == 2  # as run.json will record
    with pytest.raises(UserError, match=r"dcp\.generator=fc.*dcp\.generator=mlp"):
        build(arrow_folder, load_path=path, dcp={"generator": "mlp"})


def test_a_checkpoint_ignores_the_settings_of_other_methods(clip_folder, arrow_folder, tmp_path):
    _, module, _ = build(arrow_folder, vit=str(clip_folder), prompt_type="none")
    path = save(module, tmp_path / "epoch-0.pt")
    _, again, _ = build(arrow_folder, load_path=path, prompt_type="none", dcp={"formulas": "paper"})
    assert again.model_config == module.model_config
