"""Micro-batches: chosen for the machine, and without influence on what a step does."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from clip.cli.commands import train, validation_share
from clip.cli.schema import make_config
from clip.engine import trainer
from clip.modules import build_model
from clip.utils.errors import UserError
from tests import tiny

STEP, SAMPLES = 8, 22  # the last step has six samples, the last micro-batch of four has two


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return tiny.write_arrow(tmp_path_factory.mktemp("films"), {"train": SAMPLES, "dev": 4, "test": 4})


def trained(films, clip_folder, folder, **settings):
    config = {
        "data_root": str(films), "vit": str(clip_folder), "log_dir": str(folder), "num_gpus": 0,
        "num_workers": 0, "prompt_length": tiny.LENGTH, "prompt_depth": tiny.DEPTH,
        "batch_size": STEP, "max_epoch": 2, "val_check_interval": 1.0, **settings}  # fmt: skip
    result = train(make_config(config, set(config)))
    return torch.load(result["last"], weights_only=True)


@pytest.fixture(scope="module")
def whole(films, clip_folder, tmp_path_factory):
    return trained(films, clip_folder, tmp_path_factory.mktemp("whole"), per_gpu_batchsize=STEP)


@pytest.mark.parametrize("size", [1, 4, "auto"])
def test_a_step_is_the_same_for_any_micro_batch(films, clip_folder, whole, tmp_path, size):
    parts = trained(films, clip_folder, tmp_path, per_gpu_batchsize=size)
    assert whole["global_step"] == parts["global_step"] == 6
    for name, tensor in whole["state_dict"].items():
        torch.testing.assert_close(parts["state_dict"][name], tensor, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def baseline():
    return build_model(tiny.clip_state(), "none", 5)


@given(batch_size=st.integers(1, 4096), world=st.integers(1, 16))
def test_the_chosen_micro_batch_fills_the_step(baseline, batch_size, world):
    if batch_size % world:
        with pytest.raises(UserError, match=f"batch_size={batch_size} "):
            trainer.accumulation(batch_size, 1, world)
        return
    size = trainer.choose_micro_batch(baseline, tiny.SIZES, batch_size, world, on_gpu=False)
    assert size <= trainer.CPU_MICRO_BATCH
    assert trainer.accumulation(batch_size, size, world) * size * world == batch_size
    twice = batch_size % (2 * size * world) == 0 and 2 * size <= trainer.CPU_MICRO_BATCH
    assert not twice, "a larger one would have fitted"


def test_what_the_backward_pass_keeps_is_counted(baseline):
    """Nothing but the classifier's input (1, 2 E) where no prompt sends a gradient through."""
    assert trainer.activation_bytes(baseline, tiny.SIZES) == 4 * 2 * tiny.SIZES.embed_dim
    thin = build_model(tiny.clip_state(), "dcp", 5, 3, 1)
    thick = build_model(tiny.clip_state(), "dcp", 5, 6, 1)
    tokens = 3 * (tiny.SIZES.image_width * tiny.SIZES.image_layers
                  + tiny.SIZES.text_width * tiny.SIZES.text_layers)  # fmt: skip
    more, less = (trainer.activation_bytes(model, tiny.SIZES) for model in (thick, thin))
    assert more - less > 4 * 4 * tokens  # each keeps its hidden 4 D at least
    # And at most 12 D with q, k, v and what norms and attention need; no frozen weight counts.
    sizes = ((tiny.SIZES.grid**2 + 1 + 6, tiny.SIZES.image_width, tiny.SIZES.image_layers),
             (tiny.SIZES.context + 6, tiny.SIZES.text_width, tiny.SIZES.text_layers))  # fmt: skip
    assert more < 4 * 12 * sum(length * width * layers for length, width, layers in sizes)


@example(wanted=0.01, batches=49)
@given(wanted=st.floats(1e-6, 1), batches=st.integers(1, 5000))
def test_a_validation_comes_after_whole_batches(wanted, batches):
    """As Lightning counts: 49 * (1 / 49) would be none."""
    share = validation_share(wanted, batches)
    assert 1 <= int(batches * share) <= batches
    assert int(batches * share) == max(1, int(batches * wanted))
