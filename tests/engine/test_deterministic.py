"""Gradients are the same bit for bit, however many threads there are."""

from dataclasses import replace

import pytest
import torch

from clip.modules import build_model
from clip.modules.prompts import PROMPT_TYPES
from tests import tiny

SIZES = replace(tiny.SIZES, text_width=128)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("prompt_type", PROMPT_TYPES)
def test_a_step_is_the_same_every_time(prompt_type, two_threads):
    model = build_model(tiny.clip_state(SIZES), prompt_type, 5, prompt_length=36, prompt_depth=2)
    batch = tiny.batch([0, 1, 2, 0, 2, 1, 0, 0] * 8, SIZES)
    parameters = [model.get_parameter(name) for name in model.trainable_names()]

    def gradients():
        loss, auxiliary = model(*batch).square().sum(), model.prompts.auxiliary_loss()
        return torch.autograd.grad(loss if auxiliary is None else loss + auxiliary, parameters)

    first, *others = (gradients() for _ in range(4))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
