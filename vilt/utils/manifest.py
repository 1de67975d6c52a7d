"""A manifest: the user's own table of images, texts and labels, read and checked."""

import ast
import hashlib
import posixpath
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip.utils.errors import UserError
from clip.utils.tables import read_table

COLUMNS = ("image", "text", "label")
SPLITS = {"train": "train", "val": "val", "dev": "val", "test": "test"}
SEPARATOR = "|"  # between the labels of one csv cell
LABEL_FORM = "write several labels as a|b in csv, or as a list in jsonl or parquet"


@dataclass(frozen=True)
class Entry:
    """One row of a manifest."""

    number: int  # from 1
    image: str | bytes  # path or bytes; "" if there is none
    text: str  # "" if it is blank
    labels: tuple[str, ...] | None  # class names; None if the row has no label
    multilabel: bool  # whether the label was written as a list
    split: str | None  # None if the manifest has no column `split`

    @property
    def name(self) -> str:
        """The name of the row in reports."""
        return self.image if self.image and isinstance(self.image, str) else f"row {self.number}"

    def draw_split(self, thresholds: dict[str, float], seed: int) -> str:
        """Draw a split by a hash of the image, or of the text if there is no image.

        Rows of one image stay together, and a row keeps its split when others are added. ``thresholds`` are the
        cumulative shares.
        """
        image = self.image if isinstance(self.image, str) else hashlib.sha256(self.image).hexdigest()
        key = posixpath.normpath(image) if image else self.text  # ./a.png is a.png
        place = int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8]) / 2**64
        return next((split for split, end in thresholds.items() if place < end), "test")


def read_manifest(path: Path) -> list[Entry]:
    """Read and check all rows of a csv, jsonl or parquet file."""
    table = read_table(path)
    if table.empty:
        raise UserError(f"{path} has no rows; it needs at least one per split")
    if absent := ", ".join(column for column in COLUMNS if column not in table):
        columns = ", ".join(table.columns)
        raise UserError(f"{path} has no column {absent}; its columns are {columns}; rename them, see DATA.md")
    is_csv = path.suffix.lower() == ".csv"
    rows = zip(table.index, table.to_dict("records"), strict=True)
    entries = [_read_entry(f"{path} row {number}", number, row, is_csv) for number, row in rows]
    if is_csv and not any(entry.multilabel for entry in entries):
        _check_separators(path, entries)
    return entries


def _read_entry(place: str, number: int, row: dict[str, Any], is_csv: bool) -> Entry:
    image, text, label = (row[column] for column in COLUMNS)
    if isinstance(image, dict):  # an image of a Hugging Face data set
        image = image.get("bytes") or image.get("path")
    if not isinstance(image, str | bytes | None):
        raise UserError(f"{place} has the image {image!r:.60}; give a path, or leave it empty")
    if not isinstance(text, str | None):
        raise UserError(f"{place} has the text {text!r:.60}; give a string, or leave it empty")
    if "split" in row and str(row["split"]) not in SPLITS:
        raise UserError(
            f"{place} has the split {row['split']!r:.60}; it must be one of {', '.join(SPLITS)} in every row"
        )
    if is_csv and label and SEPARATOR in label:
        label = [name for name in label.split(SEPARATOR) if name.strip()]
    elif isinstance(label, str) and re.fullmatch(r"\s*\[.*\]\s*", label, re.DOTALL):
        try:
            label = ast.literal_eval(label.strip())  # a list as Python or JSON prints it
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise UserError(f"{place} has the label {label!r:.60}; {LABEL_FORM}") from None
    multilabel = isinstance(label, list)
    labels = None if label is None else tuple(_class_name(place, one) for one in (label if multilabel else [label]))
    if labels and not all(labels):
        if multilabel:
            raise UserError(f"{place} has an empty label in its list; remove it")
        labels = None
    image = image.strip() if isinstance(image, str) else image or ""
    text = text if text and text.strip() else ""
    return Entry(number, image, text, labels, multilabel, SPLITS[row["split"]] if "split" in row else None)


def _class_name(place: str, label: Any) -> str:
    if isinstance(label, float) and label.is_integer():
        label = int(label)  # pandas writes integers beside an empty cell as floats
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise UserError(f"{place} has the label {label!r:.60}; give a text, a whole number or a list of them")
    return str(label).strip()


def _check_separators(path: Path, entries: list[Entry]) -> None:
    """Check that csv labels such as "Drama, Comedy" are names: parts of a list occur in several labels."""
    labels_by_part: defaultdict[str, set[str]] = defaultdict(set)
    for label in {label for entry in entries for label in entry.labels or ()}:
        for part in re.split("[,;]", label):
            labels_by_part[part.strip()].add(label)
    for part, labels in labels_by_part.items():
        if part and len(labels) > 1:
            first, second = sorted(labels, key=len)[-2:]
            raise UserError(
                f"{path} has the labels {first!r:.60} and {second!r:.60}; {LABEL_FORM} (a name may have commas)"
            )
