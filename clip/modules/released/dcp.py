"""Reads checkpoints of the released DCP code (hulianyuyy/Deep_Correlated_Prompting).

Their keys are those of its ``CustomCLIP``, bare or behind Lightning's ``model.``; the head is
``<task>_classifier``. All sizes come from the tensors.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from clip.modules.adapter import load_adapter
from clip.modules.backbones.clip_convert import ClipSizes
from clip.modules.factory import build_model
from clip.modules.prompted_clip import PromptedCLIP
from clip.modules.prompts import named_settings, read_settings
from clip.modules.prompts.released_queries import draw_queries
from clip.modules.released.converted import ConvertedCheckpoint
from clip.utils.errors import UserError

LEARNER = "prompt_learner."
CASE_NAMES = ("complete", "image", "text")  # the released names by what is left, in our order
DYNAMIC = "{tower}_encoder.transformer.resblocks.0.prompts_dynamic_{case}"
ATTENTION = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
HEAD = re.compile(r"(\w+)_classifier\.(weight|bias)")
SETTINGS = {"formulas": "released", "dynamic_queries": "fixed"}
METHOD = {"backbone": "clip", "prompt_type": "dcp", "activation": "quick_gelu",
          **named_settings("dcp", read_settings("dcp", SETTINGS)),
          "unfreeze": ["ln_post", "ln_final", "image_proj"]}  # fmt: skip


def from_published(state: dict[str, Tensor], seed: int | None = None) -> PromptedCLIP:
    """Turn a state dict of the released code into our model, in eval mode.

    Args:
        state: of its ``CustomCLIP``, with the head of one task; the dynamic queries
            ``…prompts_dynamic_{complete,image,text}``, which its files lack, are used if present.
        seed: of the run; if the queries are absent they are drawn again from it.

    Raises:
        UserError: a tensor is missing, left over, or of a shape that does not fit the others.
    """
    released = convert_dcp(state, seed)
    shape = {key: released.model_config[key] for key in ("prompt_length", "prompt_depth")}
    classes = len(released.own["classifier.bias"])
    model = build_model(released.backbone, num_classes=classes, **shape, **SETTINGS)
    load_adapter(model, released.own, "this state dict")
    return model.eval()


def convert_dcp(state: dict[str, Tensor], seed: int | None) -> ConvertedCheckpoint:
    """Sort a state dict of the released code; arguments and errors as in ``from_published``."""
    state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    left = dict(state)
    try:
        clip = {name: left.pop(theirs) for name, theirs in clip_names(state)}
        depth = sum(f"{LEARNER}layernorm_image.{i}.weight" in state for i in range(len(state)))
        own = {name: _join(left, theirs) for name, theirs in our_names(depth)}
        heads = {m[2]: (m[1], left.pop(name)) for name in state if (m := HEAD.fullmatch(name))}
        own |= {f"classifier.{leaf}": heads[leaf][1] for leaf in ("weight", "bias")}
        third = len(state[f"{LEARNER}visual_prompt_complete"])
    except KeyError as absent:
        raise UserError(f"this state dict of the released code lacks {absent}") from None
    own |= _queries(left, ClipSizes.of(clip), third, seed)
    if left:
        raise UserError(f"the released code has no tensors {', '.join(list(left)[:5])}")
    trained = PromptedCLIP.unfrozen(METHOD["unfreeze"])
    own |= {name: tensor for name, tensor in state.items() if name.startswith(trained)}
    shape = {"prompt_length": 3 * third, "prompt_depth": depth}
    return ConvertedCheckpoint(clip, own, METHOD | shape | {"task": heads["weight"][0]})


def _queries(left: dict[str, Tensor], sizes: ClipSizes, length: int, seed: int | None) -> dict[str, Tensor]:
    names = {tower: [DYNAMIC.format(tower=tower, case=case) for case in CASE_NAMES]
             for tower in ("image", "text")}  # fmt: skip
    if all(name in left for of_tower in names.values() for name in of_tower):
        found = {tower: torch.stack([left.pop(name).squeeze(1) for name in of_tower])
                 for tower, of_tower in names.items()}  # fmt: skip
    elif seed is None:
        raise UserError("this state dict lacks the dynamic queries; give the seed of its run")
    else:
        print(f"the released file has no dynamic queries: drawn again from seed={seed}")
        found = draw_queries(sizes, length, seed)
    return {f"prompts.dynamic.{tower}.queries": queries for tower, queries in found.items()}


def clip_names(state: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """List OpenAI's name and the released name of every tensor that belongs to CLIP."""
    for name in state:
        if "attn_prompt" in name or "prompts_dynamic" in name:
            continue
        if name.startswith("image_encoder."):
            yield name.replace("image_encoder.", "visual.", 1), name
        elif name.startswith("text_encoder."):
            yield name.removeprefix("text_encoder."), name
        elif name == "logit_scale":
            yield name, name


def our_names(depth: int) -> Iterator[tuple[str, list[str]]]:
    """List our name and the released names of every tensor of the prompts.

    Several released names are rows of one tensor of ours.
    """
    for tower, theirs in (("image", "visual"), ("text", "text")):
        rows = [f"{LEARNER}{theirs}_prompt_{state}" for state in ("complete", "missing")]
        yield f"prompts.initial.{tower}", rows
        for i in range(depth):
            parts = {
                "0": f"layernorm_{tower}.{i}",
                "1.0": f"compound_prompt_projections_{tower}.{i}.0",
                "1.2": f"compound_prompt_projections_{tower}.{i}.2",
            }
            for ours, part in parts.items():
                for leaf in ("weight", "bias"):
                    yield (
                        f"prompts.generators.{tower}.{i}.{ours}.{leaf}",
                        [f"{LEARNER}{part}.{leaf}"],
                    )
        for leaf in ("0.weight", "0.bias", "2.weight", "2.bias"):
            yield (
                f"prompts.projections.{tower}.{leaf}",
                [f"{LEARNER}common_prompt_projection_{tower}.{leaf}"],
            )
        for leaf in ATTENTION:
            theirs_leaf = f"{tower}_encoder.transformer.resblocks.0.attn_prompt.{leaf}"
            yield f"prompts.dynamic.{tower}.attention.{leaf}", [theirs_leaf]
    yield "prompts.common", [f"{LEARNER}common_prompt_{case}" for case in CASE_NAMES]


def _join(left: dict[str, Tensor], names: list[str]) -> Tensor:
    tensors = [left.pop(name) for name in names]
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors)
