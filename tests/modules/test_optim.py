"""Parameter groups and learning rates, by hand."""

import pytest
import torch

from clip.config import OptimizerSettings
from clip.modules import build_model
from clip.modules.optim import make_optimizer, parameter_groups, schedule_steps
from tests import tiny


@pytest.fixture(scope="module")
def model():
    return build_model(tiny.clip_state(), prompt_length=tiny.LENGTH, prompt_depth=tiny.DEPTH, num_classes=4)


def test_four_published_groups(model):
    settings = OptimizerSettings(learning_rate=0.1, lr_mult=3, weight_decay=0.02)
    groups = parameter_groups(model.named_parameters(), settings)
    found = {(round(g["lr"], 3), g["weight_decay"]): set(g["names"]) for g in groups}
    assert found.keys() == {(0.1, 0.02), (0.1, 0), (0.3, 0.02), (0.3, 0)}
    assert set().union(*found.values()) == set(model.trainable_names())
    assert found[0.3, 0.02] == {"classifier.weight"}
    assert found[0.3, 0] == {"classifier.bias"}
    assert {"prompts.generators.text.1.0.weight", "image_encoder.ln_post.weight"} <= found[0.1, 0.02]
    assert {"text_encoder.ln_final.bias", "prompts.dynamic.image.attention.in_proj_bias"} <= found[0.1, 0]


def test_groups_of_the_released_code_on_vit_b_16():
    """The released code's values that decay, its 46 biases that do not, and the head.

    Its 54 decaying tensors are 50 here: seven initial and common prompts are stacked into three.
    """
    with torch.device("meta"):
        state = tiny.clip_state(tiny.VIT_B_16)
        model = build_model(state, dynamic_queries="fixed", num_classes=23)
    groups = parameter_groups(model.named_parameters(), OptimizerSettings(lr_mult=3))
    found = {
        (group["lr"] > 0.02, group["weight_decay"] > 0): (
            len(group["params"]), sum(p.numel() for p in group["params"]))
        for group in groups
    }  # fmt: skip
    assert found == {(False, True): (50, 5_783_808), (False, False): (46, 31_744),
                     (True, True): (1, 23_552), (True, False): (1, 23)}  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == 149_620_736 + 5_815_552 - 395_776 + 23_575
    for group in groups:
        assert all(name.endswith("bias") == (group["weight_decay"] == 0) for name in group["names"])


def test_floor_drops_the_last_partial_group_of_every_epoch():
    """One plot a film, micro-batch 4: 3,888 batches an epoch, 61 steps each, but 1,215 in all."""
    steps, full_steps = 20 * 61, 20 * 3888 // 64
    assert schedule_steps(OptimizerSettings(), steps, full_steps) == 1220
    assert schedule_steps(OptimizerSettings(schedule_length="floor"), steps, full_steps) == 1215


def test_adam_has_its_own_betas(model):
    optimizer, _ = make_optimizer(model, OptimizerSettings(optim_type="adam"), 10)
    assert isinstance(optimizer, torch.optim.Adam)
    assert not isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.999)


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 10), (25, 25)])
def test_learning_rate_rises_from_zero_and_falls_to_the_end(model, warmup, steps):
    settings = OptimizerSettings(learning_rate=0.01, warmup_steps=warmup)
    optimizer, schedule = make_optimizer(model, settings, total_steps=100)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == 0
    assert rates[steps] == pytest.approx(0.01)
    assert rates[steps // 5] == pytest.approx(0.01 * (steps // 5) / steps)
    assert rates[99] == pytest.approx(0.01 / (100 - steps))
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_betas_are_the_published_ones(model):
    optimizer, _ = make_optimizer(model, OptimizerSettings(), 10)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.98)
    assert optimizer.defaults["eps"] == 1e-8
