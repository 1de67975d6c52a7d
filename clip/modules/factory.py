"""The backbones by name, and how a model is built around one."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from clip.modules.prompted_clip import PromptedCLIP
from clip.modules.prompted_model import PromptedModel
from clip.modules.prompted_vilt import PromptedViLT
from clip.modules.prompts import PROMPT_TYPES, PromptConfig, read_settings
from clip.modules.prompts.base import Sizes, check_choice, settings_of
from clip.utils.errors import UserError

MODELS: dict[str, type[PromptedModel]] = {"clip": PromptedCLIP, "vilt": PromptedViLT}


def read_backbone_settings(backbone: str, given: Any) -> Any:
    """Make a backbone's own settings of the dict that the config holds under its name.

    Raises:
        UserError: no such backbone or setting, or a value that cannot be.
    """
    check_choice("backbone", backbone, MODELS)
    return settings_of(backbone, MODELS[backbone].Settings, given)


def init_model(
    sizes: Sizes,
    prompt_type: str = "dcp",
    num_classes: int = 23,
    prompt_length: int = 36,
    prompt_depth: int = 6,
    *,
    backbone_settings: Mapping[str, Any] = MappingProxyType({}),
    unfreeze: tuple[str, ...] | None = None,
    activation: str = "quick_gelu",
    seed: int = 0,
    **settings: object,
) -> PromptedModel:
    """Build a model around random weights; ``sizes`` tell its kind, for the rest see below."""
    own = read_settings(prompt_type, settings)
    backbone, model = next(row for row in MODELS.items() if isinstance(sizes, row[1].Sizes))
    options = read_backbone_settings(backbone, backbone_settings)
    if unknown := set(unfreeze or ()) - model.UNFREEZABLE.keys():
        parts = ", ".join(model.UNFREEZABLE)
        raise UserError(f"unfreeze={sorted(unknown)} is unknown; choose from {parts}")
    towers = model.build_towers(sizes, activation)
    frame = PromptConfig(sizes, prompt_length, prompt_depth, num_classes, seed)
    prompts = PROMPT_TYPES[prompt_type](frame, own)
    if unfreeze is None:  # a backbone need not have all that was unfrozen elsewhere
        unfreeze = tuple(part for part in prompts.unfreeze if part in model.UNFREEZABLE)
    return model(towers, prompts, num_classes, tuple(unfreeze), options)


def build_model(
    clip_state: dict[str, Tensor],
    prompt_type: str = "dcp",
    num_classes: int = 23,
    prompt_length: int = 36,
    prompt_depth: int = 6,
    *,
    backbone: str = "clip",
    **settings: Any,
) -> PromptedModel:
    """Build a model around the weights of a backbone, which stay frozen.

    Args:
        clip_state: its tensors, of CLIP under OpenAI's names, of ViLT under those of
            ``ViltTransformer``; all sizes are read from their shapes.
        prompt_type: a key of ``PROMPT_TYPES``.
        num_classes: outputs of the head.
        prompt_length: prompt tokens in all.
        prompt_depth: layers with fresh prompts.
        backbone: a key of ``MODELS``.
        settings: ``backbone_settings``, the fields of the backbone's ``Settings``; ``unfreeze``, parts
            of the backbone that train too, None for what the method was published with;
            ``activation``, the backbone's non-linearity, "quick_gelu" or "gelu"; ``seed`` of the
            run, for what a method draws apart from its initial weights; and the method's own, the
            fields of its ``Settings``.

    Raises:
        UserError: an unknown name, or prompts that do not fit this backbone.
    """
    check_choice("backbone", backbone, MODELS)
    sizes = MODELS[backbone].Sizes.of(clip_state)
    shape = prompt_type, num_classes, prompt_length, prompt_depth
    model = init_model(sizes, *shape, **settings)
    for name, part in model.tower_states(clip_state).items():
        model.get_submodule(name).load_state_dict(part)
    return model
