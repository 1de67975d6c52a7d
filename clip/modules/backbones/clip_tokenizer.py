"""CLIP's tokenizer: OpenAI's text cleaning, then transformers' ``CLIPTokenizer``.

The vocabulary belongs to the checkpoint. It follows from the merges alone, in OpenAI's order: 256 bytes, the same 256
ending a word, one token per merge, the start and the end of a text.
"""

import gzip
import html
import json
from collections.abc import Sequence
from pathlib import Path

import ftfy
import regex
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from clip.modules.backbones import TextTokenizer
from clip.utils.errors import UserError
from clip.utils.files import write_text

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
OPENAI_VOCABULARY = 49_408  # tokens of every CLIP that OpenAI published
# Groups of files that make a tokenizer together, in order of preference:
TOKENIZER_FILES = (("vocab.json", "merges.txt"), ("tokenizer.json",), ("bpe_simple_vocab_16e6.txt.gz",))


def clean(text: str) -> str:
    """Clean a text as OpenAI's tokenizer does, and turn control tokens in it into plain text."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    text = regex.sub(r"\s+", " ", text).strip().lower()
    # A space inside the brackets of a control token changes no other token: CLIP splits there anyway.
    return regex.sub(r"<\|(startoftext|endoftext)\|>", r"<| \1 |>", text)


def vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Number all tokens that follow from a list of merges, in OpenAI's order."""
    characters = list(bytes_to_unicode().values())
    tokens = characters + [character + WORD_END for character in characters]
    tokens += ["".join(merge) for merge in merges] + [START, END]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


class Tokenizer(TextTokenizer):
    """Encodes texts as CLIP token ids; ``merges`` are pairs of tokens, the most frequent first."""

    clean = staticmethod(clean)

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], context: int = 77):
        self.merges = [tuple(merge) for merge in merges]
        super().__init__(CLIPTokenizer(vocab=vocab, merges=self.merges), context)
        self.vocab, self.start, self.end = vocab, vocab[START], vocab[END]

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
            files = f"the tokenizer in {' and '.join(names)}"
            raise UserError(f"{folder}: {files} cannot be read ({str(error):.200}); get it again") from None

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
