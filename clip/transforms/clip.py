"""CLIP's image transform with Pillow and torch, equal to OpenAI's own."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip.transforms.base import Transform
from clip.utils.images import square

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipTransform(Transform):
    """Bicubic resize of the short side, centre crop, [0, 1], CLIP's mean and deviation.

    ``size`` is the side of the square result.
    """

    moments = MEAN, STD

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize and crop to (size, size, 3) uint8."""
        return square(image, self.size)

    def placeholder(self, measure: Callable[[], tuple[int, int] | None]) -> Tensor:
        """Give zeros, which nobody reads."""
        return torch.zeros(3, self.size, self.size, dtype=torch.uint8)
