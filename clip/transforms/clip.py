"""CLIP's image transform with Pillow and torch, equal to OpenAI's."""

import numpy as np
from PIL import Image

from clip.transforms.base import Transform
from clip.utils.images import square


class ClipTransform(Transform):
    """Bicubic resize of the short side and centre crop; ``size`` is the side of the square result."""

    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)
    keeps_shape = False

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """Return the side of the square twice."""
        return self.size, self.size

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize and crop to (size, size, 3) uint8."""
        return square(image, self.size)
