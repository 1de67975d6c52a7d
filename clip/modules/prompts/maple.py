"""MaPLe: prompts of the image tower are linear projections of those of the text tower."""

from torch import nn

from clip.modules.prompts.base import (
    IMAGE,
    TEXT,
    CasePrompts,
    PerCaseSettings,
    PromptConfig,
    PromptMethod,
    expand_to_cases,
    prompt_parameter,
)


class MaPLe(PromptMethod):
    """Text prompts in the first ``depth`` layers, and image prompts that are linear in them.

    After these layers, the outputs of the last prompts are carried on (Khattak et al., 2023).
    """

    Settings = PerCaseSettings

    def __init__(self, config: PromptConfig, settings: PerCaseSettings):
        super().__init__(config, settings)
        config.check_depth("prompt_depth", config.depth)
        widths = config.sizes.widths
        self.text = prompt_parameter(config.depth, settings.num_sets, config.length, widths[TEXT])
        self.couplings = nn.ModuleList(nn.Linear(widths[TEXT], widths[IMAGE]) for _ in range(config.depth))

    def prompts_by_case(self) -> CasePrompts:
        """Return (3, P, D) for each layer and tower."""
        pairs = zip(self.couplings, self.text, strict=True)
        image = [expand_to_cases(couple(layer)) for couple, layer in pairs]
        return {IMAGE: image, TEXT: [expand_to_cases(layer) for layer in self.text]}
