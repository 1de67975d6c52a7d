"""Read user input (an image, a text, or both) as a sample."""

import os
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.transforms import Transform
from clip.utils.errors import UserError
from clip.utils.images import FORMATS, validate_image


@dataclass(frozen=True)
class Sample:
    """One sample to classify, with at least one modality; the other is None."""

    # (3, H, W) uint8. An array and not a tensor: loader processes would pass every tensor through a file in /dev/shm,
    # which is small in containers.
    image: np.ndarray | None
    text: str | None

    @property
    def case(self) -> int:
        """Missing case, a constant of ``clip.missing``."""
        if self.image is None:
            return MISSING_IMAGE
        return MISSING_TEXT if self.text is None else COMPLETE

    def cases(self) -> list["Sample"]:
        """Return the sample in every missing case that can be derived from it, its own first."""
        if self.case != COMPLETE:
            return [self]
        return [self, replace(self, text=None), replace(self, image=None)]


def read_sample(image: Any, text: Any, transform: Transform) -> Sample:
    """Read a pair of image and text, of which one may be None, NaN or empty.

    An image is a path, a Pillow image, the bytes of an image file, or a dict of path and bytes as Hugging Face data
    sets store in parquet.
    """
    image, text = (None if isinstance(value, float) and value != value else value for value in (image, text))
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if not isinstance(text, str | None):
        raise UserError(f"the text is {text!r:.60}; give a string, or None if it is missing")
    if text is not None and re.search("[\ud800-\udfff]", text):
        raise UserError("the text contains an unpaired surrogate; remove it")
    text = text if text and text.strip() else None
    if image is None or image == "" or image == b"":
        if text is None:
            raise UserError("image and text are both missing; give at least one of them")
        return Sample(None, text)
    if isinstance(image, Image.Image):
        return Sample(transform(image).numpy(), text)
    if not isinstance(image, str | os.PathLike | bytes):
        raise UserError(f"the image has the type {type(image).__name__}; give a path or a Pillow image")
    name = "the image" if isinstance(image, bytes) else os.fspath(image)
    if not isinstance(image, bytes) and not os.path.isfile(image):  # a pipe would block
        raise UserError(f"{name}: no such file; check the path")
    try:
        return Sample(validate_image(image, transform).numpy(), text)
    except UserError as error:
        raise UserError(f"{name}: {error}; give another in {', '.join(FORMATS)}") from None
