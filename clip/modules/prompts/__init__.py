"""The prompt methods, one file each, and the table that names them."""

from dataclasses import asdict
from typing import Any

from clip.modules.prompts.base import (
    IMAGE,
    TEXT,
    CasePrompts,
    PromptConfig,
    PromptMethod,
    check_choice,
    settings_of,
)
from clip.modules.prompts.coop import CoOp
from clip.modules.prompts.dcp import DCP
from clip.modules.prompts.dept import DePT
from clip.modules.prompts.finetune import FineTuning
from clip.modules.prompts.maple import MaPLe
from clip.modules.prompts.mmp import MMP
from clip.modules.prompts.mmp_attention import MMPAttention
from clip.modules.prompts.none import LinearProbe

PROMPT_TYPES: dict[str, type[PromptMethod]] = {
    "dcp": DCP,
    "none": LinearProbe,
    "coop": CoOp,
    "mmp": MMP,
    "mmp_attention": MMPAttention,
    "maple": MaPLe,
    "dept": DePT,
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
    "PromptConfig",
    "PromptMethod",
    "named_settings",
    "read_settings",
]
