"""Text to token ids for ViLT: BERT's uncased word pieces, by transformers' fast tokenizer."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertTokenizerFast

from clip.modules.backbones.clip_tokenizer import LONGEST_TEXT
from clip.utils.errors import UserError

VOCABULARIES = ("vocab.txt", "tokenizer.json")  # the first that is there
PAD = "[PAD]"
SPECIAL = (PAD, "[CLS]", "[SEP]", "[UNK]")


class BertTokenizer:
    """Turns texts into ids of fixed length.

    Args:
        tokenizer: of BERT.
        context: ids per text.
    """

    def __init__(self, tokenizer: BertTokenizerFast, context: int):
        tokenizer.split_special_tokens = True  # "[PAD]" in a text is letters, not padding
        self.context, self.vocab, self._bert = context, tokenizer.get_vocab(), tokenizer

    def __call__(self, texts: Iterable[str]) -> Tensor:
        """Give (N, context) int64 ids: [CLS], text, [SEP], zeros; a long text is cut."""
        cut = [text[:LONGEST_TEXT] for text in texts]
        if not cut:
            return torch.zeros(0, self.context, dtype=torch.long)
        made = self._bert(cut, padding="max_length", truncation=True, max_length=self.context)
        return torch.tensor(made["input_ids"])

    def lengths(self, texts: Iterable[str]) -> list[int]:
        """Count the tokens of texts, start and end among them, before any is cut."""
        return [len(ids) for ids in self._bert([*texts])["input_ids"]]

    @classmethod
    def from_folder(cls, folder: Path, context: int) -> "BertTokenizer":
        """Read the vocabulary of a checkpoint's folder.

        Raises:
            UserError: there is none, or it is not BERT's.
        """
        name = next((name for name in VOCABULARIES if (folder / name).exists()), None)
        if name is None:
            raise UserError(
                f"{folder} has no {' or '.join(VOCABULARIES)}; put the vocabulary of this ViLT "
                "there, for the published one that of bert-base-uncased"
            )
        try:
            tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
            # Without what transformers adds of its own accord.
            vocab = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
        except Exception as error:  # noqa: BLE001  the reader of tokenizer.json raises many kinds
            reason = str(error).splitlines()[0][:100]
            raise UserError(f"{folder / name} is no vocabulary of BERT ({reason})") from None
        if absent := [token for token in SPECIAL if token not in vocab]:
            raise UserError(f"{folder / name} lacks {', '.join(absent)}; it is not BERT's")
        if vocab[PAD] != 0:
            raise UserError(f"{folder / name} has {PAD} at {vocab[PAD]}, but ViLT pads with 0")
        return cls(tokenizer, context)
