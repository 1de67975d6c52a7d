"""Image transforms by backbone: name -> factory(image size) -> ``Transform``."""

from clip.transforms.clip_transform import ClipTransform
from clip.transforms.transform import Transform
from clip.transforms.vilt_transform import ViltTransform

TRANSFORMS: dict[str, type[Transform]] = {"clip": ClipTransform, "vilt": ViltTransform}

__all__ = ["TRANSFORMS", "ClipTransform", "Transform", "ViltTransform"]
