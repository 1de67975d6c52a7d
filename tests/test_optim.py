"""Parameter groups and learning rates, by hand."""

import pytest
import torch

from clip.modules import build_model
from clip.modules.optim import OptimSettings, make_optimizer, parameter_groups
from tests import tiny


@pytest.fixture(scope="module")
def model():
    return build_model(
        tiny.clip_state(), prompt_length=tiny.LENGTH, prompt_depth=tiny.DEPTH, num_classes=4
    )


def test_four_published_groups(model):
    settings = OptimSettings(learning_rate=0.1, lr_mult=3, weight_decay=0.02)
    groups = parameter_groups(model.named_parameters(), settings)
    found = {(round(g["lr"], 3), g["weight_decay"]): set(g["names"]) for g in groups}
    assert found.keys() == {(0.1, 0.02), (0.1, 0), (0.3, 0.02), (0.3, 0)}
    assert set().union(*found.values()) == set(model.trainable_names())
    assert found[0.3, 0.02] == {"classifier.weight"}
    assert found[0.3, 0] == {"classifier.bias"}
    assert {"prompts.generators.text.1.0.weight", "image_encoder.ln_post.weight"} <= found[
        0.1, 0.02
    ]
    assert {"text_encoder.ln_final.bias", "prompts.dynamic.image.attention.in_proj_bias"} <= found[
        0.1, 0
    ]


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 10), (25, 25)])
def test_learning_rate_rises_from_zero_and_falls_to_the_end(model, warmup, steps):
    settings = OptimSettings(learning_rate=0.01, warmup_steps=warmup)
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
    optimizer, _ = make_optimizer(model, OptimSettings(), 10)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.98)
    assert optimizer.defaults["eps"] == 1e-8
