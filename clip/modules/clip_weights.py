"""Loads a frozen CLIP (weights, sizes, tokenizer) and saves small ones of our own.

On disk a CLIP is a folder in the layout of Hugging Face's ``CLIPModel``: config.json,
model.safetensors, vocab.json, merges.txt. ``transformers`` reads what we write, and we read what
it writes.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clip.errors import UserError
from clip.modules.clip_layouts import ClipSizes, from_hugging_face, to_hugging_face
from clip.modules.layers import ACTIVATIONS, HEAD_WIDTH
from clip.modules.tokenizer import Tokenizer

PUBLISHED = {  # name -> Hugging Face id of OpenAI's weights
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
TOKENIZER_FILES = ("vocab.json", "merges.txt")


@dataclass(frozen=True)
class FrozenClip:
    """A loaded CLIP.

    Attributes:
        state: tensors under OpenAI's names, float32.
        activation: a key of ``layers.ACTIVATIONS``.
        tokenizer: texts -> ids.
        name: what the user asked for.
        sha256: of the weight file.
    """

    state: dict[str, Tensor]
    activation: str
    tokenizer: Tokenizer
    name: str
    sha256: str

    @property
    def sizes(self) -> ClipSizes:
        """The sizes of this CLIP."""
        return ClipSizes.of(self.state)


def load_clip(vit: str) -> FrozenClip:
    """Load a CLIP by its published name (downloaded and checked once) or from a folder.

    Args:
        vit: a key of ``PUBLISHED``, or a folder in Hugging Face's layout.

    Raises:
        UserError: an unknown name, no network, or a folder that holds no complete CLIP.
    """
    folder = download(PUBLISHED[vit]) if vit in PUBLISHED else Path(vit)
    if not folder.is_dir():
        raise UserError(
            f"vit={vit!r} is neither a folder nor one of {', '.join(PUBLISHED)}; "
            "give the folder of a CLIP, as `python run.py pretrain` writes it"
        )
    weights = next((folder / f for f in WEIGHT_FILES if (folder / f).exists()), None)
    if weights is None:
        raise UserError(f"vit={vit}: no {' or '.join(WEIGHT_FILES)} in this folder")
    state = from_hugging_face(read_tensors(weights))
    activation = read_activation(folder, ClipSizes.of(state))
    tokenizer = Tokenizer.from_folder(folder, ClipSizes.of(state).context)
    return FrozenClip(state, activation, tokenizer, vit, sha256_of(weights))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors without running anything in it.

    Raises:
        UserError: the file is damaged or holds something else than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)}); get it again") from None
    except Exception as error:  # noqa: BLE001  torch hides pickle's own error class
        raise UserError(f"{path} holds more than tensors ({_first_line(error)})") from None


def read_activation(folder: Path, sizes: ClipSizes) -> str:
    """Read the non-linearity from config.json, and check the head count against ours.

    Raises:
        UserError: no or a damaged config.json, an unknown activation, or other heads than
            ``width // 64``.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        # Absent keys mean transformers' defaults, which are OpenAI's.
        towers = [dict(config.get(f"{tower}_config") or {}) for tower in ("vision", "text")]
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)})") from None
    found = {tower.get("hidden_act", "quick_gelu") for tower in towers}
    if len(found) > 1 or not found <= ACTIVATIONS.keys():
        raise UserError(
            f"{path}: hidden_act {sorted(found)}; known: one of {', '.join(ACTIVATIONS)}"
        )
    for tower, width in zip(towers, (sizes.image_width, sizes.text_width), strict=True):
        heads = tower.get("num_attention_heads", width // HEAD_WIDTH)
        if heads != width // HEAD_WIDTH:
            raise UserError(f"{path}: {heads} heads of {width} channels; every head must have 64")
    return found.pop()


def download(repository: str) -> Path:
    """Fetch a CLIP from the Hugging Face hub into its cache, once, and check its weights.

    The hub keeps large files under their SHA-256, so the name in the cache is the checksum.

    Raises:
        UserError: the hub cannot be reached, or the weights are damaged.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    errors = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)
    patterns = ["config.json", *TOKENIZER_FILES]
    try:
        try:
            present = HfApi().list_repo_files(repository)
            patterns.append(next(name for name in WEIGHT_FILES if name in present))
        except errors:  # offline: what an earlier run has fetched will do
            patterns.extend(WEIGHT_FILES)
        folder = Path(snapshot_download(repository, allow_patterns=patterns))
    except errors as error:
        raise UserError(
            f"cannot download {repository} ({_first_line(error)}); "
            "without a network give a local folder: vit=/path/to/clip"
        ) from None
    for name in WEIGHT_FILES:
        blob = (folder / name).resolve()
        if blob.is_file() and len(blob.name) == 64 and sha256_of(blob) != blob.name:
            raise UserError(f"{blob} is damaged: its SHA-256 is {sha256_of(blob)}; delete it")
    return folder


def save_clip(
    folder: Path, state: dict[str, Tensor], activation: str, tokenizer: Tokenizer
) -> None:
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
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(folder)
    partial = folder / "model.safetensors.partial"
    save_file(to_hugging_face(state), partial, metadata={"format": "pt"})
    os.replace(partial, folder / "model.safetensors")


def _tower_config(width: int, layers: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD_WIDTH,
    }


def sha256_of(path: Path) -> str:
    """Hash a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
