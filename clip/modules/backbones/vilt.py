"""Loads a frozen ViLT: Hugging Face's files, or a checkpoint of the original code."""

from pathlib import Path

import torch
from torch import Tensor

from clip.modules.backbones.base import Backbone
from clip.modules.backbones.bert_tokenizer import VOCABULARIES, BertTokenizer
from clip.modules.backbones.clip import find_weights
from clip.modules.backbones.clip_checks import check_whole
from clip.modules.backbones.hub import REPOSITORY, check_cached, download
from clip.modules.backbones.tensor_files import read_tensors, sha256_of
from clip.modules.backbones.vilt_convert import ViltSizes, from_layout, stretch
from clip.modules.layers import HEAD_WIDTH
from clip.modules.prompted_vilt import ViltSettings, ViltTransformer
from clip.utils.errors import UserError

POSITIONS = {"mmimdb": 1024, "food101": 512, "hatememes": 128}  # of a text, as MMP was published
OTHERWISE = 512
ACTIVATION = "gelu"
PATCH = 32  # pixels; the transform rounds to multiples of it
BESIDE = (*VOCABULARIES, "config.json", "tokenizer_config.json")


def find_vilt(vit: str) -> Path:
    """Give the weight file that a Hugging Face id, a folder or a file means.

    Raises:
        UserError: there is none.
    """
    return find_weights(vit, BESIDE)


def positions_of(settings: ViltSettings, task: str) -> int:
    """Give how many tokens of a text are read."""
    return settings.max_text_len or POSITIONS.get(task, OTHERWISE)


def load_vilt(vit: str, activation: str | None, settings: ViltSettings, task: str) -> Backbone:
    """Load a ViLT, its text positions stretched; nothing in its files is run.

    Args:
        vit: a Hugging Face id, a folder, or a file: safetensors or ``torch.save``.
        activation: None or "gelu", which is all that ViLT has.
        settings: of the backbone.
        task: whose texts are read.

    Raises:
        UserError: no such ViLT, no network, or files that are not one whole ViLT.
    """
    if activation not in (None, ACTIVATION):
        raise UserError(f"activation={activation} is not ViLT's; leave it out")
    weights = find_vilt(vit)
    sha256 = sha256_of(weights)
    check_cached(weights, sha256)
    try:
        state = whole_vilt(read_tensors(weights))
    except UserError as error:
        raise UserError(f"{weights}: {error}") from None
    positions = positions_of(settings, task)
    name = "text_positional_embedding"
    state[name] = stretch(state[name], positions)
    sizes = ViltSizes.of(state)
    tokenizer = BertTokenizer.from_folder(weights.parent, positions)
    if max(tokenizer.vocab.values()) >= sizes.vocabulary:
        raise UserError(
            f"{weights.parent}: a vocabulary of {len(tokenizer.vocab)} tokens, but weights of "
            f"{sizes.vocabulary}; put the vocabulary of this ViLT there"
        )
    settings = settings.model_copy(update={"max_text_len": positions})
    return Backbone(state, sizes, ACTIVATION, tokenizer, vit, sha256, settings)


def whole_vilt(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate the tensors of a file to our names, float32.

    Raises:
        UserError: they are not one whole ViLT, or it is not built as ours.
    """
    state = from_layout(tensors)
    sizes = ViltSizes.of(state)
    if sizes.width % HEAD_WIDTH:
        raise UserError(f"it is {sizes.width} wide; ViLT's are multiples of {HEAD_WIDTH}")
    if sizes.patch != PATCH:
        raise UserError(f"its patches are {sizes.patch} pixels wide; images are made for {PATCH}")
    with torch.device("meta"):
        wanted = ViltTransformer(sizes, ACTIVATION).state_dict()
    check_whole(state, wanted, "ViLT")
    return {name: tensor.float() for name, tensor in state.items()}


def vilt_tokenizer_of(vit: str, settings: ViltSettings, task: str) -> BertTokenizer:
    """Give the tokenizer beside a ViLT's weights, which need not be there.

    Raises:
        UserError: there is none, and none can be downloaded.
    """
    path = Path(vit).expanduser()
    if REPOSITORY.fullmatch(vit) and not path.exists():
        path = download(vit, BESIDE)
    return BertTokenizer.from_folder(path.parent if path.is_file() else path,
                                  positions_of(settings, task))  # fmt: skip
