"""Base class of a frozen backbone joined with the prompts of one method and a head."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from clip.modules.prompts.base import NoSettings, PromptMethod, Sizes, weighted_sum
from clip.utils.errors import UserError
from clip.utils.settings import Settings

COMPILED_VARIANTS = 64


class Inputs(NamedTuple):
    """A batch as the model takes it.

    Attributes:
        image: normalised images, (B, 3, H, W).
        tokens: token ids, (B, L).
        missing_case: missing case of each sample, (B,).
        present: index that ``collate`` built.
    """

    image: Tensor
    tokens: Tensor
    missing_case: Tensor
    present: Any


def case_vector(case: int, size: int, like: Tensor) -> Tensor:
    """Return one missing case for a whole batch, (size,), on the device of ``like``."""
    return torch.full((size,), case, dtype=torch.long, device=like.device)


class PromptedModel(nn.Module, ABC):
    """Classifies pairs of image and text of which one may be missing (paper, section 3).

    Args:
        towers: what ``build_towers`` returned, by name.
        prompts: the prompt method.
        num_classes: outputs of the head.
        unfreeze: keys of ``UNFREEZABLE`` that train too.
        settings: an instance of ``Settings``.

    Attributes:
        Settings: class of the backbone's settings, which the config holds under the backbone's name.
        Sizes: class that reads the backbone's sizes from its tensors with ``of``.
        UNFREEZABLE: part that a method may train -> prefixes of its parameters' names.
        ALWAYS_TRAINED: prefixes of the names of parameters that train with every method.
    """

    Settings: ClassVar[type[Settings]] = NoSettings
    Sizes: ClassVar[type[Sizes]]
    UNFREEZABLE: ClassVar[dict[str, tuple[str, ...]]]
    ALWAYS_TRAINED: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        towers: dict[str, nn.Module],
        prompts: PromptMethod,
        num_classes: int,
        unfreeze: tuple[str, ...],
        settings: Settings,
    ):
        super().__init__()
        for name, tower in towers.items():
            self.add_module(name, tower)
        self.tower_names = tuple(towers)
        self.prompts, self.unfreeze, self.settings = prompts, unfreeze, settings
        self.classifier = self.build_classifier(num_classes)
        trainable = set(self.trainable_names())
        for prefix in self.unfrozen(unfreeze):
            assert any(name.startswith(prefix) for name in trainable), prefix
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trainable)

    @classmethod
    @abstractmethod
    def build_towers(cls, sizes: Sizes, activation: str) -> dict[str, nn.Module]:
        """Build the towers by name with random weights; ``activation`` is a key of ``layers.ACTIVATIONS``."""

    @staticmethod
    @abstractmethod
    def tower_states(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Split the tensors of a backbone into those of its towers."""

    @classmethod
    @abstractmethod
    def example_inputs(cls, sizes: Sizes, device: str) -> Inputs:
        """Return one image of full size with a text that fills all positions."""

    @staticmethod
    @abstractmethod
    def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack samples; "present" is an index of the batch, built here so that no GPU has to wait for it."""

    @staticmethod
    @abstractmethod
    def reindex(present: Any, tokens: Tensor, missing_case: Tensor) -> Any:
        """Rebuild the index of a batch of ``collate`` for other missing cases."""

    @abstractmethod
    def build_classifier(self, num_classes: int) -> nn.Module:
        """Build the classifier, features to logits."""

    @abstractmethod
    def features(self, image: Tensor, tokens: Tensor, missing_case: Tensor, present: Any = None) -> Tensor:
        """Encode a batch.

        Args:
            image: normalised images, (B, 3, H, W); the rows of missing images are not read.
            tokens: token ids, (B, L); the rows of missing texts are not read.
            missing_case: ``COMPLETE``, ``MISSING_TEXT`` or ``MISSING_IMAGE``, (B,).
            present: index built by ``collate``; None builds it here and synchronises the GPU.

        Returns:
            (B, F).
        """

    def trainable_names(self) -> list[str]:
        """Return the names of all parameters that train."""
        prefixes = ("prompts.", "classifier.", *self.ALWAYS_TRAINED, *self.unfrozen(self.unfreeze))
        return [name for name, _ in self.named_parameters() if name.startswith(prefixes)]

    @classmethod
    def unfrozen(cls, parts: Iterable[str]) -> tuple[str, ...]:
        """Return the prefixes of the parameters of some keys of ``UNFREEZABLE``."""
        return tuple(prefix for part in parts for prefix in cls.UNFREEZABLE[part])

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint holds: what trains, and the buffers of the prompts.

        They share memory with the model.
        """
        state, trainable = self.state_dict(), set(self.trainable_names())
        return {name: state[name] for name in state if name in trainable or name.startswith("prompts.")}

    def check_adapter(self, state: dict[str, Tensor], source: object) -> None:
        """Check that tensors are exactly those of ``adapter_state_dict``; ``source`` names their file.

        Raises:
            UserError: names the first tensor that is missing, left over or of another shape.
        """
        expected = {name: tuple(tensor.shape) for name, tensor in self.adapter_state_dict().items()}
        for name in [*expected, *state]:
            theirs = tuple(state[name].shape) if name in state else "absent"
            ours = expected.get(name, "absent")
            if theirs != ours:
                raise UserError(
                    f"{source}: {name} is {theirs} in the checkpoint and {ours} in the model; "
                    "choose the checkpoint's own model settings"
                )

    def load_adapter(self, state: dict[str, Tensor], source: object) -> None:
        """Copy the tensors of a checkpoint into the model, all of them or none; see ``check_adapter``."""
        self.check_adapter(state, source)
        own = self.adapter_state_dict()
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what trains; the backbone stays in eval mode."""
        super().train(mode)
        for name in self.tower_names:
            self.get_submodule(name).eval()
        return self

    def compile_towers(self) -> None:
        """Compile the blocks of all towers with torch.compile."""
        # Towers, layers and empty batches are variants of one block, and so are training and test.
        torch._dynamo.config.recompile_limit = COMPILED_VARIANTS
        for name in self.tower_names:
            self.get_submodule(name).transformer.compile_blocks()

    def heads(
        self, image: Tensor, tokens: Tensor, missing_case: Tensor, present: Any = None
    ) -> list[tuple[float, Tensor]]:
        """Return pairs of a weight and logits (B, num_classes); arguments as in ``features``."""
        features = self.features(image, tokens, missing_case, present)
        return self.prompts.heads(features, self.classifier, missing_case)

    def forward(self, image: Tensor, tokens: Tensor, missing_case: Tensor, present: Any = None) -> Tensor:
        """Return the logits (B, num_classes), the heads mixed; arguments as in ``features``."""
        return weighted_sum(self.heads(image, tokens, missing_case, present))
