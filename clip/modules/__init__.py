"""The frozen towers, the prompt methods and what trains them."""

from clip.modules.model import build_model
from clip.modules.two_towers import PromptedCLIP

__all__ = ["PromptedCLIP", "build_model"]
