"""The prompt methods, one file each, and the table that names them."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from clip.errors import UserError
from clip.modules.prompts.base import IMAGE, TEXT, CasePrompts, Frame, PromptMethod, check_choice
from clip.modules.prompts.coop import ContextPrompts
from clip.modules.prompts.dcp import DeepCorrelatedPrompts
from clip.modules.prompts.dept import DecoupledPrompts
from clip.modules.prompts.finetune import FineTuning
from clip.modules.prompts.maple import CoupledPrompts
from clip.modules.prompts.mmp import MissingAwarePrompts
from clip.modules.prompts.mmp_attention import MissingAwarePrefixes
from clip.modules.prompts.none import NoPrompts

PROMPT_TYPES: dict[str, type[PromptMethod]] = {
    "dcp": DeepCorrelatedPrompts,
    "none": NoPrompts,
    "coop": ContextPrompts,
    "mmp": MissingAwarePrompts,
    "mmp_attention": MissingAwarePrefixes,
    "maple": CoupledPrompts,
    "dept": DecoupledPrompts,
    "finetune": FineTuning,
}


def read_settings(prompt_type: str, given: Any) -> Any:
    """Make a method's own settings of the dict that the config holds under its name.

    Raises:
        UserError: no such method or setting, or a value that cannot be.
    """
    check_choice("prompt_type", prompt_type, PROMPT_TYPES)
    settings = PROMPT_TYPES[prompt_type].Settings
    known = [field.name for field in fields(settings)]
    if not isinstance(given, Mapping):
        example = f"one by one, such as {prompt_type}.{known[0]}=" if known else "nowhere"
        raise UserError(f"{prompt_type}={given!r} is not valid; give its settings {example}")
    for key in given:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"{prompt_type}.{key} is no setting of {prompt_type}; {has}")
    return settings(**given)


def named_settings(prompt_type: str, settings: Any) -> dict[str, Any]:
    """Name a method's own settings as a user types them, such as "dcp.formulas"."""
    return {f"{prompt_type}.{key}": value for key, value in asdict(settings).items()}


__all__ = [
    "IMAGE",
    "PROMPT_TYPES",
    "TEXT",
    "CasePrompts",
    "Frame",
    "PromptMethod",
    "named_settings",
    "read_settings",
]
