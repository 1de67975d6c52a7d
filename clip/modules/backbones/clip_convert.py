"""The sizes of a CLIP and the names of its tensors, in OpenAI's layout and Hugging Face's.

A leaf but for the error class. Inside the project a CLIP is a dict of tensors under OpenAI's names.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from clip.utils.errors import UserError

TEXT_ROOTS = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.",
              "text_projection")  # fmt: skip

RENAMES = (  # OpenAI -> Hugging Face, in this order; (image tower, text tower) share the blocks
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"(layers\.\d+)\.attn\.", r"\1.self_attn."),
    (r"(layers\.\d+)\.ln_", r"\1.layer_norm"),
    (r"(layers\.\d+)\.mlp\.c_fc\.", r"\1.mlp.fc1."),
    (r"(layers\.\d+)\.mlp\.c_proj\.", r"\1.mlp.fc2."),
)
TRANSPOSED = ("visual.proj", "text_projection")  # a matrix at OpenAI's, a Linear at Hugging Face's


@dataclass(frozen=True)
class ClipSizes:
    """The sizes of a CLIP, read from its tensors."""

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
    def of(cls, state: dict[str, Tensor], rename: Callable[[str], str] = str) -> "ClipSizes":
        """Read the sizes of a state dict.

        Args:
            state: under OpenAI's names, or under others.
            rename: OpenAI's name, or the beginning of one -> the name in ``state``.

        Raises:
            UserError: a tensor that every CLIP with a ViT has is absent or has other dimensions.
        """
        try:
            image_width, _, patch, _ = state[rename("visual.conv1.weight")].shape
            positions, _ = state[rename("visual.positional_embedding")].shape
            vocabulary, text_width = state[rename("token_embedding.weight")].shape
            context, _ = state[rename("positional_embedding")].shape
            projection = state[rename("text_projection")]
            if 0 in (image_width, patch, positions, text_width):
                raise ValueError("one of them is empty")
        except KeyError as absent:
            raise UserError(f"no tensor {absent}; give a whole CLIP, a vision transformer and its text tower") from None
        except ValueError as error:
            raise UserError(f"its tensors are not those of a CLIP: {error}") from None
        layers = []
        for root in ("visual.", ""):
            blocks = re.compile(re.escape(rename(f"{root}transformer.resblocks.")) + r"(\d{1,9})\.")
            # At least one, so that a file without blocks is told which ones it lacks.
            layers.append(1 + max((int(m[1]) for m in map(blocks.match, state) if m), default=0))
        if max(layers) > len(state):
            raise UserError(f"it names {max(layers)} blocks and has {len(state)} tensors in all")
        return cls(image_width, layers[0], patch, round((positions - 1) ** 0.5), text_width,
                   layers[1], context, vocabulary, projection.numel() // text_width)  # fmt: skip

    @property
    def image_size(self) -> int:
        """Side of the square image in pixels."""
        return self.patch * self.grid

    @property
    def widths(self) -> dict[str, int]:
        """Channels of a token, by modality; each has a tower of its own."""
        return {"image": self.image_width, "text": self.text_width}

    @property
    def towers(self) -> dict[str, int]:
        """Channels of a token, by tower."""
        return self.widths

    @property
    def depths(self) -> dict[str, int]:
        """Layers, by tower."""
        return {"image": self.image_layers, "text": self.text_layers}

    @property
    def feature_width(self) -> int:
        """Channels of both features side by side."""
        return 2 * self.embed_dim

    def image(self) -> dict[str, int]:
        """Give the arguments of ``VisionTransformer``."""
        return {"width": self.image_width, "layers": self.image_layers, "patch": self.patch,
                "grid": self.grid, "embed_dim": self.embed_dim}  # fmt: skip

    def text(self) -> dict[str, int]:
        """Give the arguments of ``TextTransformer``."""
        return {"width": self.text_width, "layers": self.text_layers, "context": self.context,
                "vocabulary": self.vocabulary, "embed_dim": self.embed_dim}  # fmt: skip


def tower_states(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a state dict into the two towers' own; ``logit_scale`` belongs to neither."""
    image = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    text = {k: v for k, v in state.items() if k.startswith(TEXT_ROOTS)}
    return image, text


def hugging_face_name(name: str) -> str:
    """Translate one of OpenAI's tensor names."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def to_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate a state dict from OpenAI's names to those of ``CLIPModel``."""
    out = {}
    for name, tensor in state.items():
        target = hugging_face_name(name)
        if ".in_proj_" in target:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                out[target.replace("in_proj_", f"{part}_proj.")] = piece.contiguous()
        else:
            out[target] = (tensor.T if name in TRANSPOSED else tensor).contiguous()
    return out


def from_hugging_face(state: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Translate a complete state dict of ``CLIPModel`` to OpenAI's names, which are given."""
    out = {}
    for name in names:
        target = hugging_face_name(name)
        if ".in_proj_" in target:
            out[name] = torch.cat([state[target.replace("in_proj_", f"{p}_proj.")] for p in "qkv"])
        else:
            tensor = state[target]
            out[name] = tensor.T.contiguous() if name in TRANSPOSED else tensor
    return out


@dataclass(frozen=True)
class Layout:
    """How one family of files names the tensors of a CLIP.

    Attributes:
        rename: OpenAI's name -> the name there.
        write: a state dict under OpenAI's names -> one in this layout.
        read: a complete state dict in this layout and OpenAI's names -> one under those names.
    """

    rename: Callable[[str], str]
    write: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    read: Callable[[dict[str, Tensor], Iterable[str]], dict[str, Tensor]]


OPENAI = Layout(str, dict, lambda state, names: {name: state[name] for name in names})
HUGGING_FACE = Layout(hugging_face_name, to_hugging_face, from_hugging_face)
LAYOUTS = {"text_model.": HUGGING_FACE, "vision_model.": HUGGING_FACE}  # by a name's beginning


def layout_of(state: dict[str, Tensor]) -> Layout:
    """Tell the layout of a state dict; OpenAI's if its names are of no other."""
    return next((LAYOUTS[mark] for mark in LAYOUTS for n in state if n.startswith(mark)), OPENAI)
