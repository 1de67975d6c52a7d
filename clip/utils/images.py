"""Decoding of untrusted images, and CLIP's resize and crop. Does not import torch, so that converters start fast."""

import warnings
from collections.abc import Callable
from io import BytesIO
from operator import methodcaller
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from clip.utils.errors import UserError

T = TypeVar("T")

# Formats that Pillow decodes by itself; for others, such as EPS, it starts programs of this machine.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_PIXELS = Image.MAX_IMAGE_PIXELS
MAX_ASPECT_RATIO = 64  # beyond it the resized image would fill the memory

# Pillow only warns up to twice this number of pixels; `check_pixels` raises.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def check_pixels(image: Image.Image) -> None:
    """Raise `Image.DecompressionBombError` for an image of over ``MAX_PIXELS``, before it is decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"over {MAX_PIXELS:,} pixels")


def validate_image(source: bytes | Path, decode: Callable[[Image.Image], T] = methodcaller("load")) -> T:
    """Decode an image file, or its bytes, completely and return what ``decode`` makes of the opened Pillow image.

    The `UserError` for an image that cannot be used has the reason, without the name of the file.
    """
    if source == b"":
        raise UserError("image is empty")
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            check_pixels(image)
            return decode(image)
    except Image.DecompressionBombError:
        raise UserError(f"image has over {MAX_PIXELS:,} pixels") from None
    except Exception:  # noqa: BLE001  Pillow's decoders raise many kinds
        raise UserError("image cannot be decoded") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB; 16-bit and float grayscale values are scaled to 8 bits.

    The orientation in the EXIF data is ignored, as in CLIP and in the released code.
    """
    check_pixels(image)
    if image.mode.startswith(("I", "F")):
        gray = np.array(image, dtype=np.float32)
        top = 65535 if gray.max(initial=0) > 255 else 255
        gray.clip(0, top, out=gray)  # in place: the largest image takes a third of a gigabyte
        gray *= 255 / top
        image = Image.fromarray(gray.astype(np.uint8))
    return image.convert("RGB")


def crop_extreme(image: Image.Image) -> Image.Image:
    """Crop the ends of an image that is over 64 times as long as wide; no backbone reads much of them."""
    width, height = image.size
    longest = MAX_ASPECT_RATIO * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
    return image.crop((left, top, width - left, height - top))


def square(image: Image.Image, size: int) -> np.ndarray:
    """Resize the short side of a Pillow image of any mode to ``size`` and crop its center, (size, size, 3) uint8."""
    image = crop_extreme(to_rgb(image))
    width, height = image.size
    short = min(width, height)
    resized = (size * width // short, size * height // short)
    image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in resized)
    return np.asarray(image.crop((left, top, left + size, top + size)))
