"""Sizes of a ViLT, and its tensor names in Hugging Face transformers and in the original code.

This project uses the names of ``prompted_vilt.ViltTransformer``.
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
NAMES = {  # ours, or those of TEXT -> (transformers' ViltModel, the original code and MMP's release)
    "text_embeddings.": ("embeddings.text_embeddings.", "text_embeddings."),
    "conv1.": ("embeddings.patch_embeddings.projection.", "transformer.patch_embed.proj."),
    "class_embedding": ("embeddings.cls_token", "transformer.cls_token"),
    "positional_embedding": ("embeddings.position_embeddings", "transformer.pos_embed"),
    "type_embedding": ("embeddings.token_type_embeddings.weight", "token_type_embeddings.weight"),
    "ln_final.": ("layernorm.", "transformer.norm."),
    "transformer.resblocks.": ("encoder.layer.", "transformer.blocks."),
    "ln_1.": ("layernorm_before.", "norm1."),
    "attn.in_proj_": ("attention.attention.{part}.", "attn.qkv."),
    "attn.out_proj.": ("attention.output.dense.", "attn.proj."),
    "ln_2.": ("layernorm_after.", "norm2."),
    "mlp.c_fc.": ("intermediate.dense.", "mlp.fc1."),
    "mlp.c_proj.": ("output.dense.", "mlp.fc2."),
}
OURS = Layout()
HUGGING_FACE, ORIGINAL = (
    Layout(
        names=TEXT | {ours: theirs[column] for ours, theirs in NAMES.items()},
        parts=("query", "key", "value"),
        leading={"class_embedding": 2, "positional_embedding": 1},
    )
    for column in range(2)
)


@dataclass(frozen=True)
class ViltSizes:
    """Sizes of a ViLT, read from its tensors."""

    width: int
    layers: int
    patch: int  # side in pixels
    grid: int  # patches along the shorter side of an image
    context: int  # text positions
    vocabulary: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor], layout: Layout = OURS) -> "ViltSizes":
        """Read the sizes of a state dict; raise UserError if it is not that of a ViLT."""
        vocabulary, width = layout.shape(state, "token_embedding.weight", 2)
        patch = layout.shape(state, "conv1.weight", 4)[2]
        grid = round((layout.shape(state, "positional_embedding", 2)[-2] - 1) ** 0.5)
        context, _ = layout.shape(state, "text_positional_embedding", 2)
        return cls(width, layout.count_blocks(state), patch, grid, context, vocabulary)

    image_size = property(lambda self: self.patch * self.grid)  # shorter side of an image in pixels
    # Channels of a token by modality and by tower, which both modalities share; layers; channels of the pooled token.
    widths = property(lambda self: {"image": self.width, "text": self.width})
    towers = property(lambda self: {"joint": self.width})
    depths = property(lambda self: {"joint": self.layers})
    feature_width = property(lambda self: self.width)


def stretch(positions: Tensor, length: int) -> Tensor:
    """Interpolate learned text positions (N, D) to (length, D) bilinearly, as MMP does."""
    if len(positions) == length:
        return positions
    size = (length, positions.shape[1])
    return interpolate(positions[None, None], size, mode="bilinear", align_corners=False)[0, 0]
