"""Text to token ids, exactly as CLIP: OpenAI's cleaning, then transformers' ``CLIPTokenizer``.

The vocabulary belongs to the checkpoint. It follows from the merges alone, in OpenAI's order: 256
bytes, the same 256 ending a word, one token a merge, the start and the end of a text.
"""

import gzip
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

from clip.utils.errors import UserError
from clip.utils.files import write_text

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
MERGES_HEADER = "#version: 0.2"
OPENAI_VOCABULARY = 49_408  # tokens of every CLIP that OpenAI published
LONGEST_LIST = 2**24  # bytes; OpenAI's has a fifth, and a packed file may unfold to anything
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


Parts = tuple[dict[str, int], list[tuple[str, ...]]]  # token -> id, merges


def _read_lists(vocab: Path, merges: Path) -> Parts:
    lines = merges.read_text(encoding="utf-8").splitlines()
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    pairs = [tuple(line.split()) for line in lines if line.strip()]
    return json.loads(vocab.read_text(encoding="utf-8")), pairs


def _read_fast(path: Path) -> Parts:
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    merges = [tuple(m.split()) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    return model["vocab"], merges


def _read_openai(path: Path) -> Parts:
    # OpenAI's list goes on behind the merges that its vocabulary has room for.
    count = OPENAI_VOCABULARY - len(vocabulary([]))
    with gzip.open(path) as file:
        lines = file.read(LONGEST_LIST).decode().split("\n")[1 : 1 + count]
    merges = [tuple(line.split()) for line in lines]
    return vocabulary(merges), merges


TOKENIZER_FILES = {  # files that make a tokenizer together, and their reader
    ("vocab.json", "merges.txt"): _read_lists,
    ("tokenizer.json",): _read_fast,
    ("bpe_simple_vocab_16e6.txt.gz",): _read_openai,
}


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

    def lengths(self, texts: Iterable[str]) -> list[int]:
        """Count the tokens of texts, start and end among them, before any is cut."""
        return [len(ids) for ids in self._clip([clean(text) for text in texts])["input_ids"]]

    @classmethod
    def from_folder(cls, folder: Path, context: int = 77) -> "Tokenizer":
        """Read the first of ``TOKENIZER_FILES`` that the folder has.

        Raises:
            UserError: there is none, or it is damaged.
        """
        names = next((n for n in TOKENIZER_FILES if (folder / n[0]).exists()), None)
        if names is None:
            groups = ", or ".join(" and ".join(group) for group in TOKENIZER_FILES)
            raise UserError(f"{folder}: no tokenizer; put the one of this CLIP there: {groups}")
        try:
            return cls(*TOKENIZER_FILES[names](*(folder / name for name in names)), context)
        except Exception as error:  # noqa: BLE001  transformers' own code raises many kinds
            raise UserError(
                f"{folder}: no tokenizer in {' and '.join(names)} ({str(error):.200}); get them again"
            ) from None

    def save(self, folder: Path) -> None:
        """Write vocab.json and merges.txt."""
        lines = [MERGES_HEADER, *(" ".join(merge) for merge in self.merges)]
        write_text(folder / "merges.txt", "\n".join(lines) + "\n")
        text = json.dumps(self.vocab, ensure_ascii=False)
        write_text(folder / "vocab.json", text)


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
