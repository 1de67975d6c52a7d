"""Reads state dicts of the released DCP code (hulianyuyy/Deep_Correlated_Prompting).

Their keys are those of its ``CustomCLIP``, bare or behind Lightning's ``model.``; the head is
``<task>_classifier``. All sizes come from the tensors.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from clip.errors import UserError
from clip.modules.model import PromptedCLIP, build_model

LEARNER = "prompt_learner."
CASE_NAMES = ("complete", "image", "text")  # the released names by what is left, in our order
DYNAMIC = "{tower}_encoder.transformer.resblocks.0.prompts_dynamic_{case}"
ATTENTION = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
HEAD = re.compile(r"\w+_classifier\.(weight|bias)")


def from_published(state: dict[str, Tensor]) -> PromptedCLIP:
    """Turn a state dict of the released code into our model, in eval mode.

    Args:
        state: of its ``CustomCLIP``, with the head of one task; the dynamic queries
            ``…prompts_dynamic_{complete,image,text}``, which its files lack, are used if present.

    Raises:
        UserError: a tensor is missing, left over, or of a shape that does not fit the others.
    """
    state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    left = dict(state)
    try:
        clip_state = {name: left.pop(theirs) for name, theirs in clip_names(state)}
        depth = sum(f"{LEARNER}layernorm_image.{i}.weight" in state for i in range(len(state)))
        ours = {name: _join(left, theirs) for name, theirs in our_names(depth)}
        heads = {m[1]: left.pop(name) for name in state if (m := HEAD.fullmatch(name))}
        ours |= {f"classifier.{leaf}": heads[leaf] for leaf in ("weight", "bias")}
    except KeyError as absent:
        raise UserError(f"this state dict of the released code lacks {absent}") from None
    for tower in ("image", "text"):
        names = [DYNAMIC.format(tower=tower, case=case) for case in CASE_NAMES]
        if all(name in left for name in names):
            ours[f"prompts.dynamic.{tower}.queries"] = torch.cat(
                [left.pop(name).transpose(0, 1) for name in names]
            )
    if left:
        raise UserError(f"the released code has no tensors {', '.join(list(left)[:5])}")
    third = len(state[f"{LEARNER}visual_prompt_complete"])
    model = build_model(
        clip_state, "dcp", len(ours["classifier.bias"]), prompt_length=3 * third, prompt_depth=depth
    )
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in ours.items():
            if parameters[name].shape != tensor.shape:
                raise UserError(
                    f"{name} is {tuple(tensor.shape)} in the released file and "
                    f"{tuple(parameters[name].shape)} in the model"
                )
            parameters[name].copy_(tensor)
    return model.eval()


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
