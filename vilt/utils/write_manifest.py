"""Convert a user's manifest of images, texts and labels to arrow files with the classes found in it."""

import ast
import hashlib
import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from clip.utils.errors import UserError, escape
from clip.utils.tables import read_table
from vilt.utils import arrow
from vilt.utils.image_pool import ImagePool
from vilt.utils.raw import Note, PendingRow, Skip, find_image

COLUMNS = ("image", "text", "label")
SPLITS = ("train", "val", "test")
SHARES = (0.8, 0.1, 0.1)
SPLIT_OF_NAME = {"train": "train", "val": "val", "dev": "val", "test": "test"}
MAX_CLASSES = 10_000  # more are ids or sentences rather than labels
MAX_SHOWN = 50  # classes in the summary table
MIN_CLASSES_TO_WARN = 5
INTEGER = re.compile(r"-?[0-9]{1,18}(\.0)?")
SEPARATOR = "|"  # between the labels of one csv cell
QUOTED = r"""'[^']*'|"[^"]*\""""
LABEL_FORM = "write several labels as a|b in csv, or as a list in jsonl or parquet"


class Entry(NamedTuple):
    """One row of a manifest."""

    number: int  # from 1, without the header
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


def make_arrow(
    root: Path,
    target: Path,
    pool: ImagePool | None = None,
    shares: Sequence[float] | None = None,
    seed: int | None = None,
) -> str:
    """Write {train,val,test}.arrow and return the summary table; ``shares`` and ``seed`` draw missing splits."""
    entries = read_manifest(root)
    if entries[0].split and (shares is not None or seed is not None):
        raise UserError(f"{root} has a column 'split'; remove --shares and --seed")
    thresholds = dict(zip(SPLITS, accumulate(shares or SHARES), strict=True))
    by_split: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for entry in entries:
        by_split[entry.split or entry.draw_split(thresholds, seed or 0)].append(entry)
    for split in [split for split in SPLITS if not by_split[split]]:
        if (path := target / f"{split}.arrow").exists():
            raise UserError(f"{root} has no row for {split}, but {path} exists from earlier; remove it")
        del by_split[split]
    skips = _find_skips(root, entries)
    usable = [entry for entry in entries if entry.number not in skips]  # a class may occur in skipped rows only
    names, index = number_classes({label for entry in usable for label in entry.labels})
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"{root} has {len(names)} classes in rows that can be used; the column 'label' needs 2 to {MAX_CLASSES}"
        )
    multilabel = any(entry.multilabel for entry in usable)
    task_type = "multilabel" if multilabel else "binary" if len(names) == 2 else "multiclass"
    schema = arrow.schema(text=arrow.TEXTS, label=pa.list_(arrow.CLASS) if multilabel else arrow.CLASS)

    def pending_row(split: str, entry: Entry) -> PendingRow | Skip:
        if entry.number in skips:
            return skips[entry.number]
        numbers = [index[label] for label in entry.labels]
        label = [int(number in numbers) for number in range(len(names))] if multilabel else numbers[0]
        columns = {"text": [entry.text], "label": label, "image_id": str(entry.number), "split": split}
        notes = [Note(f"no {column}", entry.name) for column in ("image", "text") if not getattr(entry, column)]
        return PendingRow(root.parent, entry.image, columns, tuple(notes))

    report = arrow.convert(target, "", arrow.with_classes(schema, names, task_type), by_split, pending_row, {}, pool)
    counts = pd.DataFrame({split: count_classes(target / f"{split}.arrow", len(names)) for split in by_split})
    counts.index = [escape(name) for name in names]
    lines = [report, f"{task_type}: {len(names)} classes", counts.to_string(max_rows=MAX_SHOWN)]
    if root.suffix.lower() == ".csv" and not all(entry.image for entry in entries):  # rows are named by number
        lines.insert(1, "rows of the csv count from 1, without the header")
    once = int((counts.sum(axis=1) <= 1).sum())
    if len(names) >= MIN_CLASSES_TO_WARN and once > len(names) / 2:
        lines.append(f"warning: {once} of {len(names)} classes occur once; check that the column 'label' has labels")
    return "\n".join(lines)


def _find_skips(root: Path, entries: Sequence[Entry]) -> dict[int, Skip]:
    """Return why rows cannot be used, by number, as far as can be known without decoding their images."""
    skips, lost, num_paths = {}, [], 0
    for entry in entries:
        if entry.labels is None:
            skips[entry.number] = Skip("no label", entry.name)
        elif not entry.image and not entry.text:
            skips[entry.number] = Skip("no image and no text", entry.name)
        elif entry.image and isinstance(entry.image, str):
            num_paths += 1
            try:
                find_image(root.parent, entry.image)
            except UserError as error:
                skips[entry.number] = Skip(str(error), entry.name)
                lost.append((entry.image, error))
    if 2 * len(lost) > num_paths:  # they are wrong in the same way
        image, reason = lost[0]
        raise UserError(
            f"{root}: {len(lost)} of {num_paths} images were not found, such as {image!r:.200}, looked for at "
            f"{str(root.parent / image)!r:.200} ({reason}); write paths relative to the folder of the manifest"
        )
    return skips


def number_classes(labels: set[str]) -> tuple[list[str], dict[str, int]]:
    """Return the classes, integers by size and everything else by characters, and label -> number.

    If all labels are integers, "1.0", which pandas writes beside an empty cell, is 1.
    """
    integers = all(map(INTEGER.fullmatch, labels))
    names = {label: label.removesuffix(".0") if integers else label for label in labels}
    ordered = sorted(set(names.values()), key=(lambda name: (int(name), name)) if integers else None)
    numbers = {name: number for number, name in enumerate(ordered)}
    return ordered, {label: numbers[name] for label, name in names.items()}


def count_classes(path: Path, num_classes: int) -> np.ndarray:
    """Count the rows of each class in an arrow file, (num_classes,)."""
    with pa.memory_map(str(path)) as source:
        labels = pa.ipc.open_file(source).read_all()["label"]
        if pa.types.is_list(labels.type):
            return pc.list_flatten(labels).to_numpy().reshape(-1, num_classes).sum(axis=0)
        return np.bincount(labels.to_numpy(), minlength=num_classes)


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
    below = " below the header" if is_csv else ""
    entries = [_read_entry(f"{path} row {number}{below}", number, row, is_csv) for number, row in rows]
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
    if "split" in row and str(row["split"]) not in SPLIT_OF_NAME:
        raise UserError(
            f"{place} has the split {row['split']!r:.60}; it must be one of {', '.join(SPLIT_OF_NAME)} in every row"
        )
    if is_csv and label and SEPARATOR in label:
        label = [name for name in label.split(SEPARATOR) if name.strip()]
    elif isinstance(label, str) and re.fullmatch(r"\s*\[.*\]\s*", label, re.DOTALL):
        label = _parse_list(place, label)
    multilabel = isinstance(label, list)
    labels = None if label is None else tuple(_class_name(place, one) for one in (label if multilabel else [label]))
    if labels and not all(labels):
        if multilabel:
            raise UserError(f"{place} has an empty label in its list; remove it")
        labels = None
    image = image.strip() if isinstance(image, str) else image or ""
    text = text if text and text.strip() else ""
    return Entry(number, image, text, labels, multilabel, SPLIT_OF_NAME[row["split"]] if "split" in row else None)


def _parse_list(place: str, text: str) -> list[Any]:
    """Parse a list as Python, JSON or NumPy prints it, the last without commas."""
    if re.fullmatch(rf"\s*\[\s*({QUOTED})(\s+({QUOTED}))+\s*\]\s*", text):
        text = f"[{','.join(re.findall(QUOTED, text))}]"
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise UserError(f"{place} has the label {text!r:.60}; {LABEL_FORM}") from None


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
