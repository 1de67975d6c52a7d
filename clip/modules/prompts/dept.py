"""DePT's channel-adjusted transfer head, on top of the prompts of any other method."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clip.modules.prompts.base import (
    INIT_STD,
    CasePrompts,
    Layer,
    PromptConfig,
    PromptMethod,
    check_choice,
)
from clip.utils.errors import UserError


def bases() -> dict[str, type[PromptMethod]]:
    """List the methods without a head of their own."""
    from clip.modules.prompts import PROMPT_TYPES  # here: the table names this file's method too

    plain = PromptMethod.heads
    return {name: method for name, method in PROMPT_TYPES.items() if method.heads is plain}


@dataclass(frozen=True)
class DePTSettings:
    """The method's own settings.

    Attributes:
        base: whose prompts, with their default settings; another key of ``PROMPT_TYPES``.
        weight: of the channel-adjusted head, λ; the plain head has 1 - λ.
    """

    base: str = "maple"
    weight: float = 0.7

    def __post_init__(self) -> None:
        check_choice("dept.base", self.base, bases())
        value: Any = self.weight
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise UserError(f"dept.weight={value!r} is not valid; give a number between 0 and 1")


class DePT(PromptMethod):
    """A second linear head on scaled and shifted channels of the features (Zhang et al., 2024).

    Losses and scores of the two heads are mixed as λ·CAT + (1-λ)·head. Of a missing modality whose
    half of the features is zero, the adjusted features hold the shift.

    Raises:
        UserError: what the base raises.
    """

    Settings = DePTSettings

    def __init__(self, frame: PromptConfig, settings: DePTSettings):
        super().__init__(frame, settings)
        base = bases()[settings.base]
        self.base, self.weight = base(frame, base.Settings()), settings.weight
        self.unfreeze = self.base.unfreeze
        channels = frame.sizes.feature_width
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.classifier = nn.Linear(channels, frame.num_classes)
        nn.init.normal_(self.classifier.weight, std=INIT_STD)
        nn.init.zeros_(self.classifier.bias)

    def prompts_by_case(self) -> CasePrompts:
        """Give the base's prompts."""
        return self.base.prompts_by_case()

    def select(self, *asked: Any) -> list[Layer]:
        """Give the base's prompts; see ``PromptMethod.select``."""
        return self.base.select(*asked)

    def heads(self, features: Tensor, classifier: nn.Module) -> list[tuple[float, Tensor]]:
        """Add the channel-adjusted head; see ``PromptMethod.heads``."""
        adjusted = self.classifier(features * self.scale + self.shift)
        return [(self.weight, adjusted), (1 - self.weight, classifier(features))]
