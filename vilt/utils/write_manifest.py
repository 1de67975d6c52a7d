"""One's own data: a manifest of images, texts and labels to arrow rows, classes found in it."""

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vilt.utils import arrow
from vilt.utils.manifest import SPLIT, SPLITS, Entry, read_entries
from vilt.utils.raw import Noted, RawDataError, Skipped, Unread, find_image
from vilt.utils.reader import Reader

FILES = tuple(dict.fromkeys(SPLITS.values()))
SHARES = (0.8, 0.1, 0.1)
MOST_CLASSES = 10_000  # beyond it the labels are rather ids or sentences
WHOLE = re.compile(r"-?[0-9]{1,18}(\.0)?")
SHOWN = 50  # classes in the closing table


@dataclass(frozen=True)
class Split:
    """How rows without a split of their own get one.

    Args:
        shares: Of train, val and test; they sum to 1.
        seed: Of the draw.
    """

    shares: Sequence[float] = SHARES
    seed: int = 0

    def of(self, entry: Entry) -> str:
        """Draws by the image, or by the text where there is none.

        Rows of one image stay together, and a row keeps its split when others are added.
        """
        image = posixpath.normpath(entry.image) if entry.image else ""  # ./a.png is a.png
        key = f"{self.seed}/{image or entry.text}".encode()
        place = int.from_bytes(hashlib.sha256(key).digest()[:8]) / 2**64
        ends = list(accumulate(self.shares))
        return next((f for f, end in zip(FILES, ends, strict=True) if place < end), FILES[-1])


@dataclass(frozen=True)
class Found:
    """What a first pass over a manifest finds.

    Args:
        task_type: binary, multiclass or multilabel.
        names: Of the classes, in the order of their numbers.
        index: What a label may say → number of its class.
        rows: Of each split.
    """

    task_type: str
    names: tuple[str, ...]
    index: Mapping[str, int]
    rows: Counter[str]


def make_arrow(
    root: Path,
    target: Path,
    reader: Reader | None = None,
    shares: Sequence[float] | None = None,
    seed: int | None = None,
) -> str:
    """Writes {train,val,test}.arrow and returns the closing table.

    Args:
        root: The manifest: a csv, jsonl or parquet file.
        target: The folder to write to.
        reader: Reads the images.
        shares: Of train, val and test, where the manifest has no column `split`.
        seed: Of that split.
    """
    draw = Split(shares or SHARES, seed or 0)
    found = scan(root, draw, drawn=shares is not None or seed is not None)
    label = pa.list_(arrow.CLASS) if found.task_type == "multilabel" else arrow.CLASS
    schema = arrow.schema(text=arrow.TEXTS, label=label)
    schema = arrow.with_classes(schema, found.names, found.task_type)
    splits = {split: (found.rows[split], _items(root, split, draw, found)) for split in FILES}
    table = arrow.convert(target, "", schema, splits, {}, reader or Reader())
    return f"{table}\n{_classes(target, found)}"


def scan(root: Path, draw: Split, drawn: bool = False) -> Found:
    """Checks a whole manifest and finds its classes, before anything is written.

    Raises:
        RawDataError: If a row is not valid, fewer than two classes are there or too many, a split
            is empty, or a split is to be drawn that the manifest has already.
    """
    names: set[str] = set()
    rows: Counter[str] = Counter()
    several = False
    for entry in read_entries(root):
        if drawn and entry.split:
            raise RawDataError(f"{root} has a column {SPLIT!r}: leave --shares and --seed out")
        rows[entry.split or draw.of(entry)] += 1
        if _unusable(root.parent, entry):  # its class may have no other row
            continue
        names.update(entry.labels)
        several |= entry.several
        if len(names) > MOST_CLASSES:
            raise RawDataError(f"{root} has over {MOST_CLASSES:,} classes: are these labels?")
    ordered, index = _numbered(names)
    if len(ordered) < 2:
        raise RawDataError(f"{root} has the classes {[*ordered]} in rows that can be used; at least two are needed")
    if empty := [split for split in FILES if not rows[split]]:
        raise RawDataError(
            f"{root} has no row for {', '.join(empty)}: name it in the column {SPLIT!r}, or give "
            "other --shares or another --seed"
        )
    kind = "multilabel" if several else "binary" if len(ordered) == 2 else "multiclass"
    return Found(kind, ordered, index, rows)


def _numbered(labels: set[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Orders classes, numbers by size and all else by letters; gives names, and label → number.

    Beside an empty cell pandas writes the number 1 as 1.0: where all are whole, it is 1.
    """
    whole = all(map(WHOLE.fullmatch, labels))
    names = {label: label.removesuffix(".0") if whole else label for label in labels}
    by_size = (lambda name: (int(name), name)) if whole else None
    ordered = tuple(sorted(set(names.values()), key=by_size))
    numbers = {name: number for number, name in enumerate(ordered)}
    return ordered, {label: numbers[name] for label, name in names.items()}


def _unusable(folder: Path, entry: Entry) -> Skipped | None:
    """Says why a row is left out, as far as can be told without its image."""
    if entry.labels is None:
        return Skipped("no label", entry.name)
    if not entry.image:
        return None if entry.text else Skipped("no image and no text", entry.name)
    found = find_image(folder, entry.image)
    return found if isinstance(found, Skipped) else None


def _items(root: Path, split: str, draw: Split, found: Found) -> Iterator[Unread | Skipped]:
    for entry in read_entries(root):
        if (entry.split or draw.of(entry)) != split:
            continue
        yield _unusable(root.parent, entry) or _unread(root.parent, split, entry, found)


def _unread(folder: Path, split: str, entry: Entry, found: Found) -> Unread:
    numbers = [found.index[label] for label in entry.labels]
    label = numbers[0] if numbers else None
    if found.task_type == "multilabel":
        label = [int(number in numbers) for number in range(len(found.names))]
    columns = {"text": [entry.text], "label": label, "image_id": str(entry.number)}
    notes = [Noted(f"no {part}", entry.name) for part in ("image", "text")
             if not getattr(entry, part)]  # fmt: skip
    return Unread(folder, entry.image, columns | {"split": split}, tuple(notes))


def _classes(target: Path, found: Found) -> str:
    """Counts the classes in the files as they are."""
    counts = {split: _count(target / f"{split}.arrow", len(found.names)) for split in FILES}
    wide = max(map(len, found.names[:SHOWN]))
    lines = [f"{found.task_type}: {len(found.names)} classes",
             f"{'class':{wide}} " + " ".join(f"{split:>8}" for split in FILES)]  # fmt: skip
    for number, name in enumerate(found.names[:SHOWN]):
        cells = " ".join(f"{counts[split][number]:8}" for split in FILES)
        lines.append(f"{name:{wide}} {cells}")
    if len(found.names) > SHOWN:
        lines.append(f"and {len(found.names) - SHOWN} more")
    return "\n".join(lines)


def _count(path: Path, classes: int) -> list[int]:
    counts = [0] * classes
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        for batch in map(reader.get_batch, range(reader.num_record_batches)):
            labels = batch["label"]
            if pa.types.is_list(labels.type):
                flat = pc.list_flatten(labels).to_numpy().reshape(-1, classes)
                counts = [old + int(new) for old, new in zip(counts, flat.sum(0), strict=True)]
            else:
                for pair in pc.value_counts(labels).to_pylist():
                    counts[pair["values"]] += pair["counts"]
    return counts
