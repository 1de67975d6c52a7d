"""Prompt methods, one file each, and their registry."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from clip.modules.prompts.base import IMAGE, TEXT, CasePrompts, PromptConfig, PromptMethod, TowerInput
from clip.modules.prompts.on_top.dept import DePT
from clip.modules.prompts.on_top.dpl import DPL
from clip.modules.prompts.registry import METHODS
from clip.utils.settings import Settings, user_error

PROMPT_TYPES: dict[str, type[PromptMethod]] = {**METHODS, "dept": DePT, "dpl": DPL}


def validate(owner: str, settings: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Validate the settings of a method or backbone; raise UserError with names such as "dcp.formulas"."""
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        raise user_error(error, f"{owner}.") from None


def named_settings(owner: str, settings: Settings) -> dict[str, Any]:
    """Name the settings of a method or backbone as a user types them, such as "dcp.formulas"."""
    return {f"{owner}.{key}": value for key, value in settings.model_dump().items()}


__all__ = [
    "IMAGE",
    "PROMPT_TYPES",
    "TEXT",
    "CasePrompts",
    "PromptConfig",
    "PromptMethod",
    "TowerInput",
    "named_settings",
    "validate",
]
