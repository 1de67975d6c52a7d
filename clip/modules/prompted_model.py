"""Base class of a frozen backbone joined with the prompts of one method and a head."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from clip.modules.layers import Attention
from clip.modules.prompts.base import Attentions, NoSettings, PromptMethod, Sizes, weighted_sum
from clip.utils.errors import UserError
from clip.utils.settings import Settings

MATRICES = (nn.Linear, nn.Conv2d, Attention, nn.MultiheadAttention)  # modules whose parameters enter matrix products
PROJECTIONS = ("proj", "text_projection")  # parameters of a tower that do too


class Inputs(NamedTuple):
    """A batch as the model takes it."""

    image: Tensor  # normalised images, (B, 3, H, W)
    tokens: Tensor  # token ids, (B, L)
    missing_case: Tensor  # missing case of each sample, (B,)
    present: Any  # index that ``collate`` built


class PromptedModel(nn.Module, ABC):
    """Classifies pairs of image and text of which one may be missing (paper, section 3); built by ``init_model``."""

    Settings: ClassVar[type[Settings]] = NoSettings  # of the backbone, which the config holds under its name
    TOWERS: ClassVar[dict[str, type[nn.Module]]]  # name -> class that takes the sizes and the activation
    Sizes: ClassVar[type[Sizes]]  # reads the backbone's sizes from its tensors with ``of``
    UNFREEZABLE: ClassVar[dict[str, tuple[str, ...]]]  # part that a method may train -> prefixes of parameters' names
    ALWAYS_TRAINED: ClassVar[tuple[str, ...]] = ()  # prefixes of the names of what trains with every method

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
        self.prompts, self.unfreeze, self.settings = prompts, unfreeze, settings
        self.classifier = nn.Identity() if prompts.replaces_classifier else self.build_classifier(num_classes)
        trainable = set(self.trainable_names())
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trainable)

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
        """Encode a batch, the fields of ``Inputs``, as (B, F); the rows of what is missing are not read.

        Without ``present`` the index is built here, which synchronises the GPU.
        """

    @abstractmethod
    def attentions(self) -> Attentions:
        """Return tower -> the attention of each of its layers."""

    def trainable_names(self) -> list[str]:
        """Return the names of all parameters that train."""
        prefixes = ("prompts.", "classifier.", *self.ALWAYS_TRAINED, *self.unfrozen(self.unfreeze))
        return [name for name, _ in self.named_parameters() if name.startswith(prefixes)]

    @classmethod
    def unfrozen(cls, parts: Iterable[str]) -> tuple[str, ...]:
        """Return the prefixes of the parameters of some keys of ``UNFREEZABLE``."""
        return tuple(prefix for part in parts for prefix in cls.UNFREEZABLE[part])

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint, in the model's memory: what trains, and the buffers of the prompts."""
        state, trainable = self.state_dict(), set(self.trainable_names())
        return {name: state[name] for name in state if name in trainable or name.startswith("prompts.")}

    def check_adapter(self, state: dict[str, Tensor], source: object) -> None:
        """Check that tensors are exactly those of ``adapter_state_dict``; ``source`` names their file.

        Raise a UserError that names the first tensor that is missing, left over or of another shape.
        """
        expected = self.adapter_state_dict()
        for name in [*expected, *state]:
            theirs, ours = (tuple(s[name].shape) if name in s else "absent" for s in (state, expected))
            if theirs != ours:
                shapes = f"{name} is {theirs} in the checkpoint and {ours} in the model"
                raise UserError(f"{source}: {shapes}; choose the checkpoint's own model settings")

    def load_adapter(self, state: dict[str, Tensor], source: object) -> None:
        """Copy the tensors of a checkpoint into the model, all of them or none; see ``check_adapter``."""
        self.check_adapter(state, source)
        self.load_state_dict(state, strict=False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what trains; the backbone stays in eval mode."""
        super().train(mode)
        for name in self.TOWERS:
            self.get_submodule(name).eval()
        return self

    def cast_frozen(self, dtype: torch.dtype) -> None:
        """Store the frozen weights of matrix products in the ``dtype`` of autocast, which would cast them in each step.

        The results under autocast stay the same bitwise. Norms and embeddings, which autocast does not cast, keep their
        type, and so do projections that the method changes: autocast casts their sum.
        """
        attentions = self.attentions()
        changed = {
            attentions[tower][i] for tower, layers in self.prompts.input_projections(attentions).items() for i in layers
        }
        for tower in self.TOWERS:
            for module in set(self.get_submodule(tower).modules()) - changed:
                for name, parameter in module.named_parameters(recurse=False):
                    if not parameter.requires_grad and (isinstance(module, MATRICES) or name in PROJECTIONS):
                        parameter.data = parameter.data.to(dtype)

    def compile_towers(self) -> None:
        """Compile each block of all towers; they share their code, so that few graphs serve all layers."""
        # Towers, layers and empty batches are variants of one block, and so are training and test.
        torch._dynamo.config.recompile_limit = 64
        # Inductor's analysis of memory coalescing fails for dynamic shapes: an AssertionError on a GPU with torch 2.11.
        torch._inductor.config.triton.coalesce_tiling_analysis = False
        for name in self.TOWERS:
            for block in self.get_submodule(name).transformer.resblocks:
                block.compile(dynamic=True)  # the number of rows that have a modality differs in each batch

    def heads(
        self, image: Tensor, tokens: Tensor, missing_case: Tensor, present: Any = None
    ) -> list[tuple[float, Tensor]]:
        """Return pairs of a weight and logits (B, num_classes); arguments as in ``features``."""
        features = self.features(image, tokens, missing_case, present)
        return self.prompts.heads(features, self.classifier, missing_case)

    def forward(self, image: Tensor, tokens: Tensor, missing_case: Tensor, present: Any = None) -> Tensor:
        """Return the logits (B, num_classes), the heads mixed; arguments as in ``features``."""
        return weighted_sum(self.heads(image, tokens, missing_case, present))
