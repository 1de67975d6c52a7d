"""The interface between prompt methods and backbones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from clip.missing import CASES
from clip.modules.layers import INIT_STD, Attention, InputProjection, PromptEntry
from clip.utils.errors import UserError
from clip.utils.settings import Settings

IMAGE, TEXT = "image", "text"  # the modalities, and the towers of a backbone that has two
CasePrompts = dict[str, list[PromptEntry]]  # set -> layer -> prompts of the 3 missing cases, (3, P, D)
TowerClasses = Mapping[str, Callable[..., nn.Module]]  # name -> class that takes the sizes and the activation
Attentions = Mapping[str, Sequence[Attention]]  # tower -> attention of each layer


class Sizes(Protocol):
    """Sizes of a backbone.

    Attributes:
        widths: modality -> channels of its tokens.
        towers: tower -> channels of its tokens.
        depths: tower -> number of layers.
        feature_width: channels of the features that the head reads.
    """

    widths: dict[str, int]
    towers: dict[str, int]
    depths: dict[str, int]
    feature_width: int


@dataclass(frozen=True)
class PromptConfig:
    """Sizes that a prompt method is built for.

    Attributes:
        sizes: sizes of the backbone.
        length: prompt tokens in all, in each set.
        depth: layers with fresh prompts.
        num_classes: outputs of a head.
        seed: seed of the run, for what is drawn apart from the initial weights.
    """

    sizes: Sizes
    length: int
    depth: int
    num_classes: int = 1
    seed: int = 0

    @property
    def single_stream(self) -> bool:
        """Return whether one tower reads both modalities, with padding masked."""
        return len(self.sizes.towers) == 1

    def share_length(self, parts: int) -> int:
        """Return the prompt length divided by ``parts``; raise UserError if there is a remainder."""
        if self.length < parts or self.length % parts:
            raise UserError(
                f"prompt_length={self.length} cannot be divided into {parts} equal parts; "
                f"set a multiple of {parts}, such as {max(parts, self.length // parts * parts)}"
            )
        return self.length // parts

    def check_depth(self, key: str, depth: int, spare: int = 0) -> None:
        """Raise UserError if ``depth``, the value of ``key``, leaves fewer than ``spare`` layers of a tower."""
        layers = self.sizes.depths.values()
        if not 1 <= depth <= min(layers) - spare:
            raise UserError(
                f"{key}={depth} does not fit this backbone, which has {' and '.join(map(str, layers))} layers; "
                f"set 1 to {min(layers) - spare}"
            )


class TowerInput(NamedTuple):
    """Tokens that enter the first layer of a tower, before any prompt.

    Attributes:
        tokens: X_0, (B, L, D), padding included.
        missing_case: missing case of each sample, (B,).
        mask: which tokens are not padding, (B, L) bool; None if the backbone has no mask.
        num_text: number of tokens that are text; they come first.
        rows: row of each sample in the batch, (B,); None in a single stream, which encodes all of them.
    """

    tokens: Tensor
    missing_case: Tensor
    mask: Tensor | None = None
    num_text: int = 0
    rows: Tensor | None = None


class NoSettings(Settings):
    """Settings of a method that has none of its own."""


class PerCaseSettings(Settings):
    """Settings of a method that was published without missing cases."""

    per_case: bool = Field(False, description="one set of prompts per missing case; False: one set, as published")

    @property
    def num_sets(self) -> int:
        """Return the number of sets of prompts."""
        return len(CASES) if self.per_case else 1


class PromptMethod(nn.Module):
    """Base class of prompt methods: which tokens enter which layer for each missing case.

    A method is one class in one file. It implements ``prompts_by_case``; every other method of this
    class is a hook with a default that does nothing. All parameters of a method train, and its
    buffers are saved with them.

    Args:
        config: sizes that the method is built for.
        settings: an instance of ``Settings``.

    Attributes:
        Settings: class of the method's settings, which the config holds under the method's name.
        unfreeze: parts of the backbone that train too (keys of the model's ``UNFREEZABLE``); those
            that a backbone does not have are ignored.
        replaces_classifier: ``heads`` does not use the model's classifier, which is left out.
    """

    Settings: type[Settings] = NoSettings
    unfreeze: tuple[str, ...] = ()
    replaces_classifier: bool = False

    def __init__(self, config: PromptConfig, settings: Any = None):
        super().__init__()

    @classmethod
    def build(cls, config: PromptConfig, settings: Settings) -> "PromptMethod":
        """Build the method; a method with variants chooses its class here."""
        return cls(config, settings)

    @classmethod
    def tower_classes(cls, classes: TowerClasses, config: PromptConfig, settings: Settings) -> TowerClasses:
        """Return the classes of the backbone's towers, by name; a method may replace one by a subclass."""
        return classes

    def prompts_by_case(self) -> CasePrompts:
        """Return the prompts of all three missing cases; called once per step.

        Returns:
            Name of a set -> layer -> (3, P, D), or a ``Prepended`` or ``Prefix`` of such tensors. The
            names are the modalities or the towers of ``config.sizes``.
        """
        raise NotImplementedError

    def select(self, name: str, prompts: CasePrompts, inputs: TowerInput) -> list[PromptEntry]:
        """Return the prompts of each sample.

        Args:
            name: a key of ``prompts``.
            prompts: what ``prompts_by_case`` returned in this step.
            inputs: tokens of the tower that the set enters.

        Returns:
            One entry per prompted layer, as ``vision_transformer_prompts`` describes them. An entry
            may also be a function: the tower calls it with the ``LayerInput`` and uses the entry that it returns.
        """
        return [
            index_by_case(entry, inputs.missing_case)
            if isinstance(entry, Tensor)
            else type(entry)(*(index_by_case(part, inputs.missing_case) for part in entry))
            for entry in prompts[name]
        ]

    def init_projections(self, attentions: Attentions) -> None:
        """Set the initial values that depend on the frozen weights; called once they are loaded."""

    def input_projections(self, attentions: Attentions) -> Mapping[str, Mapping[int, InputProjection]]:
        """Return tower -> layer -> the projection that replaces the frozen one in this step.

        Args:
            attentions: tower -> the frozen attention of each of its layers.
        """
        return {}

    def heads(self, features: Tensor, classifier: nn.Module, missing_case: Tensor) -> list[tuple[float, Tensor]]:
        """Return the logits of each head and their weights; the model mixes logits and losses by them.

        Args:
            features: output of the backbone, (B, F).
            classifier: the head that every model has.
            missing_case: missing case of each sample, (B,).

        Returns:
            Pairs of a weight and logits (B, num_classes).
        """
        return [(1.0, classifier(features))]

    def loss(
        self,
        heads: list[tuple[float, Tensor]],
        label: Tensor,
        missing_case: Tensor,
        task_loss: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Return the loss of a batch: the task loss of each head, mixed by the heads' weights.

        Args:
            heads: what ``heads`` returned.
            label: (B,) or (B, C).
            missing_case: missing case of each sample, (B,).
            task_loss: (logits (B, C), label) -> mean over the batch.
        """
        return weighted_sum([(weight, task_loss(logits, label)) for weight, logits in heads])

    def auxiliary_loss(self) -> Tensor | None:
        """Return a loss that is added to that of the batch whose forward pass came last, or None."""
        return None

    def prepare(self, model: nn.Module, batches: Iterable[Any]) -> None:
        """Fill buffers from the training split before the first step of a run.

        Args:
            model: the model that this method is part of, in eval mode on its device; gradients are off.
            batches: ``Inputs`` of the whole training split under its mask, in the order of its rows.
        """


def weighted_sum(pairs: list[tuple[float, Tensor]]) -> Tensor:
    """Sum tensors, the logits or losses of several heads, by their weights."""
    return sum(weight * value for weight, value in pairs)


def index_by_case(prompts: Tensor, missing_case: Tensor) -> Tensor:
    """Select the prompts of each sample's missing case: (3, P, D) and (B,) to (B, P, D).

    Not by brackets: their backward pass adds the samples in the order in which threads arrive, so
    that no two runs would be equal.
    """
    return prompts.index_select(0, missing_case)


def prompt_parameter(*shape: int) -> nn.Parameter:
    """Draw a learnable prompt from N(0, 0.02)."""
    return nn.Parameter(INIT_STD * torch.randn(*shape))


def expand_to_cases(prompts: Tensor) -> Tensor:
    """Expand (1, P, D), one set for all missing cases, to (3, P, D); leave (3, P, D) as it is."""
    return prompts.expand(len(CASES), -1, -1)
