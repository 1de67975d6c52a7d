"""Checkpoints as the released code's Lightning wrote them: they load, and nothing in them runs."""

import os
from argparse import Namespace

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from clip.engine.checkpoints import read_checkpoint
from clip.modules import build_model
from clip.modules.backbones.clip import load_clip
from clip.modules.released.dcp import our_names
from clip.utils.errors import UserError
from tests import tiny
from tests.conftest import shell
from tests.modules.test_released_dcp import from_published

SEED = 3
SHAPE = {"prompt_length": 9, "prompt_depth": 3}


def released_names(model):
    """Our model's tensors under the released names; the dynamic queries are left out, as there."""
    state = model.state_dict()
    out = {}
    for ours, theirs in our_names(SHAPE["prompt_depth"]):
        rows = state.pop(ours) if len(theirs) > 1 else state.pop(ours)[None]
        out |= {f"model.{name}": row.clone() for name, row in zip(theirs, rows, strict=True)}
    for leaf in ("weight", "bias"):
        out[f"mmimdb_classifier.{leaf}"] = state.pop(f"classifier.{leaf}")
    frozen = {f"model.{k}": v for k, v in state.items() if not k.startswith("prompts.")}
    return out | frozen | {"model.logit_scale": torch.tensor(2.0)}


@pytest.fixture(scope="module")
def state(clip_folder):
    torch.manual_seed(0)
    clip = load_clip(str(clip_folder)).state
    model = build_model(clip, num_classes=23, dynamic_queries="fixed", seed=SEED, **SHAPE)
    with torch.no_grad():
        for name in model.trainable_names():
            model.get_parameter(name).add_(0.05 * torch.randn_like(model.get_parameter(name)))
    return released_names(model)


def write(path, state, **more):
    """A Lightning 1 file: callbacks keyed by their classes, settings, an old-style object."""
    callbacks = {ModelCheckpoint: {"best_model_score": torch.tensor(0.5)}, EarlyStopping: {}}
    content = {
        "epoch": 4,
        "callbacks": callbacks,
        "state_dict": state,
        "hparams_type": Namespace,
        "hyper_parameters": {"config": {"seed": SEED}, "args": Namespace(a=1)},
    }
    torch.save(content | more, path)
    return path


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    return write(tmp_path_factory.mktemp("released") / "epoch=4-step=634.ckpt", state)


def test_a_released_file_gives_its_logits_through_the_command_line(
    file, state, settings, clip_folder, arrow_folder, tmp_path
):
    done = shell(
        "with",
        "task_finetune_mmimdb",
        *settings[:-2],
        f"load_path={file}",
        f"seed={SEED}",
        "test_only=True",
        f"log_dir={tmp_path}",
        "exp_name=r",
    )
    assert done.returncode == 0, done.stderr
    assert f"drawn again from seed={SEED}" in done.stdout
    checkpoint = read_checkpoint(file, SEED)
    wanted = from_published(state, SEED)
    own = wanted.adapter_state_dict()
    assert checkpoint["state_dict"].keys() == own.keys()
    assert all(torch.equal(checkpoint["state_dict"][name], own[name]) for name in own)
    inputs = tiny.batch([0, 1, 2], tiny.FEWER_IDS)
    other = from_published(state, SEED + 1)
    assert (wanted(*inputs) - other(*inputs)).abs().max() > 1e-6  # the queries do count


def test_another_clip_is_refused_by_name(file, settings, tmp_path):
    other = tiny.write_clip(tmp_path / "clip", seed=9)
    given = [text for text in settings[:-2] if not text.startswith("vit=")]
    done = shell("with", "task_finetune_mmimdb", *given, f"vit={other}", f"load_path={file}", "test_only=True")
    assert done.returncode == 1
    assert "was trained on another backbone" in done.stderr
    assert done.stderr.startswith("error: ")


def test_queries_in_the_file_are_used(state):
    drawn = from_published(state, SEED)
    queries = {}
    for tower in ("image", "text"):
        for case, rows in zip(("complete", "image", "text"), drawn.prompts.dynamic[tower].queries, strict=True):
            block = f"model.{tower}_encoder.transformer.resblocks.0"
            queries[f"{block}.prompts_dynamic_{case}"] = rows[:, None]
    inputs = tiny.batch([0, 1, 2], tiny.FEWER_IDS)
    assert torch.equal(from_published(state | queries, SEED + 1)(*inputs), drawn(*inputs))


class Payload:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_does_not_run(state, tmp_path):
    path = write(tmp_path / "a.ckpt", state, epoch=Payload(tmp_path / "ran"))
    with pytest.raises(UserError, match="a.ckpt"):
        read_checkpoint(path, SEED)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # the payload does work where it is allowed to


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("model.prompt_learner.layernorm_text.1.bias"), "layernorm_text.1.bias"),
        (lambda s: s.update({"model.pooler.weight": torch.zeros(1)}), "pooler.weight"),
        (lambda s: s.clear(), "released code"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_by_name(state, tmp_path, change, words):
    content = dict(state)
    change(content)
    with pytest.raises(UserError, match=words):
        read_checkpoint(write(tmp_path / "a.ckpt", content), SEED)
