"""Missing-aware prompts (MMP), as published on ViLT and as the paper has them on CLIP."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clip.missing import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import Prepended
from clip.modules.prompts.base import (
    CasePrompts,
    Layer,
    NoSettings,
    PromptConfig,
    PromptMethod,
    prompt_parameter,
)
from clip.utils.errors import UserError

ROWS = {COMPLETE: 0, MISSING_TEXT: 2, MISSING_IMAGE: 1}  # the one that starts as ones, by case


def one_row(parts: int, depth: int, cases: int, length: int, width: int) -> nn.Parameter:
    """Make zeros but for a row of ones in each part, another row a case (YiLunLee's release).

    Raises:
        UserError: a part has fewer rows than there are cases.
    """
    if length < parts * cases:
        raise UserError(
            f"prompt_length={length} is too short: each missing case starts with a row of its own; "
            f"give at least {parts * cases}"
        )
    prompts = torch.zeros(depth, cases, length, width)
    for case, row in ROWS.items():
        prompts[:, case, row :: length // parts] = 1
    return nn.Parameter(prompts)


@dataclass(frozen=True)
class Form:
    """Where the two published forms part.

    Attributes:
        initial: (parts, depth, cases, P, D) -> the prompts at the start.
        enter: (3, P, D) -> what enters a layer.
    """

    initial: Callable[..., nn.Parameter]
    enter: Callable[[Tensor], Layer]


# On two towers; in a single stream.
REPLACED = Form(lambda _, *shape: prompt_parameter(*shape), lambda prompts: prompts)
KEPT = Form(one_row, Prepended)


class MMP(PromptMethod):
    """Independent prompts for each missing case, tower and layer (Lee et al., 2023).

    They stand in front of the tokens in each of the first ``depth`` layers. On two towers each
    layer's replace those of the layer before, and the last ones are carried on; in a single stream
    all of them stay.

    Attributes:
        parts: of a layer's prompts that start alike.

    Raises:
        UserError: the towers are not so deep.
    """

    parts = 1

    def __init__(self, frame: PromptConfig, settings: NoSettings):
        super().__init__(frame, settings)
        frame.check_depth("prompt_depth", frame.depth)
        self.form = KEPT if frame.single_stream else REPLACED
        shape = self.parts, frame.depth, len(CASES), frame.length
        self.layers = nn.ParameterDict(
            {tower: self.form.initial(*shape, width) for tower, width in frame.towers.items()}
        )

    def prompts_by_case(self) -> CasePrompts:
        """Give (3, P, D) a layer."""
        return {tower: [self.form.enter(prompts) for prompts in layers] for tower, layers in self.layers.items()}
