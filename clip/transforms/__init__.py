"""Image transforms by name: name -> factory(image size) -> callable(PIL image) -> tensor."""

from clip.transforms.clip_transform import ClipTransform

TRANSFORMS = {"clip": ClipTransform}

__all__ = ["TRANSFORMS", "ClipTransform"]
