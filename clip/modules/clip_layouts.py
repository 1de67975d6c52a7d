"""The sizes of a CLIP and the names of its tensors, in OpenAI's layout and Hugging Face's.

A leaf but for the error class. Inside the project a CLIP is a dict of tensors under OpenAI's names.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from clip.errors import UserError

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
    def of(cls, state: dict[str, Tensor]) -> "ClipSizes":
        """Read the sizes of a state dict under OpenAI's names.

        Raises:
            UserError: a tensor that every CLIP with a ViT has is absent.
        """
        try:
            image_width, _, patch, _ = state["visual.conv1.weight"].shape
            patches = state["visual.positional_embedding"].shape[0] - 1
            vocabulary, text_width = state["token_embedding.weight"].shape
            context = state["positional_embedding"].shape[0]
            embed_dim = state["text_projection"].shape[1]
        except KeyError as absent:
            raise UserError(
                f"these weights have no tensor {absent}; give a CLIP with a vision transformer"
            ) from None
        layers = [
            1 + max((int(m[1]) for m in map(re.compile(pattern).match, state) if m), default=-1)
            for pattern in (
                r"visual\.transformer\.resblocks\.(\d+)\.",
                r"transformer\.resblocks\.(\d+)\.",
            )  # fmt: skip
        ]
        return cls(image_width, layers[0], patch, round(patches**0.5), text_width, layers[1],
                   context, vocabulary, embed_dim)  # fmt: skip

    @property
    def image_size(self) -> int:
        """Side of the square image in pixels."""
        return self.patch * self.grid

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


def from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate a state dict of ``CLIPModel`` to OpenAI's names.

    Raises:
        UserError: tensors are missing or belong to something else, listed by name.
    """
    state = {k: v for k, v in state.items() if not k.endswith("position_ids")}
    left = dict(state)
    out = {}
    for name in openai_names(state):
        target = hugging_face_name(name)
        if ".in_proj_" in target:
            parts = [left.pop(target.replace("in_proj_", f"{p}_proj."), None) for p in "qkv"]
            whole = None if any(p is None for p in parts) else torch.cat(parts)
        else:
            whole = left.pop(target, None)
        if whole is None:
            raise UserError(f"these weights lack {target}; give a complete CLIPModel")
        out[name] = whole.T.contiguous() if name in TRANSPOSED else whole
    if left:
        raise UserError(f"these weights hold tensors that no CLIP has: {', '.join(list(left)[:5])}")
    return {name: tensor.float() for name, tensor in out.items()}


def openai_names(hugging_face: dict[str, Tensor]) -> list[str]:
    """List OpenAI's names of a CLIP with as many layers as this state dict of ``CLIPModel``."""
    names = ["logit_scale", "visual.class_embedding", "visual.positional_embedding",
             "visual.conv1.weight", "visual.proj", "positional_embedding",
             "token_embedding.weight", "text_projection"]  # fmt: skip
    norms = ["visual.ln_pre", "visual.ln_post", "ln_final"]
    for ours, theirs in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        found = re.compile(rf"{theirs}\.encoder\.layers\.(\d+)\.").match
        for layer in sorted({int(m[1]) for m in map(found, hugging_face) if m}):
            block = f"{ours}.resblocks.{layer}"
            names += [f"{block}.attn.in_proj_weight", f"{block}.attn.in_proj_bias"]
            norms += [f"{block}.{part}" for part in
                      ("attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")]  # fmt: skip
    return names + [f"{norm}.{leaf}" for norm in norms for leaf in ("weight", "bias")]
