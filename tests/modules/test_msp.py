"""MSP: the orthogonality loss and the initial values; tests of its prompts are in test_methods and test_vilt."""

import pytest
import torch

from clip.modules.backbones.vilt_convert import ViltSizes
from clip.modules.prompts.base import PromptConfig
from clip.modules.prompts.msp import MSP, MSPSettings
from tests import tiny

VILT = ViltSizes(width=128, layers=3, patch=32, grid=3, context=40, vocabulary=64)


def test_loss_is_the_sum_of_the_absolute_cosines_of_both_towers():
    msp = MSP.build(PromptConfig(tiny.SIZES, 4, 2), MSPSettings())
    with torch.no_grad():
        for prompts, (text, image) in zip(
            msp.layers.values(), [((3.0, 4.0), (-4.0, 0.0)), ((1.0, 0.0), (2.0, 2.0))], strict=True
        ):
            prompts.zero_()
            for row, (first, second) in enumerate((text, image)):  # of the sets of missing texts and missing images
                prompts[0, row, 0, 0], prompts[1, row, 3, 5] = first, second
    assert msp.auxiliary_loss().item() == pytest.approx(0.6 + 0.5**0.5)


@pytest.mark.parametrize(("attention", "rows"), [(False, [[2], [1]]), (True, [[2, 10], [1, 9]])])
def test_initial_values_on_vilt(attention, rows):
    """Zeros with a row of ones: row 2 for missing texts, row 1 for missing images, in each half of a prefix."""
    msp = MSP.build(PromptConfig(VILT, 16, 2), MSPSettings(attention=attention))
    (prompts,) = msp.layers.values()
    found = [[row for row in range(16) if prompts[1, case, row].eq(1).all()] for case in (0, 1)]
    assert found == rows
    assert prompts.sum() == 2 * 128 * sum(map(len, rows))
    assert msp.auxiliary_loss() == 0
