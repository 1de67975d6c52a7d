"""MaPLe: the image tower's prompts are made from the text tower's."""

from torch import nn

from clip.modules.prompts.base import (
    IMAGE,
    TEXT,
    CasePrompts,
    PromptConfig,
    PromptMethod,
    SetSettings,
    expand_to_cases,
    prompt_parameter,
)


class MaPLeSettings(SetSettings):
    """The method's own settings."""

    method = "maple"


class MaPLe(PromptMethod):
    """Free text prompts in the first ``depth`` layers and image prompts linear in them.

    Behind these layers the last prompts' outputs are carried on (Khattak et al., 2023).

    Raises:
        UserError: the towers are not so deep.
    """

    Settings = MaPLeSettings

    def __init__(self, frame: PromptConfig, settings: MaPLeSettings):
        super().__init__(frame, settings)
        frame.check_depth("prompt_depth", frame.depth)
        widths = frame.widths
        self.text = prompt_parameter(frame.depth, settings.sets, frame.length, widths[TEXT])
        self.couplings = nn.ModuleList(nn.Linear(widths[TEXT], widths[IMAGE]) for _ in range(frame.depth))

    def prompts_by_case(self) -> CasePrompts:
        """Give (3, P, D) a layer; the image tower's come from the text tower's."""
        pairs = zip(self.couplings, self.text, strict=True)
        image = [expand_to_cases(couple(layer)) for couple, layer in pairs]
        return {IMAGE: image, TEXT: [expand_to_cases(layer) for layer in self.text]}
