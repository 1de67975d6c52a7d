"""Weights and tokenizers of the frozen backbones."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clip.modules.prompts.base import Sizes


class TextTokenizer:
    """Base of the tokenizers: encodes texts as token ids of a fixed length, ``context``."""

    context: int

    def encode(self, texts: Iterable[str], **options: Any) -> list[list[int]]:
        """Return the ids of each text, start and end included; ``options`` as in transformers."""
        raise NotImplementedError

    def __call__(self, texts: Iterable[str]) -> Tensor:
        """Return (N, context) int64 ids: start, text, end, zeros; long texts are truncated."""
        rows = self.encode(texts, truncation=True, max_length=self.context)
        padded = [row + [0] * (self.context - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long).reshape(-1, self.context)

    def lengths(self, texts: Iterable[str]) -> list[int]:
        """Count the tokens of each text before truncation, start and end included."""
        return [len(row) for row in self.encode(texts)]


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone.

    Attributes:
        state: float32 tensors under the names that ``build_model`` expects.
        sizes: sizes read from the tensors.
        activation: key of ``layers.ACTIVATIONS``.
        tokenizer: tokenizer of its text input.
        name: what the user passed as ``vit``.
        sha256: SHA-256 of the weight file.
        settings: its settings, with defaults of the task filled in.
    """

    state: dict[str, Tensor]
    sizes: Sizes
    activation: str
    tokenizer: TextTokenizer
    name: str
    sha256: str
    settings: Any
