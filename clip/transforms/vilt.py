"""ViLT's image transform: the whole image, in its own shape."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip.transforms.base import Transform
from clip.utils.images import crop_extreme, to_rgb

HALF = (0.5, 0.5, 0.5)
LONGEST = 1333 / 800  # times the short side, the ratio of ViLT's code
MULTIPLE = 32  # of both sides: one patch of the published ViLT


class ViltTransform(Transform):
    """Bicubic resize, both sides rounded down to whole patches, mean and deviation 0.5.

    ``size`` is that of the short side; the long one is limited, and then the short one is smaller.
    """

    moments = HALF, HALF

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """Give width and height of the result for an image of this size."""
        scale = self.size / min(width, height)
        scale = min(scale, int(LONGEST * self.size) / max(width, height))
        rounded = (int(side * scale + 0.5) // MULTIPLE * MULTIPLE for side in (width, height))
        wide, high = (max(MULTIPLE, side) for side in rounded)
        return wide, high

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize to (H, W, 3) uint8."""
        image = crop_extreme(to_rgb(image))
        return np.asarray(image.resize(self.shape(*image.size), Image.Resampling.BICUBIC))

    def placeholder(self, measure: Callable[[], tuple[int, int] | None]) -> Tensor:
        """Give an image of the shape of the one that is taken away, a square if there is none."""
        wide, high = self.shape(*(measure() or (self.size, self.size)))
        return torch.zeros(3, high, wide, dtype=torch.uint8)
