"""The user's own data: a manifest of images, texts and labels to arrow files, with the classes found in it."""

import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from clip.utils.errors import UserError, escape
from vilt.utils import arrow
from vilt.utils.image_pool import ImagePool
from vilt.utils.manifest import Entry, read_manifest
from vilt.utils.raw import Note, PendingRow, Skip, find_image

SPLITS = ("train", "val", "test")
SHARES = (0.8, 0.1, 0.1)
MAX_CLASSES = 10_000  # more are ids or sentences rather than labels
MAX_SHOWN = 50  # classes in the closing table
MIN_CLASSES_TO_WARN = 5
INTEGER = re.compile(r"-?[0-9]{1,18}(\.0)?")


def make_arrow(
    root: Path,
    target: Path,
    pool: ImagePool | None = None,
    shares: Sequence[float] | None = None,
    seed: int | None = None,
) -> str:
    """Write {train,val,test}.arrow and return the closing table.

    Args:
        root: the manifest, a csv, jsonl or parquet file.
        target: the folder to write to.
        pool: reads the images.
        shares: shares of train, val and test, if the manifest has no column `split`.
        seed: seed of that split.
    """
    entries = read_manifest(root)
    if entries[0].split and (shares is not None or seed is not None):
        raise UserError(f"{root} has a column 'split'; remove --shares and --seed")
    thresholds = dict(zip(SPLITS, accumulate(shares or SHARES), strict=True))
    by_split: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for entry in entries:
        by_split[entry.split or entry.draw_split(thresholds, seed or 0)].append(entry)
    if empty := [split for split in SPLITS if not by_split[split]]:
        raise UserError(
            f"{root} has no row for {', '.join(empty)}; name it in the column 'split', or change --shares or --seed"
        )
    skips = {entry.number: _skip(root.parent, entry) for entry in entries}
    _check_images(root, entries, skips)
    usable = [entry for entry in entries if not skips[entry.number]]  # a class may occur in skipped rows only
    names, index = number_classes({label for entry in usable for label in entry.labels})
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"{root} has {len(names)} classes in rows that can be used; the column 'label' needs 2 to {MAX_CLASSES}"
        )
    multilabel = any(entry.multilabel for entry in usable)
    task_type = "multilabel" if multilabel else "binary" if len(names) == 2 else "multiclass"
    schema = arrow.schema(text=arrow.TEXTS, label=pa.list_(arrow.CLASS) if multilabel else arrow.CLASS)

    def pending_row(split: str, entry: Entry) -> PendingRow | Skip:
        if skip := skips[entry.number]:
            return skip
        numbers = [index[label] for label in entry.labels]
        label = [int(number in numbers) for number in range(len(names))] if multilabel else numbers[0]
        columns = {"text": [entry.text], "label": label, "image_id": str(entry.number), "split": split}
        notes = [Note(f"no {column}", entry.name) for column in ("image", "text") if not getattr(entry, column)]
        return PendingRow(root.parent, entry.image, columns, tuple(notes))

    report = arrow.convert(target, "", arrow.with_classes(schema, names, task_type), by_split, pending_row, {}, pool)
    counts = pd.DataFrame({split: count_classes(target / f"{split}.arrow", len(names)) for split in SPLITS})
    counts.index = [escape(name) for name in names]
    lines = [report, f"{task_type}: {len(names)} classes", counts.to_string(max_rows=MAX_SHOWN)]
    once = int((counts.sum(axis=1) <= 1).sum())
    if len(names) >= MIN_CLASSES_TO_WARN and once > len(names) / 2:
        lines.append(f"warning: {once} of {len(names)} classes occur once; check that the column 'label' has labels")
    return "\n".join(lines)


def _skip(folder: Path, entry: Entry) -> Skip | None:
    """Return why a row cannot be used, as far as can be known without decoding its image."""
    if entry.labels is None:
        return Skip("no label", entry.name)
    if not entry.image and not entry.text:
        return Skip("no image and no text", entry.name)
    try:
        if entry.image and isinstance(entry.image, str):
            find_image(folder, entry.image)
    except UserError as error:
        return Skip(str(error), entry.name)
    return None


def _check_images(root: Path, entries: Sequence[Entry], skips: dict[int, Skip | None]) -> None:
    """Raise `UserError` if most images cannot be found: their paths are then wrong in the same way."""
    paths = [entry for entry in entries if entry.image and isinstance(entry.image, str) and entry.labels is not None]
    lost = [entry for entry in paths if skips[entry.number]]
    if 2 * len(lost) > len(paths):
        raise UserError(
            f"{root}: {len(lost)} of {len(paths)} images were not found, such as {lost[0].image!r:.200}, looked for at "
            f"{str(root.parent / lost[0].image)!r:.200}; write paths relative to the folder of the manifest"
        )


def number_classes(labels: set[str]) -> tuple[list[str], dict[str, int]]:
    """Sort classes, integers by size and everything else by characters.

    Returns:
        Class names in the order of their numbers, and label -> number. If all labels are integers, "1.0", which
        pandas writes beside an empty cell, is 1.
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
