"""Reads checkpoints of the MMP release (YiLunLee/missing_aware_prompts), which is built on ViLT.

All sizes come from the tensors. Only the settings tell its two designs apart.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clip.modules.backbones.vilt_convert import from_layout
from clip.modules.released.converted import ConvertedCheckpoint
from clip.utils.errors import UserError

PROMPTS = ("complete_prompt", "missing_text_prompt", "missing_img_prompt")  # in the order of CASES
DESIGNS = {"input": "mmp", "attention": "mmp_attention"}
HEAD = re.compile(r"(\w+)_classifier\.(\d\.\w+)")
POOLER = ("pooler.weight", "pooler.bias")


def convert_mmp(state: dict[str, Tensor], settings: Mapping[str, Any]) -> ConvertedCheckpoint:
    """Sort a state dict of MMP's release.

    Args:
        state: of its ``ViLTransformerSS``, with the head of one task.
        settings: of its run, of which "prompt_type" is read; without it, its default is taken.

    Raises:
        UserError: a tensor is absent, or the design is unknown.
    """
    design = settings.get("prompt_type", "input")
    if design not in DESIGNS:
        raise UserError(f"prompt_type={design!r} is no design of MMP: {', '.join(DESIGNS)}")
    try:
        prompts = [state[name] for name in PROMPTS]
    except KeyError as absent:
        raise UserError(f"this state dict of MMP's release lacks {absent}") from None
    layers = torch.stack([p if p.ndim == 3 else p[None] for p in prompts], dim=1)
    heads = {m[2]: (m[1], state[name]) for name in state if (m := HEAD.fullmatch(name))}
    backbone = from_layout(state)
    own = {"prompts.layers.joint": layers}
    own |= {f"classifier.{leaf}": tensor for leaf, (_, tensor) in heads.items()}
    own |= {f"stream.{name}": backbone[name] for name in POOLER}
    depth, _, length, _ = layers.shape
    model_config = {
        "backbone": "vilt", "prompt_type": DESIGNS[design], "prompt_length": length,
        "prompt_depth": depth, "unfreeze": [], "activation": "gelu",
        "vilt.max_text_len": len(backbone["text_positional_embedding"]),
        "task": next(iter(heads.values()))[0] if heads else None,
    }  # fmt: skip
    return ConvertedCheckpoint(backbone, own, model_config)
