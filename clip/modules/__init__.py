"""Frozen backbones, prompt methods, tasks and the LightningModule."""

from clip.modules.factory import build_model
from clip.modules.prompted_clip import PromptedCLIP

__all__ = ["PromptedCLIP", "build_model"]
