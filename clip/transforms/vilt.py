"""ViLT's image transform, which keeps the aspect ratio."""

import numpy as np
from PIL import Image

from clip.transforms.base import Transform
from clip.utils.images import crop_extreme, to_rgb

MAX_ASPECT = 1333 / 800  # long side over short side, from ViLT's code
MULTIPLE = 32  # of both sides: one patch of the published ViLT


class ViltTransform(Transform):
    """Bicubic resize, with both sides rounded down to complete patches.

    ``size`` is the short side; the long side is limited, and the short side becomes smaller where that limit applies.
    """

    mean = std = (0.5, 0.5, 0.5)
    keeps_shape = True

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the result for an image of this size."""
        scale = self.size / min(width, height)
        scale = min(scale, int(MAX_ASPECT * self.size) / max(width, height))
        wide, high = (max(MULTIPLE, int(side * scale + 0.5) // MULTIPLE * MULTIPLE) for side in (width, height))
        return wide, high

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize to (H, W, 3) uint8."""
        image = crop_extreme(to_rgb(image))
        return np.asarray(image.resize(self.shape(*image.size), Image.Resampling.BICUBIC))
