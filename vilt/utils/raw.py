"""Raw data sets: paths that stay in the data folder, decoded images, skipped rows.

Worker processes import this module: it must not import pyarrow, pandas or torch.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clip.utils.errors import UserError, escape
from clip.utils.files import parse_object
from clip.utils.images import validate_image

MAX_NAMES = 3  # per reason in a report
MAX_NAME_LENGTH = 100
MAX_BYTES = 2**30  # of an image file: the largest image that is decoded is smaller even without compression

Row = dict[str, Any]
Resize = Callable[[Image.Image], np.ndarray]  # -> (H, W, 3) uint8


class Note(NamedTuple):
    """Something to report about a row that is written."""

    reason: str
    name: str


class Skip(NamedTuple):
    """A row that is not written, and why."""

    reason: str
    name: str


Item = Row | Skip | Note


class PendingRow(NamedTuple):
    """A row whose image has not been read: a path below ``folder``, the bytes themselves, or empty if there is none."""

    folder: Path
    image: str | bytes
    columns: Row
    notes: tuple[Note, ...] = ()

    @property
    def name(self) -> str:
        """The name of the row in messages."""
        return self.image if isinstance(self.image, str) else f"row {self.columns['image_id']}"


def summarize(names_by_reason: Mapping[str, Sequence[str]]) -> str:
    """Return each reason with its count and its first names, the most frequent reason first."""
    parts = []
    for reason, names in sorted(names_by_reason.items(), key=lambda item: -len(item[1])):
        first = ", ".join(name[:MAX_NAME_LENGTH] for name in names[:MAX_NAMES])
        parts.append(f"{reason}: {len(names)} ({first}{', ...' * (len(names) > MAX_NAMES)})")
    return escape("; ".join(parts))


def require_paths(root: Path, *names: str) -> None:
    """Raise `UserError` unless each file or folder exists below root."""
    if absent := [name for name in names if not (root / name).exists()]:
        raise UserError(f"{root} has no {', '.join(absent)}; see DATA.md for the raw layout")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must contain one object."""
    if not path.is_file():
        raise UserError(f"{path} is not a file; see DATA.md for the raw layout")
    return parse_object(path.read_bytes(), str(path))


def read_splits(path: Path, splits: Iterable[str]) -> dict[str, list[str]]:
    """Read the list of names of each split from split.json."""
    content = read_object(path)
    for split in splits:
        names = content.get(split)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{path} has no list of names under {split!r}; see DATA.md")
    return {split: content[split] for split in splits}


def resolve_inside(root: Path, name: str) -> Path | None:
    """Join root and an untrusted path; None if that, or a link in it, leads out of root."""
    path = root / name
    if "\0" in name or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return None
    return path


def find_image(root: Path, name: str) -> Path:
    """Return the path of an image below root; the reason if there is none is a `UserError`."""
    path = resolve_inside(root, name)
    if path is None:
        raise UserError("path leads out of the data folder")
    if not os.path.isfile(path):  # not a pipe either, which would block
        raise UserError("image does not exist")
    return path


def read_row(row: PendingRow | Skip, resize: Resize | None = None) -> list[Item]:
    """Return a row with its image, decoded once, and then its notes, or why it is skipped.

    The image is its file, or its resized pixels as an uncompressed PPM.
    """
    if isinstance(row, Skip):
        return [row]
    data = row.image
    try:
        if isinstance(data, str) and data:
            path = find_image(row.folder, data)
            if path.stat().st_size > MAX_BYTES:
                raise UserError(f"image has over {MAX_BYTES} bytes")
            data = path.read_bytes()
        if row.image and resize:
            pixels = validate_image(data, resize)
            height, width, _ = pixels.shape
            data = b"P6 %d %d 255\n" % (width, height) + pixels.tobytes()
        elif row.image:
            validate_image(data)
    except OSError:
        return [Skip("image cannot be read", row.name)]
    except UserError as error:
        return [Skip(str(error), row.name)]
    return [{"image": data or b"", **row.columns}, *row.notes]
