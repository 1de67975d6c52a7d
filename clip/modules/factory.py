"""Build a prompted model around a backbone, from the registry of model classes."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clip.modules.prompted_clip import PromptedCLIP
from clip.modules.prompted_coca import PromptedCoCa
from clip.modules.prompted_model import PromptedModel
from clip.modules.prompted_vilt import PromptedViLT
from clip.modules.prompts import PROMPT_TYPES, PromptConfig, validate
from clip.modules.prompts.base import Sizes
from clip.utils.errors import UserError

MODELS: dict[str, type[PromptedModel]] = {"clip": PromptedCLIP, "coca": PromptedCoCa, "vilt": PromptedViLT}


def init_model(
    sizes: Sizes,
    prompt_type: str = "dcp",
    num_classes: int = 23,
    prompt_length: int = 36,
    prompt_depth: int = 6,
    *,
    backbone_settings: Mapping[str, Any] | None = None,
    unfreeze: tuple[str, ...] | None = None,
    activation: str = "quick_gelu",
    seed: int = 0,
    **settings: Any,
) -> PromptedModel:
    """Build a model with random weights; raise a UserError for settings or prompts that do not fit.

    Args:
        sizes: sizes of the backbone; their class decides which backbone it is.
        prompt_type: a key of ``PROMPT_TYPES``.
        num_classes: outputs of the head.
        prompt_length: prompt tokens in all.
        prompt_depth: layers with fresh prompts.
        backbone_settings: fields of the backbone's ``Settings``.
        unfreeze: parts of the backbone that train too; None for those that the method was published with.
        activation: activation of the backbone, "quick_gelu" or "gelu".
        seed: seed of the run, for what a method draws apart from its initial weights.
        settings: fields of the method's ``Settings``.
    """
    backbone, model = next(row for row in MODELS.items() if type(sizes) is row[1].Sizes)
    if unknown := set(unfreeze or ()) - model.UNFREEZABLE.keys():
        raise UserError(f"unfreeze={sorted(unknown)} is unknown; choose from {', '.join(model.UNFREEZABLE)}")
    method, config = PROMPT_TYPES[prompt_type], PromptConfig(sizes, prompt_length, prompt_depth, num_classes, seed)
    method_settings = validate(prompt_type, method.Settings, settings)
    classes = method.tower_classes(model.TOWERS, config, method_settings)
    towers = {name: tower(sizes, activation) for name, tower in classes.items()}
    prompts = method.build(config, method_settings)
    if unfreeze is None:  # a backbone need not have all parts that were unfrozen elsewhere
        unfreeze = tuple(part for part in prompts.unfreeze if part in model.UNFREEZABLE)
    own_settings = validate(backbone, model.Settings, backbone_settings or {})
    return model(towers, prompts, num_classes, tuple(unfreeze), own_settings)


def build_model(state: dict[str, Tensor], *args: Any, backbone: str = "clip", **kwargs: Any) -> PromptedModel:
    """Build a model around the weights of a backbone, which stay frozen; the rest is as in ``init_model``.

    All sizes are read from the weights, which have OpenAI's names for CLIP and those of ``ViltTransformer`` for ViLT.
    """
    model = init_model(MODELS[backbone].Sizes.of(state), *args, **kwargs)
    for name, tensors in model.tower_states(state).items():
        model.get_submodule(name).load_state_dict(tensors)
    model.prompts.init_projections(model.attentions())
    return model
