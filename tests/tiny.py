"""A CLIP and a data set so small that everything runs in seconds, on the same code path."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from clip.demo.pretrain import train_tokenizer
from clip.modules.backbones.clip import load_clip, save_clip
from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer
from clip.utils.errors import UserError
from vilt.utils import write_mmimdb

SIZES = ClipSizes(image_width=128, image_layers=3, patch=8, grid=2, text_width=64, text_layers=4,
                  context=77, vocabulary=600, embed_dim=32)  # fmt: skip
OTHER = ClipSizes(image_width=64, image_layers=5, patch=4, grid=3, text_width=192, text_layers=3,
                  context=77, vocabulary=300, embed_dim=16)  # fmt: skip
VIT_B_16 = ClipSizes(image_width=768, image_layers=12, patch=16, grid=14, text_width=512,
                     text_layers=12, context=77, vocabulary=49408, embed_dim=512)  # fmt: skip
FEWER_IDS = replace(SIZES, vocabulary=500)  # ids that the tokenizer of `write_clip` surely has
LENGTH, DEPTH = 6, 2
GENRES = ("Drama", "Comedy", "Horror")
TEXTS = ["A hero saves the day.", "The heroine runs & hides", "", "Nobody knows why they laugh"]


def clip_state(sizes: ClipSizes = SIZES, activation: str = "quick_gelu", seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under OpenAI's names; the two towers differ in width and depth."""
    torch.manual_seed(seed)
    image, text = VisionTransformer(sizes, activation), TextTransformer(sizes, activation)
    state = {f"visual.{name}": tensor for name, tensor in image.state_dict().items()}
    state |= text.state_dict() | {"logit_scale": torch.tensor(2.0)}
    # Norms and biases away from 1 and 0, so that a forgotten one shows.
    return {k: v + 0.1 * torch.randn_like(v) if v.ndim <= 1 else v for k, v in state.items()}


def write_clip(folder: Path, activation: str = "quick_gelu", seed: int = 0, sizes: ClipSizes = SIZES) -> Path:
    """A folder that `vit=` takes; its tokenizer decides the vocabulary."""
    tokenizer = train_tokenizer(TEXTS * 3, 560)
    sizes = replace(sizes, vocabulary=len(tokenizer.vocab))
    state = clip_state(sizes, activation, seed)
    save_clip(folder, state, activation, tokenizer)
    return folder


def refusal(vit: Path | str, activation: str | None = None) -> str:
    """The message of a CLIP that must not load: one line that names the file or folder."""
    with pytest.raises(UserError) as caught:
        load_clip(str(vit), activation)
    message = str(caught.value)
    assert "\n" not in message
    assert str(vit) in message
    return message


def batch(missing_type: list[int], sizes: ClipSizes = SIZES, seed: int = 1) -> tuple:
    """Random images and texts of different lengths, with the given missing cases."""
    generator = torch.Generator().manual_seed(seed)
    side, count, vocabulary = sizes.image_size, len(missing_type), sizes.vocabulary
    image = torch.randn(count, 3, side, side, generator=generator)
    tokens = torch.zeros(count, 77, dtype=torch.long)
    for i, row in enumerate(tokens):
        body = torch.randint(1, vocabulary - 2, (i % 5 + 1,), generator=generator)
        row[: len(body) + 2] = torch.cat([torch.tensor([vocabulary - 2]), body, torch.tensor([vocabulary - 1])])
    return image, tokens, torch.tensor(missing_type)


def write_arrow(target: Path, sizes: dict[str, int], shapes: tuple = ((20, 30),)) -> Path:
    """Films whose colour and whose text both tell the genre, converted by the real converter.

    Their images have these widths and heights in turn.
    """
    raw, names, number = target / "raw", {}, 0
    (raw / "images").mkdir(parents=True, exist_ok=True)
    (raw / "labels").mkdir(exist_ok=True)
    for split, size in sizes.items():
        names[split] = [f"{number + i:07d}" for i in range(size)]
        for i, name in enumerate(names[split]):
            kind = i % len(GENRES)
            colour = [40 + 5 * (i % 7)] * 3
            colour[kind] = 220
            image = Image.new("RGB", shapes[i % len(shapes)], tuple(colour))
            image.save(raw / "images" / f"{name}.jpeg")
            plots = [f"{GENRES[kind].lower()} number {i}", f"a longer plot of number {i} again"]
            label = {"genres": [GENRES[kind]], "plot": plots[: 1 + i % 2]}
            (raw / "labels" / f"{name}.json").write_text(json.dumps(label))
        number += size
    (raw / "split.json").write_text(json.dumps(names))
    write_mmimdb.make_arrow(raw, target)
    return target
