"""Image transforms by backbone: name -> factory(image size) -> ``Transform``."""

from clip.transforms.base import Transform
from clip.transforms.clip import ClipTransform
from clip.transforms.vilt import ViltTransform

TRANSFORMS: dict[str, type[Transform]] = {"clip": ClipTransform, "coca": ClipTransform, "vilt": ViltTransform}

__all__ = ["TRANSFORMS", "ClipTransform", "Transform", "ViltTransform"]
