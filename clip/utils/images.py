"""LEAF, without torch. CLIP's resize and crop, so that a converter's many processes stay small."""

import numpy as np
from PIL import Image

# What Pillow decodes by itself; others, such as EPS, would start programs of this machine.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
MOST_PIXELS = Image.MAX_IMAGE_PIXELS
SCAN, MOST_SCANS = b"\xff\xda", 100  # a marker, never among a JPEG's numbers; encoders write ten
LONGEST_SIDE = 64  # times the short side; beyond it the resized image would fill the memory


class TooManyScansError(Exception):
    """A JPEG that would be decoded for hours."""


def _check_scans(image: Image.Image) -> None:
    """Refuse a progressive JPEG that passes over the whole image again and again."""
    file = getattr(image, "fp", None)  # none once it is decoded
    if image.format != "JPEG" or file is None:
        return
    place = file.tell()
    file.seek(0)
    scans = file.read().count(SCAN)
    file.seek(place)
    if scans > MOST_SCANS:
        raise TooManyScansError


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB; 16-bit and float grey values are brought down to 8 bits.

    What a file says of turning the image (EXIF) is not followed: CLIP never did, nor the released
    code.

    Raises:
        Image.DecompressionBombError: over ``MOST_PIXELS``, which Pillow by itself only warns of;
            nothing has been decoded.
        TooManyScansError: likewise.
    """
    if image.width * image.height > MOST_PIXELS:
        raise Image.DecompressionBombError(f"over {MOST_PIXELS:,} pixels")
    _check_scans(image)
    if image.mode.startswith(("I", "F")):
        grey = np.array(image, dtype=np.float32)
        top = 65535 if grey.max(initial=0) > 255 else 255
        grey.clip(0, top, out=grey)  # in place: the largest image takes a third of a gigabyte
        grey *= 255 / top
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


def crop_extreme(image: Image.Image) -> Image.Image:
    """Cut the ends of an image over 64 times as long as wide, of which no backbone reads much."""
    width, height = image.size
    longest = LONGEST_SIDE * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
    return image.crop((left, top, width - left, height - top))


def square(image: Image.Image, size: int) -> np.ndarray:
    """Resize the short side of a Pillow image of any mode and crop its centre.

    Returns:
        (size, size, 3) uint8; an image that comes as such returns as it is.
    """
    image = crop_extreme(to_rgb(image))
    width, height = image.size
    short = min(width, height)
    resized = (size * width // short, size * height // short)
    image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in resized)
    return np.asarray(image.crop((left, top, left + size, top + size)))
