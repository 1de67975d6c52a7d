"""The second design of missing-aware prompts: prefixes of the attention's keys and values."""

from clip.modules.layers import Prefix
from clip.modules.prompts.base import CasePrompts, NoSettings, PromptConfig
from clip.modules.prompts.mmp import MMP
from clip.utils.errors import UserError


class MMPAttention(MMP):
    """Independent prefixes for each missing case, tower and layer (Lee et al., 2023).

    The first half of a layer's prompts goes in front of its keys, the other in front of its
    values; both skip the projections, and the sequence keeps its length.

    Raises:
        UserError: the length is odd, or the towers are not so deep.
    """

    parts = 2

    def __init__(self, frame: PromptConfig, settings: NoSettings):
        if frame.length % 2:
            raise UserError(
                f"prompt_length={frame.length} cannot be shared by keys and values; "
                f"give an even number, such as {frame.length + 1}"
            )
        super().__init__(frame, settings)

    def prompts_by_case(self) -> CasePrompts:
        """Give keys and values, (3, P / 2, D) each, a layer."""
        return {tower: [Prefix(*layer.chunk(2, dim=1)) for layer in layers] for tower, layers in self.layers.items()}
