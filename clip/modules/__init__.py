"""The frozen towers, the prompt methods and what trains them."""

from clip.modules.factory import build_model
from clip.modules.prompted_clip import PromptedCLIP

__all__ = ["PromptedCLIP", "build_model"]
