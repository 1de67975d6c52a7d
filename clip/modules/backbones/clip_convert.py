"""Sizes of a CLIP, and its tensor names in OpenAI's code and Hugging Face transformers.

Inside the project a CLIP is a state dict under OpenAI's names, which open_clip uses too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clip.modules.backbones.layouts import Layout
from clip.modules.layers import HEAD_WIDTH
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer
from clip.utils.errors import UserError

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
# Files may hold these besides the weights; they follow from the sizes.
NOT_WEIGHTS = {"position_ids", "attn_mask", "input_resolution", "context_length", "vocab_size"}


@dataclass(frozen=True)
class ClipSizes:
    """Sizes of a CLIP with a vision transformer, read from its tensors."""

    image_width: int
    image_layers: int
    patch: int
    grid: int
    text_width: int
    text_layers: int
    context: int
    vocabulary: int
    embed_dim: int

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

    @property
    def image_size(self) -> int:
        """Side of the square image in pixels."""
        return self.patch * self.grid

    @property
    def widths(self) -> dict[str, int]:
        """Channels of a token, by modality."""
        return {"image": self.image_width, "text": self.text_width}

    @property
    def towers(self) -> dict[str, int]:
        """Channels of a token, by tower; each modality has its own."""
        return self.widths

    @property
    def depths(self) -> dict[str, int]:
        """Number of layers, by tower."""
        return {"image": self.image_layers, "text": self.text_layers}

    @property
    def feature_width(self) -> int:
        """Channels of the concatenated image and text features."""
        return 2 * self.embed_dim

    def image(self) -> dict[str, int]:
        """Return the arguments of ``VisionTransformer``."""
        shape = {"patch": self.patch, "grid": self.grid, "embed_dim": self.embed_dim}
        return {"width": self.image_width, "layers": self.image_layers} | shape

    def text(self) -> dict[str, int]:
        """Return the arguments of ``TextTransformer``."""
        shape = {"context": self.context, "vocabulary": self.vocabulary, "embed_dim": self.embed_dim}
        return {"width": self.text_width, "layers": self.text_layers} | shape


def convert_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate tensors named as by OpenAI, open_clip or transformers' ``CLIPModel`` to OpenAI's names and float32.

    Raises:
        UserError: they are not those of one complete CLIP.
    """
    state = {name: tensor for name, tensor in state.items() if name.split(".")[-1] not in NOT_WEIGHTS}
    layout = HUGGING_FACE if any(name.startswith(("text_model.", "vision_model.")) for name in state) else OPENAI
    sizes = ClipSizes.of(state, layout)
    for tower, width in sizes.widths.items():
        if width % HEAD_WIDTH:
            raise UserError(f"the {tower} tower is {width} wide; supported are multiples of {HEAD_WIDTH}")
    with torch.device("meta"):
        image = VisionTransformer(**sizes.image(), activation="gelu").state_dict()
        text = TextTransformer(**sizes.text(), activation="gelu").state_dict()
        blank = {f"visual.{name}": tensor for name, tensor in image.items()} | text | {"logit_scale": torch.empty(())}
    return layout.read(state, blank, "CLIP")


def tower_states(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a state dict into those of the image and the text tower; neither has ``logit_scale``."""
    image = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}
    text = {n: tensor for n, tensor in state.items() if not n.startswith("visual.") and n != "logit_scale"}
    return image, text
