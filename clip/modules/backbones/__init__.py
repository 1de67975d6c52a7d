"""Weights and tokenizers of the frozen backbones."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from clip.modules.prompts.base import Sizes

MAX_CHARACTERS = 20_000  # of a text: its tokens end long before, and cleaning costs time


class TextTokenizer:
    """Encodes texts with a tokenizer of transformers as token ids of a fixed length, ``context``."""

    clean: Callable[[str], str] = staticmethod(str)  # what happens to a text before

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int):
        self.tokenizer, self.vocab, self.context = tokenizer, tokenizer.get_vocab(), context

    def encode(self, texts: Iterable[str], **options: Any) -> list[list[int]]:
        """Return the ids of each text, start and end included; ``options`` as in transformers."""
        return self.tokenizer([self.clean(text[:MAX_CHARACTERS]) for text in texts], **options)["input_ids"]

    def __call__(self, texts: Iterable[str]) -> Tensor:
        """Return (N, context) int64 ids: start, text, end, zeros; long texts are truncated."""
        texts = [*texts]  # transformers cannot encode an empty list
        rows = self.encode(texts, truncation=True, max_length=self.context) if texts else []
        padded = [row + [0] * (self.context - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long).reshape(-1, self.context)

    def lengths(self, texts: Iterable[str]) -> list[int]:
        """Count the tokens of each text before truncation, start and end included."""
        return [len(row) for row in self.encode(texts)]


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone."""

    state: dict[str, Tensor]  # float32, under the names that build_model expects
    sizes: Sizes  # read from the tensors
    activation: str  # key of layers.ACTIVATIONS
    tokenizer: TextTokenizer
    name: str  # what the user passed as vit
    sha256: str  # of the weight file
    settings: Any  # of the backbone, with defaults of the task filled in
