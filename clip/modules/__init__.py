"""Frozen backbones, prompt methods, tasks and the LightningModule."""

from clip.modules.factory import build_model

__all__ = ["build_model"]
