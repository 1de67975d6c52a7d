"""The prompt methods, one file each, and the table that names them."""

from clip.modules.prompts.base import IMAGE, TEXT, CasePrompts, PromptMethod
from clip.modules.prompts.dcp import DeepCorrelatedPrompts
from clip.modules.prompts.none import NoPrompts

PROMPT_TYPES: dict[str, type[PromptMethod]] = {
    "dcp": DeepCorrelatedPrompts,
    "none": NoPrompts,
}

__all__ = ["IMAGE", "PROMPT_TYPES", "TEXT", "CasePrompts", "PromptMethod"]
