"""Sizes of a CLIP, and its tensor names in OpenAI's code and Hugging Face transformers.

Inside the project a CLIP is a state dict under OpenAI's names, which open_clip uses too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from clip.modules.backbones.layouts import Layout

OPENAI = Layout()
HUGGING_FACE = Layout(
    names={
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.": "vision_model.embeddings.patch_embedding.",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.ln_pre.": "vision_model.pre_layrnorm.",
        "visual.ln_post.": "vision_model.post_layernorm.",
        "visual.proj": "visual_projection.weight",
        "visual.transformer.resblocks.": "vision_model.encoder.layers.",
        "token_embedding.": "text_model.embeddings.token_embedding.",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.": "text_model.final_layer_norm.",
        "text_projection": "text_projection.weight",
        "transformer.resblocks.": "text_model.encoder.layers.",
        "ln_": "layer_norm",
        "attn.in_proj_": "self_attn.{part}_proj.",
        "attn.out_proj.": "self_attn.out_proj.",
        "mlp.c_fc.": "mlp.fc1.",
        "mlp.c_proj.": "mlp.fc2.",
    },
    parts=("q", "k", "v"),
    transposed=("visual.proj", "text_projection"),
)


@dataclass(frozen=True)
class ClipSizes:
    """Sizes of a CLIP with a vision transformer, read from its tensors."""

    image_width: int
    image_layers: int
    patch: int  # side in pixels
    grid: int  # patches along one side of the image
    text_width: int
    text_layers: int
    context: int  # text positions, 77 in every published CLIP
    vocabulary: int  # token ids; the last one ends a text
    embed_dim: int  # channels of a tower's feature

    @classmethod
    def of(cls, state: Mapping[str, Tensor], layout: Layout = OPENAI) -> "ClipSizes":
        """Read the sizes of a state dict; raise a UserError if it is not that of a CLIP."""
        image_width, _, patch, _ = layout.shape(state, "visual.conv1.weight", 4)
        positions, _ = layout.shape(state, "visual.positional_embedding", 2)
        vocabulary, text_width = layout.shape(state, "token_embedding.weight", 2)
        context, _ = layout.shape(state, "positional_embedding", 2)
        embed_dim = layout.shape(state, "text_projection", 2)[0 if layout.transposed else 1]
        image_layers, text_layers = (layout.count_blocks(state, root) for root in ("visual.", ""))
        grid = round((positions - 1) ** 0.5)
        return cls(image_width, image_layers, patch, grid, text_width, text_layers, context, vocabulary, embed_dim)

    image_size = property(lambda self: self.patch * self.grid)  # side of the square image in pixels
    # Channels of a token by modality, each of which has a tower of its own; layers by tower; channels of both features.
    widths = property(lambda self: {"image": self.image_width, "text": self.text_width})
    towers = widths
    depths = property(lambda self: {"image": self.image_layers, "text": self.text_layers})
    feature_width = property(lambda self: 2 * self.embed_dim)
