"""Missing-aware prompts (MMP), as the paper re-implements them on CLIP's two towers."""

from torch import nn

from clip.missing import CASES
from clip.modules.prompts.base import (
    IMAGE,
    TEXT,
    CasePrompts,
    Frame,
    NoSettings,
    PromptMethod,
    initial_prompt,
)


class MissingAwarePrompts(PromptMethod):
    """Independent prompts for each missing case, tower and layer (Lee et al., 2023).

    They stand in front of the tokens and are replaced in each of the first ``depth`` layers; those
    of the last of these are carried on.

    Raises:
        UserError: the towers are not so deep.
    """

    def __init__(self, frame: Frame, settings: NoSettings):
        super().__init__(frame, settings)
        frame.check_depth("prompt_depth", frame.depth)
        self.layers = nn.ParameterDict(
            {
                tower: initial_prompt(frame.depth, len(CASES), frame.length, width)
                for tower, width in frame.widths.items()
            }
        )

    def cases(self) -> CasePrompts:
        """Give (3, P, D) a layer."""
        return {tower: list(self.layers[tower]) for tower in (IMAGE, TEXT)}
