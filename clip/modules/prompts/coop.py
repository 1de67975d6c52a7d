"""CoOp as the paper compares with it: learnable prompts at the input level only."""

from dataclasses import dataclass

from torch import nn

from clip.missing import CASES
from clip.modules.prompts.base import (
    IMAGE,
    TEXT,
    CasePrompts,
    Frame,
    PromptMethod,
    check_choice,
    for_all_cases,
    initial_prompt,
)


@dataclass(frozen=True)
class CoOpSettings:
    """The method's own settings.

    Attributes:
        per_case: one set of prompts for each missing case; False: one for all, as in the original.
    """

    per_case: bool = False

    def __post_init__(self) -> None:
        check_choice("coop.per_case", self.per_case, (True, False))


class ContextPrompts(PromptMethod):
    """Context vectors in front of the tokens, carried on through all layers (Zhou et al., 2022).

    Both towers have them, and the sample's own text is read in place of class names.
    ``frame.depth`` means nothing to it.
    """

    Settings = CoOpSettings

    def __init__(self, frame: Frame, settings: CoOpSettings):
        super().__init__(frame, settings)
        sets = len(CASES) if settings.per_case else 1
        self.context = nn.ParameterDict(
            {tower: initial_prompt(sets, frame.length, d) for tower, d in frame.widths.items()}
        )

    def cases(self) -> CasePrompts:
        """Give each tower its context at layer 0, (3, P, D)."""
        return {tower: [for_all_cases(self.context[tower])] for tower in (IMAGE, TEXT)}
