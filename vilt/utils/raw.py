"""Reading raw data sets: JSON with clear errors, safe paths, decoded images, counted skips."""

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PureWindowsPath
from typing import Any

from PIL import Image

NAMES_SHOWN = 3

Row = dict[str, Any]


class RawDataError(ValueError):
    """Data that cannot be used; the message names the path and the fix."""


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


class Tally:
    """How often each reason came up, with the first few names."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, entry: Skipped | Noted) -> None:
        """Counts one entry."""
        self.counts[entry.reason] += 1
        if len(self.names[entry.reason]) < NAMES_SHOWN:
            self.names[entry.reason].append(entry.name)

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
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RawDataError(f"{path} is absent; see DATA.md for the raw layout") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise RawDataError(f"{path} is not valid JSON ({error}); fetch it again") from None


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


def inside(root: Path, name: str) -> Path | None:
    """Joins root and a name from the data; None if the name leads out of root."""
    parts = PureWindowsPath(name)  # splits at / and at \
    if parts.anchor or ".." in parts.parts or "\0" in name:
        return None
    return root / name


def image_problem(data: bytes) -> str | None:
    """Decodes a whole image; returns what is wrong with it, or None."""
    if not data:
        return "image is empty"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data)) as image:
                image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"image has over {Image.MAX_IMAGE_PIXELS} pixels"
    except Exception:  # noqa: BLE001 - decoders raise anything on broken files; none ends the run
        return "image is unreadable"
    return None


def with_image(root: Path, file: str, columns: Row) -> Row | Skipped:
    """Puts the image's own bytes before the columns; skips the row if they do not decode."""
    path = inside(root, file)
    if path is None:
        return Skipped("path leads out of the data folder", file)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Skipped("image is absent", file)
    except OSError:
        return Skipped("image is unreadable", file)
    problem = image_problem(data)
    return Skipped(problem, file) if problem else {"image": data, **columns}
