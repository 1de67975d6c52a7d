"""CoOp as the paper compares with it: learnable prompts at the input level only."""

from torch import nn

from clip.modules.prompts.base import (
    CasePrompts,
    Frame,
    PromptMethod,
    SetSettings,
    for_all_cases,
    initial_prompt,
)


class CoOpSettings(SetSettings):
    """The method's own settings."""

    method = "coop"


class ContextPrompts(PromptMethod):
    """Context vectors in front of the tokens, carried on through all layers (Zhou et al., 2022).

    Each tower has them, and the sample's own text is read in place of class names.
    ``frame.depth`` means nothing to it.
    """

    Settings = CoOpSettings

    def __init__(self, frame: Frame, settings: CoOpSettings):
        super().__init__(frame, settings)
        self.context = nn.ParameterDict(
            {tower: initial_prompt(settings.sets, frame.length, d) for tower, d in frame.towers.items()}
        )

    def cases(self) -> CasePrompts:
        """Give each tower its context at layer 0, (3, P, D)."""
        return {tower: [for_all_cases(prompts)] for tower, prompts in self.context.items()}
