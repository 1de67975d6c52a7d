"""Base class of the image transforms."""

from functools import cache

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor


class Transform:
    """Image transform of a backbone, in two halves; ``size`` is in pixels, as the subclass defines it.

    Calling it returns bytes, a quarter of the memory on their way to the device, where ``normalize`` does the
    arithmetic.
    """

    mean: tuple[float, ...]  # of each channel, likewise ``std``
    std: tuple[float, ...]
    keeps_shape: bool  # whether the shape of the result depends on the image

    def __init__(self, size: int):
        self.size = size

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the result for an image of this size."""
        raise NotImplementedError

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize a Pillow image of any mode to (H, W, 3) uint8."""
        raise NotImplementedError

    def placeholder(self, image_size: tuple[int, int] | None = None) -> Tensor:
        """Return zeros for a missing image of this width and height, or of none, (3, H, W) uint8."""
        width, height = self.shape(*(image_size or (self.size, self.size)))
        return torch.zeros(3, height, width, dtype=torch.uint8)

    def __call__(self, image: Image.Image) -> Tensor:
        """Transform a Pillow image of any mode to (3, H, W) uint8."""
        return rearrange(torch.from_numpy(self.pixels(image).copy()), "h w c -> c h w")

    @classmethod
    def normalize(cls, pixels: Tensor) -> Tensor:
        """Normalize pixels (..., 3, H, W) from 0..255 to the input of the backbone, on any device."""
        return (pixels.float() / 255 - _per_channel(cls.mean, pixels.device)) / _per_channel(cls.std, pixels.device)


@cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return values as (3, 1, 1), copied to a device once."""
    return torch.tensor(values, device=device)[:, None, None]
