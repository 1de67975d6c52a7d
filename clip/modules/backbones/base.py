"""A loaded backbone, whatever its kind."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from clip.modules.prompts.base import NoSettings, Sizes


class TextTokenizer(Protocol):
    """Turns texts into ids of fixed length, ``context``."""

    context: int

    def __call__(self, texts: Iterable[str]) -> Tensor:
        """Give (N, L) int64 ids; a long text is cut."""

    def lengths(self, texts: Iterable[str]) -> list[int]:
        """Count the tokens of texts before any is cut."""


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone.

    Attributes:
        state: tensors, float32, as the model's ``towers`` takes them.
        sizes: read from them.
        activation: a key of ``layers.ACTIVATIONS``.
        tokenizer: texts -> ids.
        name: what the user asked for.
        sha256: of the weight file.
        settings: the backbone's own, with what followed from the task.
    """

    state: dict[str, Tensor]
    sizes: Sizes
    activation: str
    tokenizer: TextTokenizer
    name: str
    sha256: str
    settings: Any = NoSettings()
