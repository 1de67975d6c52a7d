"""Load a frozen CLIP (weights, sizes, activation, tokenizer) and save small ones.

Folders are saved in the layout of transformers' ``CLIPModel``: config.json, model.safetensors, vocab.json, merges.txt.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor
from transformers import CLIPConfig

from clip.modules.backbones import Backbone
from clip.modules.backbones.clip_convert import HUGGING_FACE, ClipSizes, convert_clip
from clip.modules.backbones.clip_tokenizer import OPENAI_VOCABULARY, TOKENIZER_FILES, Tokenizer
from clip.modules.backbones.tensor_files import find_folder, find_weights, first_line, read_tensors, sha256_of
from clip.modules.layers import ACTIVATIONS, HEAD_WIDTH
from clip.modules.prompts.base import NoSettings
from clip.utils.errors import UserError
from clip.utils.files import atomic_write, write_text

PUBLISHED = {  # name -> Hugging Face id of OpenAI's weights
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
OPENAI_SHA256 = {  # OpenAI's archives, all with QuickGELU; its download links hold these checksums
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B-32.pt",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "ViT-B-16.pt",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L-14.pt",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L-14-336px.pt",
}
CONTEXT = 77  # text positions of every published CLIP
MAX_WIDTH = 1024  # published image towers beyond this width have heads of other widths than 64
EPSILON = 1e-5  # of our LayerNorms
TOKENIZERS = [name for group in TOKENIZER_FILES for name in group]
CONFIGS = ("config.json", "open_clip_config.json")


def load_clip(vit: str, activation: str | None = None, settings: Any = NoSettings(), task: str = "") -> Backbone:
    """Load a CLIP; nothing in its files is executed.

    Args:
        vit: key of ``PUBLISHED``, Hugging Face id, folder, or file (safetensors, ``torch.save`` or TorchScript) with
            tensor names of OpenAI, open_clip or transformers.
        activation: key of ``layers.ACTIVATIONS``, for files that do not state it.
        settings: has no fields for CLIP.
        task: not used.

    Raises:
        UserError: the files are not found, or are not those of one complete CLIP.
    """
    weights = find_clip(vit)
    sha256 = sha256_of(weights)
    tensors = read_tensors(weights)
    try:
        state = convert_clip(tensors)
    except UserError as error:
        raise UserError(f"{weights}: {error}") from None
    sizes = ClipSizes.of(state)
    activation = find_activation(weights.parent, sizes, sha256, activation)
    return Backbone(state, sizes, activation, find_tokenizer(weights.parent, sizes), vit, sha256, settings)


def find_clip(vit: str) -> Path:
    """Return the weight file of a CLIP; ``vit`` as in ``load_clip``."""
    return find_weights(vit, (*CONFIGS, *TOKENIZERS), PUBLISHED)


def load_clip_tokenizer(vit: str, settings: Any = None, task: str = "") -> Tokenizer:
    """Load the tokenizer of a CLIP without its weights; arguments as in ``load_clip``."""
    return Tokenizer.from_folder(find_folder(vit, TOKENIZERS, PUBLISHED))


def clip_positions(settings: Any, task: str) -> int:
    """Return the number of text tokens that CLIP reads."""
    return CONTEXT


def find_activation(folder: Path, sizes: ClipSizes, sha256: str, requested: str | None) -> str:
    """Find the activation of a CLIP and check its configuration against its tensors.

    Tensors do not show whether a CLIP has QuickGELU or GELU, and the wrong one costs accuracy without any error. The
    activation must be stated by the config, OpenAI's checksum or ``activation=``; conflicting sources raise.

    Args:
        folder: folder of the weight file.
        sizes: sizes read from the tensors.
        sha256: SHA-256 of the weight file.
        requested: the user's ``activation=``, or None.

    Raises:
        UserError: no source states it, two sources disagree, or a configuration does not fit the tensors.
    """
    paths = [folder / name for name in CONFIGS if (folder / name).exists()]
    stated = {path.name: activation for path in paths if (activation := _read_config(path, sizes))}
    if not stated and sizes.image_width > MAX_WIDTH:
        raise UserError(
            f"{folder} has no {' or '.join(CONFIGS)} of this CLIP, and an image tower of {sizes.image_width} "
            "channels may have any number of heads; add its config file"
        )
    if sha256 in OPENAI_SHA256:
        stated[f"OpenAI's {OPENAI_SHA256[sha256]}"] = "quick_gelu"
    if requested:
        stated["activation="] = requested
    if not stated:
        raise UserError(
            f"{folder} has no {' or '.join(CONFIGS)} that states the activation of this CLIP; "
            f"set activation={' or activation='.join(ACTIVATIONS)}"
        )
    if len(set(stated.values())) > 1:
        sources = ", ".join(f"{name} says {activation}" for name, activation in stated.items())
        raise UserError(f"the activation of the CLIP in {folder} is ambiguous: {sources}; correct one of them")
    return next(iter(stated.values()))


def find_tokenizer(folder: Path, sizes: ClipSizes) -> Tokenizer:
    """Load the tokenizer of a folder, or OpenAI's if there is none and the vocabulary has its size.

    Raises:
        UserError: no tokenizer is found, or it belongs to another CLIP.
    """
    if sizes.vocabulary == OPENAI_VOCABULARY and not any((folder / name).exists() for name in TOKENIZERS):
        try:
            folder = find_folder(PUBLISHED["ViT-B/16"], TOKENIZERS)
        except UserError as error:
            raise UserError(f"{folder} has no tokenizer ({TOKENIZERS[0]} and {TOKENIZERS[1]}): {error}") from None
    tokenizer = Tokenizer.from_folder(folder, sizes.context)
    last = max(tokenizer.vocab.values())
    if not last == tokenizer.end == sizes.vocabulary - 1:
        raise UserError(
            f"{folder}: the tokenizer has {last + 1} tokens and ends a text with {tokenizer.end}, but the weights "
            f"have {sizes.vocabulary} tokens; use the tokenizer of this CLIP"
        )
    return tokenizer


def save_clip(folder: Path, state: dict[str, Tensor], activation: str, tokenizer: Tokenizer) -> None:
    """Save a CLIP as a folder that ``load_clip`` and transformers read.

    Args:
        folder: created if needed.
        state: tensors under OpenAI's names.
        activation: key of ``layers.ACTIVATIONS``.
        tokenizer: tokenizer that the CLIP was trained with.
    """
    sizes = ClipSizes.of(state)
    config: dict[str, Any] = _transformers_config(sizes)
    config["vision_config"] |= {"hidden_act": activation}
    config["text_config"] |= {"hidden_act": activation, "bos_token_id": tokenizer.start,
                              "eos_token_id": tokenizer.end, "pad_token_id": 0}  # fmt: skip
    config |= {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": sizes.embed_dim}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    tokenizer.save(folder)
    with atomic_write(folder / "model.safetensors") as partial:
        # Not save_file, which makes files that nobody else may read.
        partial.write_bytes(save(HUGGING_FACE.write(state), metadata={"format": "pt"}))


def _transformers_config(sizes: ClipSizes) -> dict[str, dict[str, Any]]:
    towers = {
        "vision_config": (sizes.image_width, sizes.image_layers),
        "text_config": (sizes.text_width, sizes.text_layers),
    }
    config = {
        name: {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
               "num_attention_heads": width // HEAD_WIDTH, "layer_norm_eps": EPSILON}
        for name, (width, layers) in towers.items()
    }  # fmt: skip
    config["vision_config"] |= {"image_size": sizes.image_size, "patch_size": sizes.patch}
    config["text_config"] |= {"vocab_size": sizes.vocabulary, "max_position_embeddings": sizes.context}
    return config


def _read_config(path: Path, sizes: ClipSizes) -> str | None:
    """Return the activation that a configuration states, or None if it is of another kind of model."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if path.name == "open_clip_config.json":
            return _check_open_clip(path, content.get("model_cfg"), sizes)
        return _check_transformers(path, content, sizes) if content.get("model_type") == "clip" else None
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  a damaged file can raise anything
        raise UserError(f"{path} cannot be read ({first_line(error)}); get the file again") from None


def _check_transformers(path: Path, content: dict[str, Any], sizes: ClipSizes) -> str:
    config = CLIPConfig.from_dict(content)  # merges the sections of old versions, fills in defaults
    for section, expected in _transformers_config(sizes).items():
        for key, value in expected.items():
            if (found := getattr(getattr(config, section), key)) != value:
                raise UserError(f"{path}: {section}.{key} is {found!r}, but these weights need {value!r}")
    stated = {config.vision_config.hidden_act, config.text_config.hidden_act}
    if len(stated) > 1 or not stated <= ACTIVATIONS.keys():
        raise UserError(f"{path}: hidden_act is {sorted(stated)}; supported: one of {', '.join(ACTIVATIONS)}")
    return stated.pop()


def _check_open_clip(path: Path, config: dict[str, Any] | None, sizes: ClipSizes) -> str | None:
    if not config:
        return None
    expected = {
        "model_cfg": {"embed_dim": sizes.embed_dim},
        "vision_cfg": {"width": sizes.image_width, "layers": sizes.image_layers, "head_width": HEAD_WIDTH,
                       "patch_size": sizes.patch, "image_size": sizes.image_size, "mlp_ratio": 4},
        "text_cfg": {"width": sizes.text_width, "layers": sizes.text_layers,
                     "heads": sizes.text_width // HEAD_WIDTH, "context_length": sizes.context,
                     "vocab_size": sizes.vocabulary, "mlp_ratio": 4},
    }  # fmt: skip
    sections = {"model_cfg": {k: v for k, v in config.items() if k not in ("quick_gelu", "vision_cfg", "text_cfg")}}
    sections |= {name: config.get(name) or {} for name in ("vision_cfg", "text_cfg")}
    for section, values in sections.items():
        for key, value in values.items():
            # open_clip has many variants; every option that is on must be one that we build too.
            if value and value != expected[section].get(key):
                need = expected[section].get(key, "it unset, as in OpenAI's architecture")
                raise UserError(f"{path}: {section}.{key} is {value!r}, but these weights need {need}")
    return "quick_gelu" if config.get("quick_gelu") else "gelu"
