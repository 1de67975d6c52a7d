"""Load a frozen CLIP (weights, sizes, activation, tokenizer) and save small ones.

Folders are saved in the layout of transformers' ``CLIPModel``: config.json, model.safetensors, vocab.json, merges.txt.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from transformers import CLIPConfig

from clip.modules.backbones import Backbone
from clip.modules.backbones.clip_convert import HUGGING_FACE, OPENAI, ClipSizes
from clip.modules.backbones.clip_tokenizer import OPENAI_VOCABULARY, TOKENIZER_FILES, Tokenizer
from clip.modules.backbones.tensor_files import find_folder, find_weights, read_tensors, sha256_of
from clip.modules.layers import ACTIVATIONS, HEAD_WIDTH
from clip.modules.prompts.base import NoSettings
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer
from clip.utils.errors import UserError, first_line
from clip.utils.files import atomic_write, write_text

PUBLISHED = {  # name -> Hugging Face id of OpenAI's weights
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
OPENAI_SHA256 = {  # OpenAI's archives, all with QuickGELU; its download URLs contain these checksums
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B-32.pt",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "ViT-B-16.pt",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L-14.pt",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L-14-336px.pt",
}
MAX_WIDTH = 1024  # published image towers wider than this do not use heads of width 64
# Files may hold these besides the weights; they follow from the sizes.
NOT_WEIGHTS = {"position_ids", "attn_mask", "input_resolution", "context_length", "vocab_size"}
TOKENIZERS = [name for group in TOKENIZER_FILES for name in group]
CONFIGS = ("config.json", "open_clip_config.json")
OPEN_CLIP_KEYS = ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg")
# Not compared, since the sizes are read from the tensors:
OPEN_CLIP_KEYS += ("width", "layers", "patch_size", "image_size", "context_length", "vocab_size")
find_clip = partial(find_weights, files=(*CONFIGS, *TOKENIZERS), published=PUBLISHED)  # weight file of vit


def load_clip(vit: str, activation: str | None = None, settings: Any = None, task: str = "") -> Backbone:
    """Load a CLIP without executing code in its files.

    ``vit`` is a key of ``PUBLISHED``, a Hugging Face id, a folder, or a file (safetensors, ``torch.save`` or
    TorchScript) with tensor names of OpenAI, open_clip or transformers. ``activation`` is a key of
    ``layers.ACTIVATIONS``, for files that do not state it. The settings and the task are not used.
    """
    weights = find_clip(vit)
    state, sha256 = read_tensors(weights, convert_clip), sha256_of(weights)
    sizes = ClipSizes.of(state)
    activation = find_activation(weights.parent, sizes, sha256, activation)
    tokenizer = find_tokenizer(weights.parent, sizes)
    return Backbone(state, sizes, activation, tokenizer, vit, sha256, settings or NoSettings())


def load_clip_tokenizer(vit: str, settings: Any, task: str) -> Tokenizer:
    """Load the tokenizer of a CLIP without its weights; arguments as in ``load_clip``."""
    return Tokenizer.from_folder(find_folder(vit, TOKENIZERS, PUBLISHED))


def convert_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a complete CLIP, named as by OpenAI, open_clip or transformers, to OpenAI's names and float32."""
    state = {name: tensor for name, tensor in state.items() if name.split(".")[-1] not in NOT_WEIGHTS}
    layout = HUGGING_FACE if any(name.startswith(("text_model.", "vision_model.")) for name in state) else OPENAI
    sizes = ClipSizes.of(state, layout)
    for tower, width in sizes.widths.items():
        if width % HEAD_WIDTH:
            raise UserError(f"the width of the {tower} tower is {width}; supported are multiples of {HEAD_WIDTH}")
    with torch.device("meta"):
        blank = TextTransformer(sizes, "gelu").state_dict() | {"logit_scale": torch.empty(())}
        image = VisionTransformer(sizes, "gelu").state_dict()
    blank |= {f"visual.{name}": tensor for name, tensor in image.items()}
    return layout.read(state, blank, "CLIP")


def find_activation(folder: Path, sizes: ClipSizes, sha256: str, requested: str | None) -> str:
    """Find the activation of a CLIP and check the configuration in its folder against its tensors.

    Tensors do not show whether a CLIP uses QuickGELU or GELU, and the wrong one silently reduces accuracy. The
    activation must be stated by the config, OpenAI's checksum or ``activation=``; conflicting sources raise.
    """
    stated = {name: _read_config(folder / name, sizes) for name in CONFIGS if (folder / name).exists()}
    if not any(stated.values()) and sizes.image_width > MAX_WIDTH:
        problem = f"the number of heads of an image tower of width {sizes.image_width} is not known"
        raise UserError(f"{problem}, and {folder} has no {' or '.join(CONFIGS)}; add the config file of this CLIP")
    stated |= {"OpenAI's checksum": "quick_gelu" if sha256 in OPENAI_SHA256 else None, "activation=": requested}
    sources = {source: activation for source, activation in stated.items() if activation}
    if not sources:
        raise UserError(f"{folder} has no {' or '.join(CONFIGS)} that states the activation; set activation=")
    if len(set(sources.values())) > 1:
        claims = ", ".join(f"{source} says {activation}" for source, activation in sources.items())
        raise UserError(f"the activation of the CLIP in {folder} is ambiguous: {claims}; correct one of them")
    return sources.popitem()[1]


def find_tokenizer(folder: Path, sizes: ClipSizes) -> Tokenizer:
    """Load the tokenizer in a folder; if there is none and the vocabulary size matches, load OpenAI's."""
    if sizes.vocabulary == OPENAI_VOCABULARY and not any((folder / name).exists() for name in TOKENIZERS):
        try:
            folder = find_folder("ViT-B/16", TOKENIZERS, PUBLISHED)
        except UserError as error:
            raise UserError(f"{folder} has no tokenizer ({TOKENIZERS[0]} and {TOKENIZERS[1]}): {error}") from None
    tokenizer = Tokenizer.from_folder(folder, sizes.context)
    last = max(tokenizer.vocab.values())
    if not last == tokenizer.end == sizes.vocabulary - 1:
        found = f"the tokenizer has {last + 1} tokens and ends a text with {tokenizer.end}"
        raise UserError(f"{folder}: {found}, but the weights have {sizes.vocabulary}; use the tokenizer of this CLIP")
    return tokenizer


def save_clip(folder: Path, state: dict[str, Tensor], activation: str, tokenizer: Tokenizer) -> None:
    """Save a state dict with OpenAI's names as a folder that ``load_clip`` and transformers can load."""
    sizes = ClipSizes.of(state)
    config = _transformers_config(sizes, activation)
    config["text_config"] |= {"bos_token_id": tokenizer.start, "eos_token_id": tokenizer.end, "pad_token_id": 0}
    config |= {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": sizes.embed_dim}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    tokenizer.save(folder)
    with atomic_write(folder / "model.safetensors") as path:
        # Not save_file, which makes the file readable only by its owner.
        path.write_bytes(save(HUGGING_FACE.write(state), metadata={"format": "pt"}))


def _transformers_config(sizes: ClipSizes, activation: str) -> dict[str, Any]:
    config = {
        "vision_config": {"image_size": sizes.image_size, "patch_size": sizes.patch},
        "text_config": {"vocab_size": sizes.vocabulary, "max_position_embeddings": sizes.context},
    }
    for tower, width in sizes.widths.items():
        shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": sizes.depths[tower]}
        heads = {"num_attention_heads": width // HEAD_WIDTH, "layer_norm_eps": 1e-5, "hidden_act": activation}
        config["vision_config" if tower == "image" else "text_config"] |= shape | heads
    return config


def _read_config(path: Path, sizes: ClipSizes) -> str | None:
    """Return the activation that a configuration states, or None if it is not that of a CLIP."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("model_cfg"):
            return _read_open_clip(content["model_cfg"], sizes)
        if content.get("model_type") != "clip":
            return None
        config = CLIPConfig.from_dict(content)  # merges the sections of old versions, fills in defaults
    except Exception as error:  # noqa: BLE001  a damaged file can raise anything
        raise UserError(f"{path} does not describe a supported CLIP ({first_line(error)}); correct it") from None
    activation = config.vision_config.hidden_act
    for name, expected in _transformers_config(sizes, activation).items():
        for key, value in expected.items():
            if (found := getattr(getattr(config, name), key)) != value:
                raise UserError(f"{path}: {key} of {name} is {found!r}, but this CLIP needs {value!r}")
    if activation not in ACTIVATIONS:
        raise UserError(f"{path}: hidden_act is {activation!r}; supported are {', '.join(ACTIVATIONS)}")
    return activation


def _read_open_clip(config: dict[str, Any], sizes: ClipSizes) -> str:
    """Return the activation of open_clip's configuration; raise ValueError if it is another architecture."""
    fixed = {"head_width": HEAD_WIDTH, "heads": sizes.text_width // HEAD_WIDTH, "mlp_ratio": 4}
    for section in (config, config.get("vision_cfg") or {}, config.get("text_cfg") or {}):
        for key, value in section.items():
            # open_clip has many variants; reject any enabled option that is not implemented here.
            if value and key not in OPEN_CLIP_KEYS and value != fixed.get(key):
                raise ValueError(f"{key}={value!r} is not OpenAI's architecture")
    return "quick_gelu" if config.get("quick_gelu") else "gelu"
