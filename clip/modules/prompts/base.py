"""What every prompt method is given and what it tells the towers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clip.errors import UserError
from clip.missing import CASES
from clip.modules.clip_layouts import ClipSizes
from clip.modules.layers import Prefix

IMAGE, TEXT = "image", "text"  # the two towers
Layer = Tensor | Prefix  # tokens (…, P, D), or keys and values (…, P, D) of that layer's attention
CasePrompts = dict[str, list[Layer]]  # tower -> layer -> prompts of the 3 missing cases, (3, P, D)
INIT_STD = 0.02


@dataclass(frozen=True)
class Frame:
    """What a method's prompts are made for.

    Attributes:
        sizes: of the CLIP.
        length: prompt tokens in all, of each tower.
        depth: layers with fresh prompts.
        num_classes: outputs of a head.
        seed: of the run, for what is drawn apart from the initial weights.
    """

    sizes: ClipSizes
    length: int
    depth: int
    num_classes: int = 1
    seed: int = 0

    @property
    def widths(self) -> dict[str, int]:
        """Channels of a token, by tower."""
        return {IMAGE: self.sizes.image_width, TEXT: self.sizes.text_width}

    def check_depth(self, key: str, depth: int) -> None:
        """Refuse prompts in more layers than the towers have; ``key`` names the setting.

        Raises:
            UserError: the towers are not so deep.
        """
        deepest = min(self.sizes.image_layers, self.sizes.text_layers)
        if not 1 <= depth <= deepest:
            raise UserError(
                f"{key}={depth} does not fit this CLIP, whose towers have "
                f"{self.sizes.image_layers} and {self.sizes.text_layers} layers; "
                f"give 1 to {deepest}"
            )


@dataclass(frozen=True)
class NoSettings:
    """The settings of a method that has none of its own."""


@dataclass(frozen=True)
class SetSettings:
    """The settings of a method that was made without missing cases.

    Attributes:
        per_case: one set of prompts for each missing case; False: one for all, as in the original.
        method: key of ``PROMPT_TYPES``, for messages.
    """

    per_case: bool = False
    method: ClassVar[str]

    def __post_init__(self) -> None:
        check_choice(f"{self.method}.per_case", self.per_case, (True, False))

    @property
    def sets(self) -> int:
        """How many sets of prompts there are."""
        return len(CASES) if self.per_case else 1


class PromptMethod(nn.Module):
    """Which tokens enter which tower at which layer, for the three missing cases.

    A method lives in one file: it subclasses this, fills ``cases`` and, if some of its prompts
    depend on the sample, extends ``for_samples``. All its parameters train.

    Args:
        frame: what the prompts are made for.
        settings: the method's own, an instance of ``Settings``.

    Attributes:
        Settings: frozen dataclass; the config holds its fields under the method's name.
        thaw: parts of the frozen CLIP that train along with it (keys of ``model.THAWABLE``).
    """

    Settings: type = NoSettings
    thaw: tuple[str, ...] = ()

    def __init__(self, frame: Frame, settings: Any):
        super().__init__()

    def cases(self) -> CasePrompts:
        """Make the prompts of the three missing cases; called once a step, whatever its batch."""
        raise NotImplementedError

    def for_samples(
        self, tower: str, cases: CasePrompts, tokens: Tensor, missing_type: Tensor
    ) -> list[Layer]:
        """Give each sample the prompts of its missing case.

        Args:
            tower: ``IMAGE`` or ``TEXT``.
            cases: what ``cases()`` made in this step.
            tokens: X_0 of that tower, (B, L, D), padding included.
            missing_type: (B,), the samples' missing cases.

        Returns:
            One (B, P, D), or one prefix of such, a prompted layer, as
            ``vision_transformer_prompts`` takes them.
        """
        return [
            Prefix(*(part[missing_type] for part in layer))
            if isinstance(layer, Prefix) else layer[missing_type] for layer in cases[tower]
        ]  # fmt: skip

    def heads(self, features: Tensor, classifier: nn.Linear) -> list[tuple[float, Tensor]]:
        """Read the features out; the model mixes the logits, and the losses, by these weights.

        Args:
            features: (B, 2 E), a missing half is zero.
            classifier: the head of every method.

        Returns:
            Pairs of a weight and logits (B, num_classes).
        """
        return [(1.0, classifier(features))]


def initial_prompt(*shape: int) -> nn.Parameter:
    """Draw a learnable prompt from N(0, 0.02)."""
    return nn.Parameter(INIT_STD * torch.randn(*shape))


def for_all_cases(prompts: Tensor) -> Tensor:
    """Give (1, P, D), one set for all missing cases, or (3, P, D) as (3, P, D)."""
    return prompts.expand(len(CASES), -1, -1)


def check_choice(key: str, value: Any, allowed: Iterable[Any]) -> None:
    """Refuse a setting that is none of some values; ``key`` as the user types it.

    Raises:
        UserError: names the setting, its value and what is allowed.
    """
    options = list(allowed)
    if not any(type(value) is type(option) and value == option for option in options):
        raise UserError(f"{key}={value!r} is unknown; choose one of {', '.join(map(str, options))}")


def check_whole(key: str, value: Any) -> None:
    """Refuse a setting that is no whole number from 1 on; as ``check_choice``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{key}={value!r} is not valid; give a whole number, at least 1")
