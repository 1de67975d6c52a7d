"""Load a frozen CoCa from the folders and files of open_clip; its decoder is skipped."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip.modules.backbones import Backbone
from clip.modules.backbones.clip import TOKENIZERS, find_tokenizer
from clip.modules.backbones.clip_tokenizer import Tokenizer
from clip.modules.backbones.layouts import Layout
from clip.modules.backbones.tensor_files import find_folder, find_weights, read_tensors, sha256_of
from clip.modules.layers import HEAD_WIDTH
from clip.modules.prompted_coca import CocaSizes, PromptedCoCa
from clip.transforms.clip import ClipTransform
from clip.utils.errors import UserError, first_line

PUBLISHED = {  # name -> Hugging Face id
    "CoCa-ViT-B/32": "laion/CoCa-ViT-B-32-laion2B-s13B-b90k",
    "CoCa-ViT-B/32-COCO": "laion/mscoco_finetuned_CoCa-ViT-B-32-laion2B-s13B-b90k",
}
CONFIG = "open_clip_config.json"
CONTEXT = 76  # token ids of a text; the class token has the last of the 77 positions
DECODER = "text_decoder."
find_coca = partial(find_weights, files=(CONFIG, *TOKENIZERS), published=PUBLISHED)


def load_coca(vit: str, activation: str | None, settings: Any, task: str) -> Backbone:
    """Load a CoCa; ``vit`` is a key of ``PUBLISHED``, a Hugging Face id, a folder or a file beside its config."""
    weights = find_coca(vit)
    state, sha256 = read_tensors(weights, convert_coca), sha256_of(weights)
    sizes = CocaSizes.of(state)
    stated = read_config(weights.parent / CONFIG, sizes)
    if activation not in (None, stated):
        raise UserError(f"activation={activation}, but {weights.parent / CONFIG} says {stated}; remove activation=")
    return Backbone(state, sizes, stated, find_tokenizer(weights.parent, sizes), vit, sha256, settings)


def load_coca_tokenizer(vit: str, settings: Any, task: str) -> Tokenizer:
    """Load the tokenizer of a CoCa without its weights; arguments as in ``load_coca``."""
    return Tokenizer.from_folder(find_folder(vit, TOKENIZERS, PUBLISHED), CONTEXT)


def convert_coca(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Check the tensors of a CoCa under open_clip's names, all but those of the decoder, which are counted."""
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(DECODER) and name != "logit_scale"}
    if "visual.attn_pool.query" not in kept:
        raise UserError("not a complete CoCa: visual.attn_pool.query is missing; give a CoCa, or choose backbone=clip")
    sizes = CocaSizes.of(kept)
    for name, width in (sizes.widths | {"pooler": sizes.embed_dim}).items():
        if width % HEAD_WIDTH:
            raise UserError(f"the width of the {name} is {width}; supported are multiples of {HEAD_WIDTH}")
    with torch.device("meta"):
        towers = {name: tower(sizes, "gelu").state_dict() for name, tower in PromptedCoCa.TOWERS.items()}
    blank = {f"visual.{name}": tensor for name, tensor in towers["image_encoder"].items()}
    blank |= {f"text.{name}": tensor for name, tensor in towers["text_encoder"].items()}
    if skipped := [tensor.numel() for name, tensor in state.items() if name.startswith(DECODER)]:
        print(f"CoCa: skipped {len(skipped)} tensors of the decoder, {sum(skipped):,} numbers")
    return Layout().read(kept, blank, "CoCa")


def read_config(path: Path, sizes: CocaSizes) -> str:
    """Return the activation that open_clip's configuration states; raise a UserError if it describes another model."""
    expected = {
        "vision_cfg": {"image_size": sizes.image_size, "width": sizes.image_width, "layers": sizes.image_layers},
        "text_cfg": {"context_length": sizes.context, "vocab_size": sizes.vocabulary, "embed_cls": True},
    }
    preprocess = {"mean": [*ClipTransform.mean], "std": [*ClipTransform.std], "interpolation": "bicubic"}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = content["model_cfg"]
        claims = {"text_cfg.correct_cls_mask": (bool(model["text_cfg"].get("correct_cls_mask")), False)}
        for part, values in expected.items():
            claims |= {f"{part}.{key}": (model[part].get(key, value), value) for key, value in values.items()}
        given = content.get("preprocess_cfg", {})
        claims |= {f"preprocess_cfg.{key}": (given.get(key, value), value) for key, value in preprocess.items()}
    except Exception as error:  # noqa: BLE001  a damaged file can raise anything
        raise UserError(f"{path} does not describe a CoCa ({first_line(error)}); get it again") from None
    for key, (found, value) in claims.items():
        if found != value:
            raise UserError(f"{path}: {key} is {found!r}, but only {value!r} is supported with these weights")
    return "quick_gelu" if model.get("quick_gelu") else "gelu"
