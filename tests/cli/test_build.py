"""Settings to a model: what the user and the checkpoint say about the CLIP reaches it."""

import copy

import pytest
import torch

from clip.cli.build import from_config
from clip.cli.schema import validate
from clip.config import ex
from clip.modules.backbones.clip import load_clip
from clip.modules.layers import QuickGELU
from clip.utils.errors import UserError
from tests import tiny
from tests.conftest import CPU


@pytest.fixture(scope="module")
def lone_file(clip_folder, tmp_path_factory):
    """The weights without the config.json that says how they were trained."""
    path = tmp_path_factory.mktemp("lone") / "weights.pt"
    frozen = load_clip(str(clip_folder))
    torch.save(frozen.state, path)
    frozen.tokenizer.save(path.parent)
    return path


def built(arrow_folder, **settings):
    config = copy.deepcopy(ex.configurations[0]()) | settings
    config |= {"data_root": str(arrow_folder), "prompt_length": tiny.LENGTH, "num_gpus": 0,
               "prompt_depth": tiny.DEPTH}  # fmt: skip
    return from_config(validate(config), set(settings), CPU)[0]


def test_a_checkpoint_keeps_the_activation_that_the_user_gave(lone_file, arrow_folder, tmp_path):
    with pytest.raises(UserError, match="give activation="):
        built(arrow_folder, vit=str(lone_file))
    module = built(arrow_folder, vit=str(lone_file), activation="quick_gelu")
    assert any(isinstance(part, QuickGELU) for part in module.modules())
    path = tmp_path / "epoch-0.pt"
    torch.save({"model_config": module.model_config, "state_dict": module.model.adapter_state_dict()}, path)

    again = built(arrow_folder, load_path=str(path))
    assert again.model_config == module.model_config
    with pytest.raises(UserError, match="has activation=quick_gelu, but this run has .*=gelu"):
        built(arrow_folder, load_path=str(path), activation="gelu")


def test_the_identity_of_a_model_names_what_the_clip_says(clip_folder, arrow_folder):
    model_config = built(arrow_folder, vit=str(clip_folder)).model_config
    assert model_config["activation"] == "quick_gelu"
    assert len(model_config["backbone_sha256"]) == 64


def saved(module, path):
    torch.save({"model_config": module.model_config, "state_dict": module.model.adapter_state_dict()}, path)
    return str(path)


def test_a_checkpoint_brings_its_methods_settings_along(clip_folder, arrow_folder, tmp_path):
    """As typed: only what the user gave stands against the checkpoint's."""
    vit, dcp = str(clip_folder), ex.configurations[0]()["dcp"]
    module = built(arrow_folder, vit=vit, dcp=dcp | {"generator": "fc", "common_depth": 2})
    assert module.model_config["dcp.generator"] == "fc"
    assert not [key for key in module.model_config if key.startswith(("coop.", "dept."))]
    path = saved(module, tmp_path / "epoch-0.pt")
    given = {"data_root": str(arrow_folder), "load_path": path, "num_gpus": 0}
    config = validate(copy.deepcopy(ex.configurations[0]()) | given)
    again, _ = from_config(config, {"load_path"}, CPU)
    assert again.model_config == module.model_config
    assert config["dcp"]["common_depth"] == 2  # what run.json will say
    config = validate(copy.deepcopy(ex.configurations[0]()) | given)
    with pytest.raises(UserError, match="has dcp.generator=fc, but this .*=mlp"):
        from_config(config, {"dcp.generator"}, CPU)


def test_the_baseline_is_not_refused_for_a_setting_of_dcp(clip_folder, arrow_folder, tmp_path):
    module = built(arrow_folder, vit=str(clip_folder), prompt_type="none")
    path = saved(module, tmp_path / "epoch-0.pt")
    dcp = ex.configurations[0]()["dcp"] | {"formulas": "paper"}
    again = built(arrow_folder, load_path=path, prompt_type="none", dcp=dcp)
    assert again.model_config == module.model_config
