"""Read checkpoints of the MMP release (YiLunLee/missing_aware_prompts), which is built on ViLT.

All sizes are read from the tensors. Only the settings tell its two designs apart.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clip.modules.backbones.vilt import convert_vilt
from clip.utils.errors import UserError

PROMPTS = ("complete_prompt", "missing_text_prompt", "missing_img_prompt")  # in the order of CASES
DESIGNS = {"input": "mmp", "attention": "mmp_attention"}
HEAD = re.compile(r"(\w+)_classifier\.(\d\.\w+)")


def convert_mmp(state: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a state dict of MMP's ``ViLTransformerSS``, with the head of one task, as ``convert_dcp`` does.

    Of the settings of its run, ``config``, only "prompt_type" is used ("input" by default). Raise a UserError if a
    tensor is missing or the design is unknown.
    """
    design = config.get("prompt_type", "input")
    if design not in DESIGNS:
        raise UserError(f"prompt_type={design!r} is not a design of MMP; known: {', '.join(DESIGNS)}")
    if missing := [name for name in PROMPTS if name not in state]:
        raise UserError(f"the tensor {missing[0]!r} of MMP's release is missing; use the complete checkpoint")
    prompts = torch.stack([state[name] if state[name].ndim == 3 else state[name][None] for name in PROMPTS], dim=1)
    heads = {match[2]: (match[1], state[name]) for name in state if (match := HEAD.fullmatch(name))}
    backbone = convert_vilt(state)
    ours = {"prompts.layers.joint": prompts}
    ours |= {f"classifier.{leaf}": tensor for leaf, (_, tensor) in heads.items()}
    ours |= {f"stream.{name}": backbone[name] for name in ("pooler.weight", "pooler.bias")}
    task = next(iter(heads.values()))[0] if heads else None
    model_config = {"task": task, "backbone": "vilt", "unfreeze": [], "activation": "gelu"}
    model_config |= {"prompt_type": DESIGNS[design], "prompt_length": prompts.shape[2], "prompt_depth": len(prompts)}
    model_config["vilt.max_text_len"] = len(backbone["text_positional_embedding"])
    return {"model_config": model_config, "state_dict": ours, "released": backbone}
