"""Reading raw data sets: JSON with clear errors, safe paths, decoded images, counted skips."""

import json
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES_SHOWN = 3
LONGEST_NAME = 100  # letters of a name in a report
SCAN, MOST_SCANS = b"\xff\xda", 100  # as clip.utils.images has them
MOST_BYTES = 2**30  # of an image file: the largest image that is decoded is smaller unpacked
# As clip.utils.images has them, which this package does not know: Pillow decodes these by itself, while
# others, such as EPS, would start programs of this machine.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")

Row = dict[str, Any]


def escape(text: str) -> str:
    """Escapes line ends and what a terminal would obey: names in data come from anybody."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class RawDataError(ValueError):
    """Data that cannot be used; the message, one line, names the path and the fix."""

    def __init__(self, message: str) -> None:
        super().__init__(escape(message))


class BadImage(Exception):  # noqa: N818 - not an error of the run: the row is skipped and counted
    """Why an image cannot be used."""


@dataclass(frozen=True)
class Skipped:
    """A row that is left out, and why."""

    reason: str
    name: str


@dataclass(frozen=True)
class Noted:
    """Something to report about a row that is written all the same."""

    reason: str
    name: str


Item = Row | Skipped | Noted
Pixels = Callable[[Image.Image], np.ndarray]  # -> (H, W, 3) uint8


@dataclass(frozen=True)
class Unread:
    """A row whose image is still to be read.

    Args:
        root: Folder that the image must lie in.
        name: The image's path below root; "" where the row has none.
        columns: The other columns.
        notes: What to report if the row is written.
    """

    root: Path
    name: str
    columns: Row
    notes: tuple[Noted, ...] = ()


class Tally:
    """How often each reason came up, with the first few names."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, entry: Skipped | Noted) -> None:
        """Counts one entry."""
        self.counts[entry.reason] += 1
        if len(self.names[entry.reason]) < NAMES_SHOWN:
            self.names[entry.reason].append(escape(entry.name[:LONGEST_NAME]))

    def __str__(self) -> str:
        return "; ".join(
            f"{reason}: {count} ({', '.join(self.names[reason])}{', ...' * (count > NAMES_SHOWN)})"
            for reason, count in self.counts.most_common()
        )


def require(root: Path, *names: str) -> None:
    """Raises `RawDataError` unless each name, a file or a folder, lies under root."""
    absent = [name for name in names if not (root / name).exists()]
    if absent:
        raise RawDataError(f"{root} has no {', '.join(absent)}; see DATA.md for the raw layout")


def read_json(path: Path) -> Any:
    """Reads a JSON file; absent or broken is a `RawDataError`."""
    if not path.is_file():
        raise RawDataError(f"{path} is absent or no file; see DATA.md for the raw layout")
    return parse_json(path.read_bytes(), f"{path} is not valid JSON", "; fetch it again")


def parse_json(data: bytes, problem: str, fix: str = "") -> Any:
    """Reads JSON in UTF-8; anything that is none, or cannot be written as UTF-8 again, is refused.

    Args:
        data: The bytes.
        problem: What the message of the `RawDataError` begins with.
        fix: And what it ends with.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"))
        if b"\\u" in data:  # JSON can escape one half of a surrogate pair, which no file can hold
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise RawDataError(f"{problem} (half a character, {half}){fix}") from None
    except (ValueError, RecursionError) as error:
        raise RawDataError(f"{problem} ({error}){fix}") from None
    return content


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that must hold one object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise RawDataError(f"{path} holds no JSON object; see DATA.md for the raw layout")
    return content


def read_splits(path: Path, splits: Iterable[str]) -> dict[str, list[str]]:
    """Reads the list of names under each of `splits` in split.json."""
    content = read_object(path)
    for split in splits:
        names = content.get(split)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RawDataError(f"{path} has no list of names under {split!r}; see DATA.md")
    return {split: content[split] for split in splits}


def joined(root: Path, name: str) -> Path | None:
    """Joins root and a name from elsewhere; None if the name leads out of root."""
    parts = re.split(r"[/\\]", name)
    if Path(name).anchor or (name and not parts[0]) or ".." in parts or "\0" in name:
        return None
    return root / name


def inside(root: Path, name: str) -> Path | None:
    """Joins as `joined`, and follows links: None if what is there lies out of root."""
    path = joined(root, name)
    if path is None or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return None
    return path


def stored(data: bytes, pixels: Pixels | None) -> bytes:
    """Decodes a whole image and returns what is kept of it: these bytes, or its pixels.

    Raises:
        BadImage: If it does not decode or is too large.
    """
    if not data:
        raise BadImage("image is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                if image.format == "JPEG" and data.count(SCAN) > MOST_SCANS:
                    raise BadImage("image has too many scans")  # it would be decoded for hours
                image.load()
                return ppm(pixels(image)) if pixels else data
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(f"image has over {Image.MAX_IMAGE_PIXELS} pixels") from None
    except BadImage:
        raise
    except Exception:  # noqa: BLE001 - decoders raise anything on broken files; none ends the run
        raise BadImage("image is unreadable") from None


def ppm(pixels: np.ndarray) -> bytes:
    """Puts the plainest header that Pillow knows before (H, W, 3) uint8 pixels."""
    height, width, _ = pixels.shape
    return b"P6 %d %d 255\n" % (width, height) + pixels.tobytes()


def find_image(root: Path, file: str) -> Path | Skipped:
    """Gives the path of an image that is there, in root."""
    path = inside(root, file)
    if path is None:
        return Skipped("path leads out of the data folder", file)
    if not os.path.isfile(path):  # nor a pipe, which would be waited for
        return Skipped("image is absent", file)
    return path


def with_image(root: Path, file: str, columns: Row, pixels: Pixels | None = None) -> Row | Skipped:
    """Puts the image before the columns; skips the row if it does not decode."""
    path = find_image(root, file)
    if isinstance(path, Skipped):
        return path
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadImage(f"image has over {MOST_BYTES} bytes")
        return {"image": stored(path.read_bytes(), pixels), **columns}
    except OSError:
        return Skipped("image is unreadable", file)
    except BadImage as problem:
        return Skipped(str(problem), file)


def load(row: Unread | Skipped, pixels: Pixels | None) -> list[Item]:
    """Reads the image of a row and returns the row with its notes, or why it is skipped."""
    if isinstance(row, Skipped):
        return [row]
    if not row.name:
        return [{"image": b"", **row.columns}, *row.notes]
    whole = with_image(row.root, row.name, row.columns, pixels)
    return [whole] if isinstance(whole, Skipped) else [whole, *row.notes]
