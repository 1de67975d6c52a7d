"""What every prompt method is given and what it tells the towers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from clip.missing import CASES
from clip.modules.layers import Prefix, Prepended
from clip.utils.errors import UserError

IMAGE, TEXT = "image", "text"  # the modalities, and the towers of a backbone that has two
Layer = Tensor | Prepended | Prefix  # tokens (…, P, D); or keys and values (…, P, D) of its attention
CasePrompts = dict[str, list[Layer]]  # set -> layer -> prompts of the 3 missing cases, (3, P, D)
INIT_STD = 0.02


class Sizes(Protocol):
    """What prompts must know of a backbone.

    Attributes:
        widths: modality -> channels of its tokens.
        towers: tower -> channels of its tokens.
        depths: tower -> its layers.
        feature_width: channels of what the head reads.
    """

    widths: dict[str, int]
    towers: dict[str, int]
    depths: dict[str, int]
    feature_width: int


@dataclass(frozen=True)
class PromptConfig:
    """What a method's prompts are made for.

    Attributes:
        sizes: of the backbone.
        length: prompt tokens in all, of each set.
        depth: layers with fresh prompts.
        num_classes: outputs of a head.
        seed: of the run, for what is drawn apart from the initial weights.
    """

    sizes: Sizes
    length: int
    depth: int
    num_classes: int = 1
    seed: int = 0

    @property
    def widths(self) -> dict[str, int]:
        """Channels of a token, by modality: for methods with prompts of both."""
        return self.sizes.widths

    @property
    def towers(self) -> dict[str, int]:
        """Channels of a token, by tower: for methods with prompts of each stream of tokens."""
        return self.sizes.towers

    @property
    def single_stream(self) -> bool:
        """Whether one tower reads both modalities, padding masked."""
        return len(self.towers) == 1

    def check_depth(self, key: str, depth: int) -> None:
        """Refuse prompts in more layers than the towers have; ``key`` names the setting.

        Raises:
            UserError: the towers are not so deep.
        """
        layers = self.sizes.depths.values()
        if not 1 <= depth <= min(layers):
            raise UserError(
                f"{key}={depth} does not fit this backbone, whose "
                f"{'towers have' if len(layers) > 1 else 'tower has'} "
                f"{' and '.join(map(str, layers))} layers; give 1 to {min(layers)}"
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
    """Which tokens enter the backbone at which layer, for the three missing cases.

    A method lives in one file: it subclasses this, fills ``cases`` and, if some of its prompts
    depend on the sample, extends ``select``. All its parameters train.

    Args:
        frame: what the prompts are made for.
        settings: the method's own, an instance of ``Settings``.

    Attributes:
        Settings: frozen dataclass; the config holds its fields under the method's name.
        unfreeze: parts of the backbone that train along with it (keys of the model's ``UNFREEZABLE``);
            those that a backbone does not have are passed over.
    """

    Settings: type = NoSettings
    unfreeze: tuple[str, ...] = ()

    def __init__(self, frame: PromptConfig, settings: Any):
        super().__init__()

    def prompts_by_case(self) -> CasePrompts:
        """Make the prompts of the three missing cases; called once a step, whatever its batch."""
        raise NotImplementedError

    def select(
        self,
        name: str,
        cases: CasePrompts,
        tokens: Tensor,
        missing_type: Tensor,
        mask: Tensor | None = None,
    ) -> list[Layer]:
        """Give each sample the prompts of its missing case.

        Args:
            name: of the set, a key of ``cases``.
            cases: what ``cases()`` made in this step.
            tokens: X_0 of the tower that the set enters, (B, L, D), padding included.
            missing_type: (B,), the samples' missing cases.
            mask: (B, L) bool, which tokens are no padding, of a backbone that masks it.

        Returns:
            One (B, P, D), or an ``Prepended`` or ``Prefix`` of such, a prompted layer, as
            ``vision_transformer_prompts`` takes them.
        """
        return [
            index_by_case(layer, missing_type) if isinstance(layer, Tensor)
            else type(layer)(*(index_by_case(part, missing_type) for part in layer))
            for layer in cases[name]
        ]  # fmt: skip

    def heads(self, features: Tensor, classifier: nn.Module) -> list[tuple[float, Tensor]]:
        """Read the features out; the model mixes the logits, and the losses, by these weights.

        Args:
            features: (B, F), as the backbone gives them.
            classifier: the head of every method.

        Returns:
            Pairs of a weight and logits (B, num_classes).
        """
        return [(1.0, classifier(features))]


def settings_of(owner: str, settings: type, given: Any) -> Any:
    """Make the settings of a method or backbone of the dict that the config holds under its name.

    Raises:
        UserError: no such setting, or a value that cannot be.
    """
    known = [field.name for field in fields(settings)]
    if not isinstance(given, Mapping):
        example = f"one by one, such as {owner}.{known[0]}=" if known else "nowhere"
        raise UserError(f"{owner}={given!r} is not valid; give its settings {example}")
    for key in given:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"{owner}.{key} is no setting of {owner}; {has}")
    return settings(**given)


def index_by_case(sets: Tensor, missing_type: Tensor) -> Tensor:
    """Give each sample the set of its missing case: (3, P, D) and (B,) to (B, P, D).

    Not by brackets: their backward pass adds the samples in the order in which threads arrive, so
    that no two runs would be equal.
    """
    return sets.index_select(0, missing_type)


def prompt_parameter(*shape: int) -> nn.Parameter:
    """Draw a learnable prompt from N(0, 0.02)."""
    return nn.Parameter(INIT_STD * torch.randn(*shape))


def expand_to_cases(prompts: Tensor) -> Tensor:
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
