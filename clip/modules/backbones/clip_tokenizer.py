"""CLIP's tokenizer: OpenAI's text cleaning, then transformers' ``CLIPTokenizer``.

The vocabulary belongs to the checkpoint. It follows from the merges alone, in OpenAI's order: 256 bytes, the same 256
ending a word, one token per merge, the start and the end of a text.
"""

import gzip
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ftfy
import regex
from tokenizers import Tokenizer as BytePairs
from tokenizers import models, pre_tokenizers, trainers
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from clip.modules.backbones import TextTokenizer
from clip.utils.errors import UserError
from clip.utils.files import write_text

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
OPENAI_VOCABULARY = 49_408  # tokens of every CLIP that OpenAI published
MAX_CHARACTERS = 20_000  # the 77 tokens end long before, and cleaning costs time
TOKENIZER_FILES = (  # groups of files that make a tokenizer together, in order of preference
    ("vocab.json", "merges.txt"),
    ("tokenizer.json",),
    ("bpe_simple_vocab_16e6.txt.gz",),
)


def clean(text: str) -> str:
    """Clean a text as OpenAI's tokenizer does, and turn control tokens in it into plain text.

    A space inside the brackets of a control token changes no other token: CLIP splits there anyway.
    """
    text = ftfy.fix_text(text[:MAX_CHARACTERS])
    text = html.unescape(html.unescape(text))
    text = regex.sub(r"\s+", " ", text).strip().lower()
    return regex.sub(r"<\|(startoftext|endoftext)\|>", r"<| \1 |>", text)


def vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Number all tokens that follow from a list of merges, in OpenAI's order."""
    characters = list(bytes_to_unicode().values())
    tokens = characters + [character + WORD_END for character in characters]
    tokens += ["".join(merge) for merge in merges] + [START, END]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


class Tokenizer(TextTokenizer):
    """Encodes texts as CLIP token ids.

    Args:
        vocab: token -> id.
        merges: pairs of tokens, the most frequent first.
        context: ids per text, 77 in every published CLIP.
    """

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], context: int = 77):
        self.vocab, self.merges, self.context = vocab, [tuple(merge) for merge in merges], context
        self.start, self.end = vocab[START], vocab[END]
        self._clip = CLIPTokenizer(vocab=vocab, merges=self.merges)

    def encode(self, texts: Iterable[str], **options: Any) -> list[list[int]]:
        """Return the ids of each text; see ``TextTokenizer.encode``."""
        return self._clip([clean(text) for text in texts], **options)["input_ids"]

    @classmethod
    def from_folder(cls, folder: Path, context: int = 77) -> "Tokenizer":
        """Load the first of ``TOKENIZER_FILES`` in a folder; raise a UserError if there is none or it is damaged."""
        names = next((group for group in TOKENIZER_FILES if (folder / group[0]).exists()), None)
        if names is None:
            groups = ", or ".join(" and ".join(group) for group in TOKENIZER_FILES)
            raise UserError(f"{folder} has no tokenizer; add that of this CLIP: {groups}")
        try:
            return cls(*_read_vocabulary([folder / name for name in names]), context)
        except Exception as error:  # noqa: BLE001  transformers' own code raises many kinds
            raise UserError(
                f"{folder}: the tokenizer in {' and '.join(names)} cannot be read ({str(error):.200}); get it again"
            ) from None

    def save(self, folder: Path) -> None:
        """Write vocab.json and merges.txt."""
        lines = ["#version: 0.2", *(" ".join(merge) for merge in self.merges)]
        write_text(folder / "merges.txt", "\n".join(lines) + "\n")
        write_text(folder / "vocab.json", json.dumps(self.vocab, ensure_ascii=False))


def _read_vocabulary(paths: list[Path]) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """Read the vocabulary and the merges from one of the groups of ``TOKENIZER_FILES``."""
    if paths[0].suffix == ".gz":
        # OpenAI's list goes on after the merges that its vocabulary has room for.
        count = OPENAI_VOCABULARY - len(vocabulary([]))
        lines = gzip.decompress(paths[0].read_bytes()).decode().split("\n")[1 : 1 + count]
        merges = [tuple(line.split()) for line in lines]
        return vocabulary(merges), merges
    content = json.loads(paths[0].read_text(encoding="utf-8"))
    if len(paths) == 1:
        content, merges = content["model"]["vocab"], content["model"]["merges"]
    else:
        lines = paths[1].read_text(encoding="utf-8").splitlines()
        merges = [line for line in lines if line.strip() and not line.startswith("#version")]
    return content, [tuple(merge.split() if isinstance(merge, str) else merge) for merge in merges]


def train_tokenizer(texts: Iterable[str], size: int, context: int = 77) -> Tokenizer:
    """Train byte pairs on texts, for a small CLIP.

    Args:
        texts: training texts.
        size: number of tokens, at least the 514 that need no merge.
        context: ids per text.
    """
    splitter = CLIPTokenizer(vocab=vocabulary([]), merges=[]).backend_tokenizer
    trained = BytePairs(models.BPE(end_of_word_suffix=WORD_END))
    trained.normalizer, trained.pre_tokenizer = splitter.normalizer, splitter.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False, end_of_word_suffix=WORD_END
    )
    trained.train_from_iterator(map(clean, texts), trainer)
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    merges = merges[: size - len(vocabulary([]))]
    return Tokenizer(vocabulary(merges), merges, context)
