"""A frozen backbone, the prompts of one method and a head, joined; each backbone extends it."""

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from clip.missing import CASES
from clip.modules.prompts import PromptMethod
from clip.modules.prompts.base import NoSettings, Sizes
from clip.utils.errors import UserError

HEAD_STD = 0.02
COMPILED_VARIANTS = 64


class Inputs(NamedTuple):
    """A batch as the model takes it.

    Attributes:
        image: (B, 3, H, W), normalised.
        tokens: (B, L) ids.
        missing_type: (B,).
        present: what the loader counted.
    """

    image: Tensor
    tokens: Tensor
    missing_type: Tensor
    present: Any


def weighted_sum(heads: list[tuple[float, Tensor]]) -> Tensor:
    """Sum what several heads give, logits or losses, by their weights."""
    return sum(weight * value for weight, value in heads)


def init_linear(width_in: int, width_out: int) -> nn.Linear:
    """Make a layer of a head as published: weights from N(0, 0.02), no bias at the start."""
    layer = nn.Linear(width_in, width_out)
    nn.init.normal_(layer.weight, std=HEAD_STD)
    nn.init.zeros_(layer.bias)
    return layer


def case_vector(case: int, size: int, like: Tensor) -> Tensor:
    """Give a whole batch one missing case, (size,) on the device of ``like``."""
    assert 0 <= case < len(CASES)
    return torch.full((size,), case, dtype=torch.long, device=like.device)


class PromptedModel(nn.Module):
    """Classifies pairs of image and text of which one may be missing (paper, section 3).

    A backbone subclasses this: it names its parts, says how its towers are built from tensors, and
    how a batch becomes features.

    Args:
        towers: of ``towers``: the backbone's parts by name.
        prompts: the prompt method.
        num_classes: outputs of the head.
        unfreeze: keys of ``UNFREEZABLE`` that train too.
        options: an instance of ``Settings``.

    Attributes:
        Settings: frozen dataclass; the config holds its fields under the backbone's name.
        UNFREEZABLE: parts that a method may train -> how their parameters' names begin.
        ALWAYS_TRAINED: how the names of further parameters begin that train with every method.
        UNREAD: missing case -> tower that is not run in it.
        Sizes: class that reads the backbone's sizes from its tensors by ``of``.
    """

    Settings: ClassVar[type] = NoSettings
    UNFREEZABLE: ClassVar[dict[str, tuple[str, ...]]]
    ALWAYS_TRAINED: ClassVar[tuple[str, ...]] = ()
    UNREAD: ClassVar[dict[int, str]] = {}
    Sizes: ClassVar[type[Sizes]]

    def __init__(
        self,
        towers: dict[str, nn.Module],
        prompts: PromptMethod,
        num_classes: int,
        unfreeze: tuple[str, ...],
        options: Any,
    ):
        super().__init__()
        for name, tower in towers.items():
            self.add_module(name, tower)
        self.tower_names = tuple(towers)
        self.prompts, self.unfreeze, self.options = prompts, unfreeze, options
        self.classifier = self.build_classifier(num_classes)
        self._freeze()

    @classmethod
    def build_towers(cls, sizes: Sizes, activation: str) -> dict[str, nn.Module]:
        """Build the towers by name, their weights random.

        Args:
            sizes: of the backbone.
            activation: a key of ``layers.ACTIVATIONS``.
        """
        raise NotImplementedError

    @staticmethod
    def tower_states(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Split a backbone's tensors into those of its towers."""
        raise NotImplementedError

    @classmethod
    def example_inputs(cls, sizes: Sizes, device: str) -> Inputs:
        """Make one image of full size with a text that fills all positions."""
        raise NotImplementedError

    @staticmethod
    def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack samples; "present" is what their batch holds, so that no GPU waits for it."""
        raise NotImplementedError

    @staticmethod
    def reindex(present: Any, tokens: Tensor, missing_type: Tensor) -> Any:
        """Count what a batch of ``collate`` holds when other samples of it lack something."""
        raise NotImplementedError

    def build_classifier(self, num_classes: int) -> nn.Module:
        """Make the classifier, features to logits."""
        raise NotImplementedError

    def features(self, image: Tensor, tokens: Tensor, missing_type: Tensor, present: Any = None) -> Tensor:
        """Encode a batch.

        Args:
            image: (B, 3, H, W), normalised; the rows of missing images are not read.
            tokens: (B, L) ids; the rows of missing texts are not read.
            missing_type: (B,), ``COMPLETE``, ``MISSING_TEXT`` or ``MISSING_IMAGE``.
            present: what is there, counted by ``collate``; None to count it here, for which a GPU
                must be waited for.

        Returns:
            (B, F).
        """
        raise NotImplementedError

    def features_of(self, missing_type: Tensor, image: Tensor | None, tokens: Tensor | None) -> Tensor:
        """Encode a batch that all lacks the same, without a look at what that is.

        Args:
            missing_type: (B,), one and the same case.
            image: as in ``features``; None if that is missing.
            tokens: as in ``features``; None if that is missing.

        Returns:
            (B, F).

        Raises:
            UserError: this backbone has no such form.
        """
        raise UserError(f"{type(self).__name__} cannot be exported; export is for backbone=clip")

    def trainable_names(self) -> list[str]:
        """Name every parameter that trains, as its owners declare them."""
        starts = ("prompts.", "classifier.", *self.ALWAYS_TRAINED, *self.unfrozen(self.unfreeze))
        return [name for name, _ in self.named_parameters() if name.startswith(starts)]

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """Give what a checkpoint holds: what trains, and fixed tensors of the prompts.

        The tensors are the model's own: to write into them is to change the model.
        """
        state, trainable = self.state_dict(), set(self.trainable_names())
        own = (name for name in state if name in trainable or name.startswith("prompts."))
        return {name: state[name] for name in own}

    @classmethod
    def unfrozen(cls, parts: Iterable[str]) -> tuple[str, ...]:
        """Give how the names of all parameters of some keys of ``UNFREEZABLE`` begin."""
        return tuple(start for part in parts for start in cls.UNFREEZABLE[part])

    def _freeze(self) -> None:
        trainable = set(self.trainable_names())
        for start in self.unfrozen(self.unfreeze):
            assert any(name.startswith(start) for name in trainable), start
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trainable)

    def train(self, mode: bool = True) -> Self:
        """Switch the mode of what trains; the backbone stays in eval mode."""
        super().train(mode)
        for name in self.tower_names:
            self.get_submodule(name).eval()
        return self

    def compile_towers(self) -> None:
        """Let torch.compile fuse what stands between the matrix products."""
        # Towers, layers and empty batches are variants of one block, and so are training and test.
        torch._dynamo.config.recompile_limit = COMPILED_VARIANTS
        for name in self.tower_names:
            self.get_submodule(name).transformer.compile_blocks()

    def heads(
        self, image: Tensor, tokens: Tensor, missing_type: Tensor, present: Any = None
    ) -> list[tuple[float, Tensor]]:
        """Give pairs of a weight and logits (B, num_classes); arguments as in ``features``."""
        features = self.features(image, tokens, missing_type, present)
        return self.prompts.heads(features, self.classifier)

    def forward(self, image: Tensor, tokens: Tensor, missing_type: Tensor, present: Any = None) -> Tensor:
        """Give the logits (B, num_classes), the heads mixed; arguments as in ``features``."""
        return weighted_sum(self.heads(image, tokens, missing_type, present))
