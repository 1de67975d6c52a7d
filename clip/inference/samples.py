"""What a user gives as image and text, read or refused: one sample of the three states."""

import os
import re
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

from PIL import Image
from torch import Tensor

from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.transforms import Transform
from clip.utils.errors import UserError
from clip.utils.images import FORMATS, MOST_PIXELS

HALF = re.compile(r"[\ud800-\udfff]")
MISSING = ("complete", "text", "image")  # what a sample lacks, by its state


@dataclass(frozen=True)
class Sample:
    """One thing to classify; at least one of the two is there.

    Attributes:
        image: (3, H, W) uint8, or None.
        text: not blank, or None.
    """

    image: Tensor | None
    text: str | None

    @property
    def state(self) -> int:
        """The missing case, a constant of ``clip.missing``."""
        if self.image is None:
            return MISSING_IMAGE
        return MISSING_TEXT if self.text is None else COMPLETE

    def states(self) -> list["Sample"]:
        """Give the states that can be made of it: as it is, then without one and the other."""
        if self.state != COMPLETE:
            return [self]
        return [self, replace(self, text=None), replace(self, image=None)]


def read_sample(image: Any, text: Any, place: str, transform: Transform) -> Sample:
    """Read what a user gives.

    Args:
        image: a path, a Pillow image, or the bytes of an image file; None, "" or NaN if missing.
        text: None, NaN or nothing but blanks if missing.
        place: such as "row 3", for messages; or "".
        transform: Pillow image -> (3, H, W) uint8.

    Raises:
        UserError: names the place, and the image if it is at fault.
    """
    place = place and f"{place}: "
    image, text = (None if _is_nan(value) else value for value in (image, text))
    if text is not None and not isinstance(text, str):
        raise UserError(f"{place}the text is {text!r:.60}; give a string, or None if it is missing")
    if text is not None and not text.strip():
        text = None
    if text is not None and HALF.search(text):  # JSON can escape one half of a surrogate pair
        raise UserError(f"{place}the text has half a character; remove it")
    if isinstance(image, str | bytes) and not image:
        image = None
    if image is None and text is None:
        raise UserError(f"{place}image and text are both missing; give one of them")
    return Sample(None if image is None else _read_image(image, place, transform), text)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _read_image(source: Any, place: str, transform: Transform) -> Tensor:
    if not isinstance(source, Image.Image | str | os.PathLike | bytes):
        kind = type(source).__name__
        raise UserError(f"{place}the image is of the type {kind}; give a path or a Pillow image")
    name = f"{place}{source if isinstance(source, str | os.PathLike) else 'the image'}"
    try:
        if isinstance(source, Image.Image):
            return _transformed(source, name, transform)
        if not isinstance(source, bytes) and not os.path.isfile(source):  # nor a pipe
            raise UserError(f"{name}: no such file")
        file = BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=FORMATS) as image:
            return _transformed(image, name, transform)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except Exception as error:  # noqa: BLE001  Pillow's decoders raise many kinds
        kinds = ", ".join(FORMATS)
        raise UserError(f"{name} cannot be decoded ({type(error).__name__}); give a whole file of {kinds}") from None


def _transformed(image: Image.Image, name: str, transform: Transform) -> Tensor:
    if not image.width * image.height:  # from the header: nothing has been decoded
        raise UserError(f"{name} has no pixels; give another")
    return transform(image)


def _too_large(name: str) -> UserError:
    return UserError(f"{name} has over {MOST_PIXELS:,} pixels; make it smaller")
