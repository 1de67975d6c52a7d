"""Read checkpoints of the released DCP code (hulianyuyy/Deep_Correlated_Prompting).

Their keys are those of its ``CustomCLIP``, as they are or behind Lightning's ``model.``; the head is
``<task>_classifier``. All sizes are read from the tensors.
"""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.prompted_clip import PromptedCLIP, TwoTowerSettings
from clip.modules.prompts import named_settings
from clip.modules.prompts.dcp_ablations import DCPSettings
from clip.modules.prompts.released_queries import draw_queries
from clip.utils.errors import UserError

LEARNER = "prompt_learner."
CASE_NAMES = ("complete", "image", "text")  # the released names by what is left, in our order
BLOCK = "{}_encoder.transformer.resblocks.0"  # of a tower, where its dynamic prompts are made
HEAD = re.compile(r"(\w+)_classifier\.(weight|bias)")
SETTINGS = DCPSettings(formulas="released", dynamic_queries="fixed")
METHOD = {"backbone": "clip", "prompt_type": "dcp", "activation": "quick_gelu"}
METHOD |= named_settings("dcp", SETTINGS) | named_settings("clip", TwoTowerSettings())
METHOD |= {"unfreeze": ["ln_post", "ln_final", "image_proj"]}


def convert_dcp(state: dict[str, Tensor], seed: int) -> dict[str, Any]:
    """Convert a state dict of the released code's ``CustomCLIP``, with the head of one task.

    The dynamic queries ``...prompts_dynamic_{complete,image,text}``, which its files do not have, are used if present,
    and drawn again from the seed of the run if not. Return "state_dict" and "model_config" as in our checkpoints, and
    "released", the tensors of its backbone.
    """
    state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    rest = dict(state)
    try:
        clip = {"logit_scale": rest.pop("logit_scale")}
        for name in state:
            tower, separator, own = name.partition("_encoder.")
            if separator and "prompt" not in own:
                clip[f"visual.{own}" if tower == "image" else own] = rest.pop(name)
        depth = sum(f"{LEARNER}layernorm_image.{i}.weight" in state for i in range(len(state)))
        ours = {}
        for name, theirs in our_names(depth):
            rows = [rest.pop(row) for row in theirs]
            ours[name] = torch.stack(rows) if len(rows) > 1 else rows[0]
        heads = {match[2]: (match[1], rest.pop(name)) for name in state if (match := HEAD.fullmatch(name))}
        ours |= {f"classifier.{leaf}": heads[leaf][1] for leaf in ("weight", "bias")}
    except KeyError as missing:
        raise UserError(f"the tensor {missing} of the released code is missing; use the complete checkpoint") from None
    third = len(state[f"{LEARNER}visual_prompt_complete"])
    blocks = {tower: BLOCK.format(tower) for tower in ("image", "text")}
    names = {tower: [f"{block}.prompts_dynamic_{case}" for case in CASE_NAMES] for tower, block in blocks.items()}
    if all(name in rest for rows in names.values() for name in rows):
        queries = {tower: torch.stack([rest.pop(name).squeeze(1) for name in rows]) for tower, rows in names.items()}
    else:
        print(f"the released file has no dynamic queries: drawn again from seed={seed}")
        queries = draw_queries(ClipSizes.of(clip), third, seed)
    ours |= {f"prompts.dynamic.{tower}.queries": tensor for tower, tensor in queries.items()}
    if rest:
        raise UserError(f"{', '.join(list(rest)[:5])} are not tensors of the released code; pass another file")
    trained = PromptedCLIP.unfrozen(METHOD["unfreeze"])
    ours |= {name: tensor for name, tensor in state.items() if name.startswith(trained)}
    shape = {"prompt_length": 3 * third, "prompt_depth": depth, "task": heads["weight"][0]}
    return {"model_config": METHOD | shape, "state_dict": ours, "released": clip}


def our_names(depth: int) -> Iterator[tuple[str, list[str]]]:
    """Yield our name and the released names of every tensor of the prompts; several names are rows of our tensor."""
    for tower, theirs in (("image", "visual"), ("text", "text")):
        yield f"prompts.initial.{tower}", [f"{LEARNER}{theirs}_prompt_{case}" for case in ("complete", "missing")]
        tables = {f"prompts.projections.{tower}.{part}": f"common_prompt_projection_{tower}.{part}" for part in "02"}
        for i in range(depth):
            generator, projection = f"prompts.generators.{tower}.{i}", f"compound_prompt_projections_{tower}.{i}"
            tables[f"{generator}.0"] = f"layernorm_{tower}.{i}"
            tables |= {f"{generator}.1.{part}": f"{projection}.{part}" for part in "02"}
        for ours, name in tables.items():
            yield from ((f"{ours}.{leaf}", [f"{LEARNER}{name}.{leaf}"]) for leaf in ("weight", "bias"))
        for leaf in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"):
            yield f"prompts.dynamic.{tower}.attention.{leaf}", [f"{BLOCK.format(tower)}.attn_prompt.{leaf}"]
    yield "prompts.common", [f"{LEARNER}common_prompt_{case}" for case in CASE_NAMES]
