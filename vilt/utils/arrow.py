"""The one place that writes arrow: record batches in a stream, and whole files or none."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from vilt.utils.parts import named, together
from vilt.utils.raw import Item, Noted, RawDataError, Row, Skipped, Tally, Unread
from vilt.utils.reader import Reader

BATCH_BYTES = 16 * 2**20  # payload of a record batch; bounds memory whatever the data set's size
BATCH_ROWS = 4096

TEXTS = pa.list_(pa.string())
CLASS = pa.int64()


def schema(**columns: pa.DataType) -> pa.Schema:
    """The columns of one data set between those that all have: image, image_id, split."""
    return pa.schema({"image": pa.binary(), **columns, "image_id": pa.string(), "split": pa.string()})


def with_classes(schema: pa.Schema, names: Sequence[str], task_type: str) -> pa.Schema:
    """Lets the files say what their labels mean.

    Args:
        schema: Columns and types.
        names: Of the classes, in the order of their numbers or of their positions in a list.
        task_type: "binary", "multiclass" or "multilabel".
    """
    return schema.with_metadata({"class_names": json.dumps(list(names)), "task_type": task_type})


@dataclass
class Counts:
    """What became of the rows of one split."""

    written: int = 0
    skipped: Tally = field(default_factory=Tally)
    noted: Tally = field(default_factory=Tally)


def _sift(items: Iterable[Item], counts: Counts, seen: set[str]) -> Iterator[Row]:
    for item in items:
        if isinstance(item, Skipped):
            counts.skipped.add(item)
        elif isinstance(item, Noted):
            counts.noted.add(item)
        else:
            name = item.get("image_id")  # files of others may have none
            if name in seen:
                counts.noted.add(Noted("second row of its name", name))
            if name is not None:
                seen.add(name)
            counts.written += 1
            yield item


def _size(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, bytes | str) else 8


def _batches(rows: Iterable[Row], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    pending: list[Row] = []
    filled = 0
    for row in rows:
        size = sum(map(_size, row.values()))
        if pending and (filled + size > BATCH_BYTES or len(pending) == BATCH_ROWS):
            yield pa.RecordBatch.from_pylist(pending, schema)
            pending, filled = [], 0
        pending.append(row)
        filled += size
    if pending:
        yield pa.RecordBatch.from_pylist(pending, schema)


def write_arrow(path: Path, schema: pa.Schema, items: Iterable[Item]) -> Counts:
    """Streams rows into an arrow IPC file that gets its name only when it is complete.

    Args:
        path: The final file; what stands there stays until the new file is whole.
        schema: Columns and types.
        items: Rows in file order, mixed with `Skipped` and `Noted`.

    Returns:
        What was written, skipped and noted.

    Raises:
        RawDataError: If no row is left to write.
    """
    with together(path) as parts:
        return _fill(parts[path], path, schema, items, set())


def _fill(part: Path, path: Path, schema: pa.Schema, items: Iterable[Item], seen: set[str]) -> Counts:
    counts = Counts()
    with named(path), part.open("wb") as sink:
        with pa.ipc.new_file(sink, schema) as writer:
            for batch in _batches(_sift(items, counts, seen), schema):
                writer.write_batch(batch)
        sink.flush()
        os.fsync(sink.fileno())
    if not counts.written:
        raise RawDataError(f"no row for {path}: {str(counts.skipped) or 'the split is empty'}")
    return counts


def convert(
    target: Path,
    prefix: str,
    schema: pa.Schema,
    splits: Mapping[str, tuple[int, Iterable[Unread | Skipped]]],
    published: Mapping[str, int],
    reader: Reader,
) -> str:
    """Writes `{prefix}{split}.arrow` into target for each split and returns the closing table.

    The files get their names together: beside old ones, new splits could share rows with them.

    Args:
        target: The folder to write to.
        prefix: What the file names begin with.
        schema: Columns and types.
        splits: Number of rows and the rows of each split.
        published: Rows of the real data in each split, shown for comparison; none for one's own.
        reader: Reads the images.
    """
    table = [f"{'split':6} {'written':>8} {'published':>9} {'skipped':>8}  why"]
    paths = {split: target / f"{prefix}{split}.arrow" for split in splits}
    seen: set[str] = set()  # of all splits: a row of train in test would be known
    with reader, together(*paths.values()) as parts:
        for split, (total, rows) in splits.items():
            path = paths[split]
            with tqdm(total=total, desc=path.name, unit="row", disable=None) as bar:
                items = _watched(reader.items(rows), bar)
                counts = _fill(parts[path], path, schema, items, seen)
            table += _report(split, counts, published.get(split, "-"))
    return "\n".join(table)


def _report(split: str, counts: Counts, published: int | str) -> Iterator[str]:
    skipped = counts.skipped.counts.total()
    row = f"{split:6} {counts.written:8} {published:>9} {skipped:8}  {counts.skipped}"
    yield row.rstrip()
    if counts.noted.counts:
        yield f"{'':6} noted: {counts.noted}"


def _watched(items: Iterable[Item], bar: tqdm) -> Iterator[Item]:
    for item in items:
        bar.update(not isinstance(item, Noted))
        yield item


def check_arrow(path: Path, required: Iterable[str]) -> int:
    """Opens an arrow file without reading its images and returns its number of rows.

    Raises:
        RawDataError: If it is no arrow file or lacks a required column.
    """
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            absent = set(required) - set(reader.schema.names)
            rows = reader.count_rows()  # unpacks nothing
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RawDataError(f"{path} is not an arrow file ({error}); fetch it again") from None
    if absent:
        raise RawDataError(f"{path} has no column {', '.join(sorted(absent))}")
    return rows
