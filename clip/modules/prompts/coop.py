"""CoOp as the paper compares with it: learnable prompts at the input level only."""

from torch import nn

from clip.modules.prompts.base import (
    CasePrompts,
    PromptConfig,
    PromptMethod,
    SetSettings,
    expand_to_cases,
    prompt_parameter,
)


class CoOpSettings(SetSettings):
    """The method's own settings."""

    method = "coop"


class CoOp(PromptMethod):
    """Context vectors in front of the tokens, carried on through all layers (Zhou et al., 2022).

    Each tower has them, and the sample's own text is read in place of class names.
    ``frame.depth`` means nothing to it.
    """

    Settings = CoOpSettings

    def __init__(self, frame: PromptConfig, settings: CoOpSettings):
        super().__init__(frame, settings)
        self.context = nn.ParameterDict(
            {tower: prompt_parameter(settings.sets, frame.length, d) for tower, d in frame.towers.items()}
        )

    def prompts_by_case(self) -> CasePrompts:
        """Give each tower its context at layer 0, (3, P, D)."""
        return {tower: [expand_to_cases(prompts)] for tower, prompts in self.context.items()}
