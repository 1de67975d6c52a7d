"""What all image transforms have in common."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

Moments = tuple[tuple[float, ...], tuple[float, ...]]


class Transform:
    """An image for a backbone, in two halves.

    Calling it gives bytes, a quarter of the memory on their way to the device, and ``prepare``
    does the arithmetic there.

    Args:
        size: of the image in pixels; what it measures, a subclass says.

    Attributes:
        moments: mean and deviation of the channels.
    """

    moments: Moments

    def __init__(self, size: int):
        self.size = size

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize a Pillow image of any mode to (H, W, 3) uint8."""
        raise NotImplementedError

    def placeholder(self, measure: Callable[[], tuple[int, int] | None]) -> Tensor:
        """Stand for a missing image, (3, H, W) uint8.

        Args:
            measure: gives width and height of the image that is taken away, from its header; None
                if there never was one.
        """
        raise NotImplementedError

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn a Pillow image of any mode into (3, H, W) uint8."""
        return rearrange(torch.from_numpy(self.pixels(image).copy()), "h w c -> c h w")

    @classmethod
    def normalize(cls, pixels: Tensor) -> Tensor:
        """Turn (..., 3, H, W) in 0..255, on any device, into what the backbone takes."""
        mean, std = _on(pixels.device, cls.moments)
        return (pixels.float() / 255 - mean) / std


@cache
def _on(device: torch.device, moments: Moments) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3, 1, 1), copied to a device once."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in moments)
    return mean, std
