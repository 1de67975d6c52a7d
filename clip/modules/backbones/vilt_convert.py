"""The sizes of a ViLT and the names of its tensors: ours, Hugging Face's and the original code's.

A leaf but for the error class. Inside the project a ViLT is a dict of tensors under the names of
``single_stream.ViltTransformer``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from clip.utils.errors import UserError

HUGGING_FACE = {  # ours -> ViltModel's
    "token_embedding.weight": "embeddings.text_embeddings.word_embeddings.weight",
    "text_positional_embedding": "embeddings.text_embeddings.position_embeddings.weight",
    "segment_embedding": "embeddings.text_embeddings.token_type_embeddings.weight",
    "ln_text.": "embeddings.text_embeddings.LayerNorm.",
    "conv1.": "embeddings.patch_embeddings.projection.",
    "class_embedding": "embeddings.cls_token",
    "positional_embedding": "embeddings.position_embeddings",
    "type_embedding": "embeddings.token_type_embeddings.weight",
    "ln_final.": "layernorm.",
    "pooler.": "pooler.dense.",
    "transformer.resblocks.{}.ln_1.": "encoder.layer.{}.layernorm_before.",
    "transformer.resblocks.{}.attn.in_proj_": "encoder.layer.{}.attention.attention.{part}.",
    "transformer.resblocks.{}.attn.out_proj.": "encoder.layer.{}.attention.output.dense.",
    "transformer.resblocks.{}.ln_2.": "encoder.layer.{}.layernorm_after.",
    "transformer.resblocks.{}.mlp.c_fc.": "encoder.layer.{}.intermediate.dense.",
    "transformer.resblocks.{}.mlp.c_proj.": "encoder.layer.{}.output.dense.",
}
ORIGINAL = {  # ours -> the ViLT code's, and that of MMP's release
    "token_embedding.weight": "text_embeddings.word_embeddings.weight",
    "text_positional_embedding": "text_embeddings.position_embeddings.weight",
    "segment_embedding": "text_embeddings.token_type_embeddings.weight",
    "ln_text.": "text_embeddings.LayerNorm.",
    "conv1.": "transformer.patch_embed.proj.",
    "class_embedding": "transformer.cls_token",
    "positional_embedding": "transformer.pos_embed",
    "type_embedding": "token_type_embeddings.weight",
    "ln_final.": "transformer.norm.",
    "pooler.": "pooler.dense.",
    "transformer.resblocks.{}.ln_1.": "transformer.blocks.{}.norm1.",
    "transformer.resblocks.{}.attn.in_proj_": "transformer.blocks.{}.attn.qkv.",
    "transformer.resblocks.{}.attn.out_proj.": "transformer.blocks.{}.attn.proj.",
    "transformer.resblocks.{}.ln_2.": "transformer.blocks.{}.norm2.",
    "transformer.resblocks.{}.mlp.c_fc.": "transformer.blocks.{}.mlp.fc1.",
    "transformer.resblocks.{}.mlp.c_proj.": "transformer.blocks.{}.mlp.fc2.",
}
PARTS = ("query", "key", "value")
LAYOUTS = (HUGGING_FACE, ORIGINAL)
WRAPPERS = ("vilt.", "model.")  # in front of all names in models with a head on top
SQUEEZED = ("class_embedding", "positional_embedding")  # (1, …, D) elsewhere


@dataclass(frozen=True)
class ViltSizes:
    """The sizes of a ViLT, read from its tensors."""

    width: int
    layers: int
    patch: int
    grid: int
    context: int
    vocabulary: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "ViltSizes":
        """Read the sizes of a state dict under our names.

        Raises:
            UserError: its tensors have other dimensions than a ViLT's.
        """
        try:
            return cls._read(state)
        except (ValueError, IndexError, TypeError) as error:
            raise UserError(f"its tensors are not those of a ViLT: {error}") from None

    @classmethod
    def _read(cls, state: Mapping[str, Tensor]) -> "ViltSizes":
        vocabulary, width = state["token_embedding.weight"].shape
        if 0 in (vocabulary, width):
            raise ValueError("one of them is empty")
        blocks = map(re.compile(r"transformer\.resblocks\.(\d+)").match, state)
        layers = 1 + max(int(block[1]) for block in blocks if block)
        positions = len(state["positional_embedding"])
        return cls(width, layers, state["conv1.weight"].shape[2], round((positions - 1) ** 0.5),
                   len(state["text_positional_embedding"]), vocabulary)  # fmt: skip

    @property
    def image_size(self) -> int:
        """Short side of an image in pixels."""
        return self.patch * self.grid

    @property
    def widths(self) -> dict[str, int]:
        """Channels of a token, by modality."""
        return {"image": self.width, "text": self.width}

    @property
    def towers(self) -> dict[str, int]:
        """Channels of a token of the one tower."""
        return {"joint": self.width}

    @property
    def depths(self) -> dict[str, int]:
        """Layers of the one tower."""
        return {"joint": self.layers}

    @property
    def feature_width(self) -> int:
        """Channels of the pooled token."""
        return self.width


def from_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a ViLT, Hugging Face's or the original code's, to ours.

    Tensors of heads that stand on top are left out.

    Raises:
        UserError: it is no whole ViLT; names the first tensor that is absent.
    """
    tensors = {_unwrapped(name): tensor for name, tensor in tensors.items()}
    layout = max(LAYOUTS, key=lambda names: sum(name in tensors for name in names.values()))
    block = re.escape(layout["transformer.resblocks.{}.ln_1."]).replace(r"\{\}", r"(\d+)")
    numbers = (int(m[1]) for m in map(re.compile(block).match, tensors) if m)
    layers = 1 + max(numbers, default=0)
    out: dict[str, Tensor] = {}
    try:
        for ours, theirs in layout.items():
            for leaf in ("weight", "bias") if ours[-1] in "._" else ("",):
                for layer in range(layers if "{}" in ours else 1):
                    name = theirs.replace("{}", str(layer)) + leaf
                    out[ours.format(layer) + leaf] = _joined(tensors, name)
    except KeyError as absent:
        raise UserError(f"no tensor {absent}; give a whole ViLT") from None
    out |= {name: out[name].flatten(0, -2) for name in SQUEEZED}
    out["class_embedding"] = out["class_embedding"].flatten()
    return out


def stretch(positions: Tensor, length: int) -> Tensor:
    """Stretch learned text positions (N, D) to (length, D), bilinearly, as MMP was published."""
    if len(positions) == length:
        return positions
    size = (length, positions.shape[1])
    return interpolate(positions[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _joined(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if "{part}" not in name:
        return tensors[name]
    return torch.cat([tensors[name.replace("{part}", part)] for part in PARTS])
