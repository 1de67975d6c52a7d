"""Weights and tokenizers of the frozen backbones."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from clip.modules.prompts.base import Sizes


class TextTokenizer(Protocol):
    """Encodes texts as token ids of a fixed length, ``context``."""

    context: int

    def __call__(self, texts: Iterable[str]) -> Tensor:
        """Return int64 ids of shape (N, context); long texts are truncated."""

    def lengths(self, texts: Iterable[str]) -> list[int]:
        """Count the tokens of each text before truncation, start and end tokens included."""


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone.

    Attributes:
        state: float32 tensors under the names that ``build_model`` expects.
        sizes: sizes read from the tensors.
        activation: key of ``layers.ACTIVATIONS``.
        tokenizer: tokenizer of the backbone's text input.
        name: what the user passed as ``vit``.
        sha256: SHA-256 of the weight file.
        settings: settings of the backbone, with defaults of the task filled in.
    """

    state: dict[str, Tensor]
    sizes: Sizes
    activation: str
    tokenizer: TextTokenizer
    name: str
    sha256: str
    settings: Any
