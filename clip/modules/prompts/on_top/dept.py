"""DePT's channel-adjusted transfer head, on top of the prompts of another method."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from clip.modules.layers import init_linear
from clip.modules.prompts.base import PromptConfig
from clip.modules.prompts.on_top.base import OnTop
from clip.modules.prompts.registry import METHODS
from clip.utils.settings import Settings


class DePTSettings(Settings):
    """Settings of DePT."""

    base: Literal[tuple(METHODS)] = Field("maple", description="method whose prompts are used, with default settings")
    weight: float = Field(
        0.7, gt=0, lt=1, description="weight of the channel-adjusted head; the plain head has 1 - weight"
    )


class DePT(OnTop):
    """Add a linear head on scaled and shifted feature channels (Zhang et al., 2024).

    Losses and logits of the two heads are mixed as λ·CAT + (1-λ)·head. Features of a missing
    modality are zero, so the adjusted ones equal the shift.
    """

    Settings = DePTSettings

    def __init__(self, config: PromptConfig, settings: DePTSettings):
        super().__init__(config, METHODS[settings.base])
        self.weight = settings.weight
        channels = config.sizes.feature_width
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.classifier = init_linear(channels, config.num_classes)

    def heads(self, features: Tensor, classifier: nn.Module, missing_case: Tensor) -> list[tuple[float, Tensor]]:
        """Return the channel-adjusted head and the plain one; see ``PromptMethod.heads``."""
        adjusted = self.classifier(features * self.scale + self.shift)
        return [(self.weight, adjusted), (1 - self.weight, classifier(features))]
