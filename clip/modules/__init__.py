"""The frozen towers, the prompt methods and what trains them."""

from clip.modules.model import PromptedCLIP, build_model

__all__ = ["PromptedCLIP", "build_model"]
