"""Samples whose features depend on nothing that trains are encoded once, and the run stays the same."""

import pytest
import torch
from torch import nn

from clip.cli.commands import train
from clip.cli.schema import make_config
from clip.modules import build_model
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from clip.modules.prompts import PROMPT_TYPES
from tests import tiny

TRAIN, VAL = 21, 7  # neither is a multiple of a micro-batch
FROZEN = {"none": {}, "dept": {"base": "none"}, "dpl": {"base": "none"}}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return tiny.write_arrow(tmp_path_factory.mktemp("films"), {"train": TRAIN, "dev": VAL, "test": 4})


@pytest.fixture
def run(films, clip_folder, tmp_path):
    """Train; return the result, the last checkpoint and how many images were encoded."""

    def inner(name, **settings):
        config = {
            "data_root": str(films), "vit": str(clip_folder), "log_dir": str(tmp_path / name), "num_gpus": 0,
            "num_workers": 0, "prompt_length": tiny.LENGTH, "prompt_depth": tiny.DEPTH, "missing_ratio": 0.6,
            "batch_size": 8, "per_gpu_batchsize": 4, "max_epoch": 3, "val_check_interval": 0.5,
            "prompt_type": "none", **settings}  # fmt: skip
        encoded = []

        def count(module, inputs, output):
            if isinstance(module, nn.Conv2d):
                encoded.append(len(output))

        with nn.modules.module.register_module_forward_hook(count):
            result = train(make_config(config, set(config)))
        return result, torch.load(result["last"], weights_only=True), sum(encoded)

    return inner


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt_type": "none"},
        {"prompt_type": "dept", "dept": FROZEN["dept"], "clip": {"missing": "dummy"}},
        {"prompt_type": "dpl", "dpl": FROZEN["dpl"], "class_weights": "balanced", "limit_train": 18},
        {"prompt_type": "none", "simulate_missing": True},
    ],
    ids=str,
)
def test_encoding_once_changes_neither_scores_nor_weights(run, monkeypatch, settings):
    once, checkpoint, images = run("once", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(MissingAwarePromptModule, "encode_splits", lambda module: None)
        always, other, more_images = run("always", **settings)
    simulated = TRAIN if "simulate_missing" in settings else 0  # with a text and without
    assert images <= TRAIN + simulated + VAL + 1  # one more, to decide
    assert images < more_images
    assert checkpoint["state_dict"].keys() == other["state_dict"].keys()
    for name, tensor in checkpoint["state_dict"].items():
        torch.testing.assert_close(tensor, other["state_dict"][name], atol=1e-5, rtol=1e-5, msg=name)
    assert (once["best_step"], once["steps"]) == (always["best_step"], always["steps"])
    scores = [name for name in once if name.startswith("val/")]
    assert [once[name] for name in scores] == pytest.approx([always[name] for name in scores], abs=1e-6)


def test_a_resumed_run_has_the_same_features_bitwise(run):
    _, whole, _ = run("whole")
    half, *_ = run("half", max_steps=4)
    assert half["steps"] == 4
    _, resumed, _ = run("half", resume_from=half["folder"], max_steps=99)
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, resumed["state_dict"][name]), name


@pytest.mark.parametrize("settings", [{"prompt_type": "dcp", "unfreeze": []}, {"unfreeze": ["ln_final"]}], ids=str)
def test_what_trains_is_encoded_in_each_epoch(run, settings):
    *_, images = run("trained", clip={"missing": "dummy"}, **settings)
    assert images >= 3 * (TRAIN + VAL)


@pytest.mark.parametrize("unfreeze", [(), ("ln_post",), ("backbone",)])
@pytest.mark.parametrize("prompt_type", PROMPT_TYPES)
def test_autograd_tells_which_features_depend_on_what_trains(prompt_type, unfreeze):
    for settings in ({}, FROZEN.get(prompt_type, {})):
        model = build_model(
            tiny.clip_state(), prompt_type, 5, tiny.LENGTH, tiny.DEPTH, unfreeze=unfreeze, **settings
        ).eval()
        frozen = not unfreeze and (prompt_type in ("none", "finetune") or bool(settings))
        for case in range(3):
            assert model.features(*tiny.batch([case])).requires_grad != frozen
