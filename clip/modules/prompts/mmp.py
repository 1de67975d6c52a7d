"""Missing-aware prompts (MMP) in both published designs, on ViLT and, as in the DCP paper, on CLIP."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clip.missing import CASES, COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import Prefix, Prepended
from clip.modules.prompts.base import CasePrompts, PromptConfig, PromptMethod, prompt_parameter
from clip.utils.errors import UserError

ROWS = {COMPLETE: 0, MISSING_TEXT: 2, MISSING_IMAGE: 1}  # missing case -> row initialised to ones


class MMP(PromptMethod):
    """Independent prompts for each missing case, tower and layer (Lee et al., 2023), "input" design.

    They are prepended to the tokens in each of the first ``depth`` layers. With two towers, each
    layer's prompts replace those of the previous layer, and the last ones pass through the remaining
    layers; in a single stream all of them are kept.
    """

    halves = 1  # parts of a layer's prompts with the same initialisation

    def __init__(self, config: PromptConfig, settings: None = None):
        super().__init__(config, settings)
        config.check_depth("prompt_depth", config.depth)
        self.single_stream = config.single_stream
        self.layers = nn.ParameterDict()
        for tower, width in config.sizes.towers.items():
            shape = config.depth, len(CASES), config.length, width
            self.layers[tower] = self._one_hot(*shape) if self.single_stream else prompt_parameter(*shape)

    def _one_hot(self, depth: int, cases: int, length: int, width: int) -> nn.Parameter:
        """Return zeros with one row of ones per half, a different one for each missing case (released MMP code)."""
        if length < self.halves * cases:
            raise UserError(
                f"prompt_length={length} is too short: each missing case needs a row of its own; "
                f"set at least {self.halves * cases}"
            )
        prompts = torch.zeros(depth, cases, length, width)
        for case, row in ROWS.items():
            prompts[:, case, row :: length // self.halves] = 1
        return nn.Parameter(prompts)

    def layers_by_case(self) -> Mapping[str, Tensor]:
        """Return tower -> (layers, 3, P, D)."""
        return self.layers

    def prompts_by_case(self) -> CasePrompts:
        """Return (3, P, D) for each layer and tower."""
        return {
            tower: [Prepended(prompts) if self.single_stream else prompts for prompts in layers]
            for tower, layers in self.layers_by_case().items()
        }


class MMPAttention(MMP):
    """Independent prefixes for each missing case, tower and layer (Lee et al., 2023), "attention" design.

    The first half of a layer's prompts is prepended to its keys, the second half to its values, after
    their projections; the sequence length does not change.
    """

    halves = 2

    def __init__(self, config: PromptConfig, settings: None = None):
        config.share_length(2)
        super().__init__(config, settings)

    def prompts_by_case(self) -> CasePrompts:
        """Return the keys and values, (3, P / 2, D) each, for each layer and tower."""
        return {
            tower: [Prefix(*layer.chunk(2, dim=1)) for layer in layers]
            for tower, layers in self.layers_by_case().items()
        }
