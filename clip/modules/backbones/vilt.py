"""Load a frozen ViLT (weights, sizes, BERT tokenizer) from Hugging Face's files or those of the original code."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertTokenizerFast

from clip.modules.backbones import Backbone, TextTokenizer
from clip.modules.backbones.tensor_files import find_folder, find_weights, read_tensors, sha256_of
from clip.modules.backbones.vilt_convert import HUGGING_FACE, ORIGINAL, ViltSizes, stretch
from clip.modules.layers import HEAD_WIDTH
from clip.modules.prompted_vilt import ViltSettings, ViltTransformer
from clip.utils.errors import UserError, first_line

POSITIONS = {"mmimdb": 1024, "food101": 512, "hatememes": 128}  # text tokens, as MMP was published
ACTIVATION = "gelu"
PATCH = 32  # pixels; the transform rounds image sizes to multiples of it
FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "config.json")
find_vilt = partial(find_weights, files=FILES, published={})  # weight file of vit
PAD = "[PAD]"
SPECIAL = {PAD, "[CLS]", "[SEP]", "[UNK]"}


class BertTokenizer(TextTokenizer):
    """Encodes texts as ids of BERT's uncased word pieces."""

    def __init__(self, tokenizer: BertTokenizerFast, context: int):
        super().__init__(tokenizer, context)
        tokenizer.split_special_tokens = True  # "[PAD]" in a text is characters, not padding

    @classmethod
    def from_folder(cls, folder: Path, context: int) -> "BertTokenizer":
        """Load the vocabulary of a checkpoint's folder; raise a UserError if there is none of BERT."""
        vocab = {}
        try:
            if any((folder / name).exists() for name in FILES[:2]):  # otherwise transformers makes one up
                tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
                # Without the tokens that transformers adds by itself.
                vocab = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
        except Exception as error:  # noqa: BLE001  the reader of tokenizer.json raises many kinds
            raise UserError(f"{folder} has no readable {FILES[0]} or {FILES[1]} ({first_line(error)})") from None
        if not vocab.keys() >= SPECIAL or vocab[PAD] != 0:
            needed = f"a {FILES[0]} or {FILES[1]} with {', '.join(sorted(SPECIAL))} and {PAD} as token 0"
            raise UserError(f"{folder} needs {needed}; add that of this ViLT, usually bert-base-uncased's")
        return cls(tokenizer, context)


def load_vilt(vit: str, activation: str | None, settings: ViltSettings, task: str) -> Backbone:
    """Load a ViLT, its text positions interpolated to the length of the task; arguments as in ``load_clip``."""
    if activation not in (None, ACTIVATION):
        raise UserError(f"activation={activation} is not that of ViLT; leave it out")
    weights, positions = find_vilt(vit), vilt_positions(settings, task)
    state, sha256 = read_tensors(weights, convert_vilt), sha256_of(weights)
    state["text_positional_embedding"] = stretch(state["text_positional_embedding"], positions)
    sizes = ViltSizes.of(state)
    tokenizer = BertTokenizer.from_folder(weights.parent, positions)
    if (last := max(tokenizer.vocab.values())) >= sizes.vocabulary:
        vocabulary = f"a vocabulary of {last + 1} tokens, but weights for {sizes.vocabulary}"
        raise UserError(f"{weights.parent} has {vocabulary}; add the vocabulary of this ViLT")
    settings = settings.model_copy(update={"max_text_len": positions})
    return Backbone(state, sizes, ACTIVATION, tokenizer, vit, sha256, settings)


def load_vilt_tokenizer(vit: str, settings: ViltSettings, task: str) -> BertTokenizer:
    """Load the tokenizer of a ViLT without its weights; arguments as in ``load_vilt``."""
    return BertTokenizer.from_folder(find_folder(vit, FILES, {}), vilt_positions(settings, task))


def vilt_positions(settings: ViltSettings, task: str) -> int:
    """Return the number of text tokens that ViLT reads for a task."""
    return settings.max_text_len or POSITIONS.get(task, 512)


def convert_vilt(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a complete ViLT, named as by transformers or the original code, to our names and float32."""
    # Models with a head, which is ignored, prefix the names of the backbone with these.
    state = {name.removeprefix("vilt.").removeprefix("model."): tensor for name, tensor in tensors.items()}
    layout = ORIGINAL if any(name.startswith(("text_embeddings.", "transformer.")) for name in state) else HUGGING_FACE
    sizes = ViltSizes.of(state, layout)
    if sizes.width % HEAD_WIDTH or sizes.patch != PATCH:
        need = f"a multiple of {HEAD_WIDTH} and {PATCH}"
        raise UserError(f"the width is {sizes.width} and the patch size {sizes.patch}; supported are {need}")
    with torch.device("meta"):
        blank = ViltTransformer(sizes, ACTIVATION).state_dict()
    names = layout.write(blank)
    return layout.read({name: tensor for name, tensor in state.items() if name in names}, blank, "ViLT")
