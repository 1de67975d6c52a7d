"""The prompt methods, one file each, and the table that names them."""

from dataclasses import asdict
from typing import Any

from clip.modules.prompts.base import (
    IMAGE,
    TEXT,
    CasePrompts,
    Frame,
    PromptMethod,
    check_choice,
    settings_of,
)
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
    return settings_of(prompt_type, PROMPT_TYPES[prompt_type].Settings, given)


def named_settings(owner: str, settings: Any) -> dict[str, Any]:
    """Name the settings of a method or backbone as a user types them, such as "dcp.formulas"."""
    return {f"{owner}.{key}": value for key, value in asdict(settings).items()}


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
