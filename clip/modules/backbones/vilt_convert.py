"""Sizes of a ViLT and its tensor names at Hugging Face and in the original code.

Inside the project a ViLT is a state dict under the names of ``prompted_vilt.ViltTransformer``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import interpolate

from clip.modules.backbones.layouts import Layout

TEXT = {
    "token_embedding.": "text_embeddings.word_embeddings.",
    "text_positional_embedding": "text_embeddings.position_embeddings.weight",
    "segment_embedding": "text_embeddings.token_type_embeddings.weight",
    "ln_text.": "text_embeddings.LayerNorm.",
    "pooler.": "pooler.dense.",
}
LEADING = {"class_embedding": 2, "positional_embedding": 1}
OURS = Layout()
HUGGING_FACE = Layout(  # ViltModel
    names=TEXT
    | {
        "text_embeddings.": "embeddings.text_embeddings.",
        "conv1.": "embeddings.patch_embeddings.projection.",
        "class_embedding": "embeddings.cls_token",
        "positional_embedding": "embeddings.position_embeddings",
        "type_embedding": "embeddings.token_type_embeddings.weight",
        "ln_final.": "layernorm.",
        "transformer.resblocks.": "encoder.layer.",
        "ln_1.": "layernorm_before.",
        "attn.in_proj_": "attention.attention.{part}.",
        "attn.out_proj.": "attention.output.dense.",
        "ln_2.": "layernorm_after.",
        "mlp.c_fc.": "intermediate.dense.",
        "mlp.c_proj.": "output.dense.",
    },
    parts=("query", "key", "value"),
    leading=LEADING,
)
ORIGINAL = Layout(  # the ViLT code, and MMP's release
    names=TEXT
    | {
        "conv1.": "transformer.patch_embed.proj.",
        "class_embedding": "transformer.cls_token",
        "positional_embedding": "transformer.pos_embed",
        "type_embedding": "token_type_embeddings.weight",
        "ln_final.": "transformer.norm.",
        "transformer.resblocks.": "transformer.blocks.",
        "ln_": "norm",
        "attn.in_proj_": "attn.qkv.",
        "attn.out_proj.": "attn.proj.",
        "mlp.c_fc.": "mlp.fc1.",
        "mlp.c_proj.": "mlp.fc2.",
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
        """Read the sizes of a state dict; raise a UserError if it is not that of a ViLT."""
        vocabulary, width = layout.shape(state, "token_embedding.weight", 2)
        patch = layout.shape(state, "conv1.weight", 4)[2]
        grid = round((layout.shape(state, "positional_embedding", 2)[-2] - 1) ** 0.5)
        context, _ = layout.shape(state, "text_positional_embedding", 2)
        return cls(width, layout.count_blocks(state), patch, grid, context, vocabulary)

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


def stretch(positions: Tensor, length: int) -> Tensor:
    """Interpolate learned text positions (N, D) to (length, D) bilinearly, as MMP does."""
    if len(positions) == length:
        return positions
    size = (length, positions.shape[1])
    return interpolate(positions[None, None], size, mode="bilinear", align_corners=False)[0, 0]
