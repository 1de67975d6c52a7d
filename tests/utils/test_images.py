"""Untrusted images and untrusted names."""

import io
import sys

import pytest
from PIL import Image

from clip.utils.errors import UserError, escape
from clip.utils.images import MAX_PIXELS, square, validate_image


def encoded(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_over_pillows_limit_is_refused_before_it_is_decoded():
    """Pillow itself only warns of this size."""
    side = int(MAX_PIXELS**0.5) + 1
    data = encoded(Image.new("1", (side, side)), "PNG")
    with pytest.raises(UserError, match=f"{MAX_PIXELS:,}"):
        validate_image(data)
    with pytest.raises(Image.DecompressionBombError):
        square(Image.open(io.BytesIO(data)), 4)


def test_damaged_empty_and_unlisted_formats_are_refused():
    """Pillow has decoders that start other programs; TGA stands for them."""
    image = Image.new("RGB", (40, 40), "red")
    for data in (b"", b"text", encoded(image, "PNG")[:-30], encoded(image, "TGA")):
        with pytest.raises(UserError):
            validate_image(data)
    assert validate_image(encoded(image, "PNG"), lambda image: image.size) == (40, 40)


def test_escape_leaves_only_what_the_terminal_can_show(monkeypatch):
    assert escape("日本 é\n\x1b[2J\u202e\ud800") == "日本 é\\n\\x1b[2J\\u202e\\ud800"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    assert escape("日本 é") == "\\u65e5\\u672c é"
