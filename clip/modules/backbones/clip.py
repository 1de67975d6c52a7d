"""Loads a frozen CLIP (weights, sizes, tokenizer) and saves small ones of our own.

We save a folder in the layout of Hugging Face's ``CLIPModel``: config.json, model.safetensors,
vocab.json, merges.txt. ``transformers`` reads what we write, and we read what it writes.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from clip.modules.backbones.base import Backbone
from clip.modules.backbones.clip_checks import convert_state_dict
from clip.modules.backbones.clip_config import CONFIGS, find_activation, find_tokenizer
from clip.modules.backbones.clip_convert import ClipSizes, to_hugging_face
from clip.modules.backbones.clip_tokenizer import TOKENIZER_FILES, Tokenizer
from clip.modules.backbones.hub import REPOSITORY, check_cached, download
from clip.modules.backbones.tensor_files import read_tensors, sha256_of
from clip.modules.layers import HEAD_WIDTH
from clip.utils.errors import UserError
from clip.utils.files import atomic_write, write_text

PUBLISHED = {  # name -> Hugging Face id of OpenAI's weights
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
WEIGHT_FILES = (  # in a folder, the first that is there
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
BESIDE = (*CONFIGS, *(name for group in TOKENIZER_FILES for name in group))


def load_clip(vit: str, activation: str | None = None) -> Backbone:
    """Load a CLIP; nothing in its files is run.

    Args:
        vit: a key of ``PUBLISHED`` or a Hugging Face id (both downloaded and checked once), a
            folder, or a file: safetensors, ``torch.save`` or TorchScript, its tensors named as
            OpenAI, open_clip or ``CLIPModel`` name them.
        activation: a key of ``layers.ACTIVATIONS``, for files that do not say it.

    Raises:
        UserError: no such CLIP, no network, or files that are not one whole CLIP.
    """
    weights = find_weights(vit)
    sha256 = sha256_of(weights)
    check_cached(weights, sha256)
    tensors = read_tensors(weights)
    try:
        state = convert_state_dict(tensors)
    except UserError as error:
        raise UserError(f"{weights}: {error}") from None
    sizes = ClipSizes.of(state)
    activation = find_activation(weights.parent, sizes, sha256, activation)
    tokenizer = find_tokenizer(weights.parent, sizes)
    return Backbone(state, sizes, activation, tokenizer, vit, sha256)


def find_weights(vit: str, beside: Sequence[str] = BESIDE) -> Path:
    """Give the weight file that a name, a Hugging Face id, a folder or a file means.

    Args:
        vit: as ``load_clip`` takes it.
        beside: small files that are downloaded along.

    Raises:
        UserError: there is none.
    """
    path = Path(vit).expanduser()
    if vit in PUBLISHED or (REPOSITORY.fullmatch(vit) and not path.exists()):
        try:
            path = download(PUBLISHED.get(vit, vit), beside, WEIGHT_FILES)
        except UserError as error:
            raise UserError(f"vit={vit!r} is no local file or folder, and {error}") from None
    if not path.exists():
        raise UserError(
            f"vit={vit!r} is neither a file, a folder, nor one of {', '.join(PUBLISHED)}; "
            "give the folder of a CLIP, as `python run.py pretrain` writes it"
        )
    if path.is_dir():
        found = next((path / name for name in WEIGHT_FILES if (path / name).exists()), None)
        if found is None:
            raise UserError(f"vit={vit}: {path} has none of {', '.join(WEIGHT_FILES)}; give another")
        return found
    return path


def tokenizer_of(vit: str) -> Tokenizer:
    """Give the tokenizer beside a CLIP's weights, which need not be there.

    Args:
        vit: as ``load_clip`` takes it.

    Raises:
        UserError: there is none, and none can be downloaded.
    """
    path = Path(vit).expanduser()
    if vit in PUBLISHED or (REPOSITORY.fullmatch(vit) and not path.exists()):
        path = download(PUBLISHED.get(vit, vit), [n for group in TOKENIZER_FILES for n in group])
    return Tokenizer.from_folder(path.parent if path.is_file() else path)


def save_clip(folder: Path, state: dict[str, Tensor], activation: str, tokenizer: Tokenizer) -> None:
    """Write a CLIP as a folder that ``load_clip`` and ``transformers`` read.

    Args:
        folder: made if absent; the weights get their name only when complete.
        state: tensors under OpenAI's names.
        activation: a key of ``layers.ACTIVATIONS``.
        tokenizer: the tokenizer it was trained with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = ClipSizes.of(state)
    start, end = tokenizer.start, tokenizer.end
    shared = {"hidden_act": activation}
    config = {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": sizes.embed_dim,
        "vision_config": shared | _tower_config(sizes.image_width, sizes.image_layers) | {
            "image_size": sizes.image_size, "patch_size": sizes.patch},
        "text_config": shared | _tower_config(sizes.text_width, sizes.text_layers) | {
            "vocab_size": sizes.vocabulary, "max_position_embeddings": sizes.context,
            "bos_token_id": start, "eos_token_id": end, "pad_token_id": 0},
    }  # fmt: skip
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    tokenizer.save(folder)
    with atomic_write(folder / "model.safetensors") as partial:
        # Not save_file, whose files are readable by their owner only.
        partial.write_bytes(save(to_hugging_face(state), metadata={"format": "pt"}))


def _tower_config(width: int, layers: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD_WIDTH,
    }
