"""Modality-specific prompts (MSP; Jang et al., ICASSP 2024): two sets, one for each modality that may be missing."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.prompts.base import PromptConfig
from clip.modules.prompts.mmp import MMP, MMPAttention
from clip.utils.settings import Settings


class MSPSettings(Settings):
    """Settings of MSP."""

    attention: bool = Field(True, description="prefixes of keys and values, as published; False: input tokens")


class MSP(MMP):
    """One set of prompts for missing texts, one for missing images, and their sum for complete samples.

    Depth, length, place and initial values are those of MMP. The cosine of the two sets is an auxiliary loss, which
    pushes them towards orthogonality; with two towers, the sum of the cosines of both.
    """

    Settings = MSPSettings

    def __init__(self, config: PromptConfig, settings: MSPSettings):
        super().__init__(config, settings)
        for tower, prompts in self.layers.items():
            self.layers[tower] = nn.Parameter(prompts.detach()[:, [MISSING_TEXT, MISSING_IMAGE]])

    @classmethod
    def build(cls, config: PromptConfig, settings: MSPSettings) -> "MSP":
        """Build the design that the settings name."""
        return (MSPAttention if settings.attention else MSP)(config, settings)

    def layers_by_case(self) -> dict[str, Tensor]:
        """Return tower -> (layers, 3, P, D): the sum, the set for missing texts, the set for missing images."""
        return {tower: torch.cat([sets.sum(1, keepdim=True), sets], dim=1) for tower, sets in self.layers.items()}

    def auxiliary_loss(self) -> Tensor:
        """Return the absolute cosine of the two sets, each flattened to one vector."""
        return sum(F.cosine_similarity(*sets.transpose(0, 1).flatten(1), dim=0).abs() for sets in self.layers.values())


class MSPAttention(MSP, MMPAttention):
    """MSP whose prompts are prefixes of keys and values."""
