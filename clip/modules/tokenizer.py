"""Text to token ids, exactly as CLIP: OpenAI's cleaning, then transformers' ``CLIPTokenizer``.

The vocabulary belongs to the checkpoint. It follows from the merges alone, in OpenAI's order: 256
bytes, the same 256 ending a word, one token a merge, the start and the end of a text.
"""

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import ftfy
import regex
import torch
from tokenizers import Tokenizer as BytePairs
from tokenizers import models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from clip.errors import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
MERGES_HEADER = "#version: 0.2"
LONGEST_TEXT = 20_000  # characters; 77 tokens end long before, and cleaning costs time


def clean(text: str) -> str:
    """Clean a text as OpenAI's tokenizer does, and keep control tokens in it plain.

    A space inside the brackets of a control token changes no other token: CLIP splits there anyway.
    """
    text = ftfy.fix_text(text[:LONGEST_TEXT])
    text = html.unescape(html.unescape(text))
    text = regex.sub(r"\s+", " ", text).strip().lower()
    return regex.sub(r"<\|(startoftext|endoftext)\|>", r"<| \1 |>", text)


def vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Number all tokens that a list of merges gives, in OpenAI's order."""
    letters = list(bytes_to_unicode().values())
    tokens = letters + [letter + WORD_END for letter in letters]
    tokens += ["".join(merge) for merge in merges] + [START, END]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


class Tokenizer:
    """Turns texts into ids of fixed length.

    Args:
        vocab: token -> id.
        merges: pairs of tokens, the most frequent first.
        context: ids per text, 77 in every published CLIP.
    """

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], context: int = 77):
        self.vocab, self.merges, self.context = vocab, [tuple(merge) for merge in merges], context
        self.start, self.end = vocab[START], vocab[END]
        self._clip = CLIPTokenizer(vocab=vocab, merges=self.merges)

    def __call__(self, texts: Iterable[str]) -> Tensor:
        """Give (N, context) int64 ids: start, text, end, zeros; a long text is cut."""
        ids = self._clip([clean(text) for text in texts], truncation=True,
                         max_length=self.context)["input_ids"]  # fmt: skip
        out = torch.zeros(len(ids), self.context, dtype=torch.long)
        for row, found in zip(out, ids, strict=True):
            row[: len(found)] = torch.tensor(found)
        return out

    @classmethod
    def from_folder(cls, folder: Path, context: int = 77) -> "Tokenizer":
        """Read vocab.json and merges.txt.

        Raises:
            UserError: one of them is absent or damaged.
        """
        try:
            vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            if lines and lines[0].startswith("#version"):
                lines = lines[1:]
            merges = [tuple(line.split()) for line in lines if line.strip()]
            return cls(vocab, merges, context)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{folder}: no tokenizer ({error}); a CLIP needs its own vocab.json and merges.txt"
            ) from None

    def save(self, folder: Path) -> None:
        """Write vocab.json and merges.txt."""
        lines = [MERGES_HEADER, *(" ".join(merge) for merge in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = json.dumps(self.vocab, ensure_ascii=False)
        (folder / "vocab.json").write_text(text, encoding="utf-8")


def train_tokenizer(texts: Iterable[str], size: int, context: int = 77) -> Tokenizer:
    """Learn byte pairs from texts, for a small CLIP of one's own.

    Args:
        texts: the training texts.
        size: tokens in all, at least the 514 that need no merge.
        context: ids per text.
    """
    splitter = CLIPTokenizer(vocab=vocabulary([]), merges=[]).backend_tokenizer
    trained = BytePairs(models.BPE(end_of_word_suffix=WORD_END))
    trained.normalizer, trained.pre_tokenizer = splitter.normalizer, splitter.pre_tokenizer
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=letters, show_progress=False,
                                  end_of_word_suffix=WORD_END)  # fmt: skip
    trained.train_from_iterator(map(clean, texts), trainer)
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    merges = merges[: size - len(vocabulary([]))]
    return Tokenizer(vocabulary(merges), merges, context)
