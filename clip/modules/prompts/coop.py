"""CoOp as in the DCP paper: learnable prompts at the input of each tower only."""

from torch import nn

from clip.modules.prompts.base import (
    CasePrompts,
    PerCaseSettings,
    PromptConfig,
    PromptMethod,
    expand_to_cases,
    prompt_parameter,
)


class CoOp(PromptMethod):
    """Context vectors prepended to the tokens of each tower, carried through all layers (Zhou et al., 2022).

    The sample's own text takes the place of class names. ``config.depth`` is ignored.
    """

    Settings = PerCaseSettings

    def __init__(self, config: PromptConfig, settings: PerCaseSettings):
        super().__init__(config, settings)
        self.context = nn.ParameterDict(
            {tower: prompt_parameter(settings.num_sets, config.length, d) for tower, d in config.sizes.towers.items()}
        )

    def prompts_by_case(self) -> CasePrompts:
        """Return the context of each tower at layer 0, (3, P, D)."""
        return {tower: [expand_to_cases(prompts)] for tower, prompts in self.context.items()}
