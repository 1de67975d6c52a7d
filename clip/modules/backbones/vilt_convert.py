"""Sizes of a ViLT and its tensor names at Hugging Face and in the original code.

Inside the project a ViLT is a state dict under the names of ``prompted_vilt.ViltTransformer``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import interpolate

from clip.modules.backbones.layouts import Layout, size_errors

OURS = Layout()
LEADING = {"class_embedding": 2, "positional_embedding": 1}
HUGGING_FACE = Layout(  # ViltModel
    names={
        "token_embedding.": "embeddings.text_embeddings.word_embeddings.",
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
    },
    parts=("query", "key", "value"),
    leading=LEADING,
)
ORIGINAL = Layout(  # the ViLT code, and MMP's release
    names={
        "token_embedding.": "text_embeddings.word_embeddings.",
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
    },
    leading=LEADING,
)


@dataclass(frozen=True)
class ViltSizes:
    """Sizes of a ViLT, read from its tensors."""

    width: int
    layers: int
    patch: int
    grid: int
    context: int
    vocabulary: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor], layout: Layout = OURS) -> "ViltSizes":
        """Read the sizes of a state dict.

        Raises:
            UserError: a tensor of every ViLT is missing or has another number of dimensions.
        """
        with size_errors("ViLT"):
            tokens, conv, positions, text_positions = (
                state[layout.names_of(name)[0]].shape
                for name in ("token_embedding.weight", "conv1.weight", "positional_embedding",
                             "text_positional_embedding")
            )  # fmt: skip
            vocabulary, width = tokens
            _, _, patch, _ = conv
            grid = round((positions[-2] - 1) ** 0.5)
            return cls(width, layout.count_blocks(state), patch, grid, text_positions[0], vocabulary)

    @property
    def image_size(self) -> int:
        """Shorter side of an image in pixels."""
        return self.patch * self.grid

    @property
    def widths(self) -> dict[str, int]:
        """Channels of a token, by modality."""
        return {"image": self.width, "text": self.width}

    @property
    def towers(self) -> dict[str, int]:
        """Channels of a token, by tower; both modalities share one."""
        return {"joint": self.width}

    @property
    def depths(self) -> dict[str, int]:
        """Number of layers, by tower."""
        return {"joint": self.layers}

    @property
    def feature_width(self) -> int:
        """Channels of the pooled token."""
        return self.width


def vilt_layout(names: Mapping[str, Tensor]) -> Layout:
    """Return the layout of a file of ViLT tensors."""
    original = any(name.startswith(("text_embeddings.", "transformer.")) for name in names)
    return ORIGINAL if original else HUGGING_FACE


def stretch(positions: Tensor, length: int) -> Tensor:
    """Interpolate learned text positions (N, D) to (length, D) bilinearly, as MMP does."""
    if len(positions) == length:
        return positions
    size = (length, positions.shape[1])
    return interpolate(positions[None, None], size, mode="bilinear", align_corners=False)[0, 0]
