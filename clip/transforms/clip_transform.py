"""CLIP's image transform with Pillow and torch, equal to OpenAI's own."""

from functools import cache

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from clip.pixels import square

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipTransform:
    """Bicubic resize of the short side, centre crop, [0, 1], CLIP's mean and deviation.

    In two halves: calling it gives bytes, a quarter of the memory on their way to the device, and
    ``prepare`` does the arithmetic there.

    Args:
        size: side of the square result in pixels.
    """

    def __init__(self, size: int):
        self.size = size

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize and crop to (size, size, 3) uint8."""
        return square(image, self.size)

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn a Pillow image of any mode into (3, size, size) uint8."""
        return rearrange(torch.from_numpy(self.pixels(image).copy()), "h w c -> c h w")

    @staticmethod
    def prepare(pixels: Tensor) -> Tensor:
        """Turn (..., 3, H, W) in 0..255, on any device, into what CLIP's image tower takes."""
        mean, std = _moments(pixels.device)
        return (pixels.float() / 255 - mean) / std


@cache
def _moments(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3, 1, 1), copied to a device once."""
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))
    return mean, std
