"""Write arrow files from raw rows: streamed in record batches, and only as complete files."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from tqdm import tqdm

from clip.utils.errors import UserError
from clip.utils.files import atomic_write_all, named
from vilt.utils.image_pool import ImagePool
from vilt.utils.raw import Item, Note, PendingRow, Row, Skip, summarize

T = TypeVar("T")

BATCH_BYTES = 16 * 2**20  # per record batch; bounds memory for any size of data set
BATCH_ROWS = 4096

TEXTS = pa.list_(pa.string())
CLASS = pa.int64()


def schema(**columns: pa.DataType) -> pa.Schema:
    """Return a schema of these columns and those of every data set: image, image_id and split."""
    return pa.schema({"image": pa.binary(), **columns, "image_id": pa.string(), "split": pa.string()})


def with_classes(schema: pa.Schema, names: Sequence[str], task_type: str) -> pa.Schema:
    """Return the schema with class names, in label order, and a task type such as "multilabel"."""
    return schema.with_metadata({"class_names": json.dumps(list(names)), "task_type": task_type})


def write_arrow(path: Path, schema: pa.Schema, rows: Iterable[Row]) -> int:
    """Stream rows into an arrow IPC file and return their number."""
    batch: list[Row] = []
    batch_bytes = num_rows = 0
    with path.open("wb") as file, pa.ipc.new_file(file, schema) as writer:
        for row in rows:
            row_bytes = sum(len(value if isinstance(value, bytes) else str(value)) for value in row.values())
            if batch and (batch_bytes + row_bytes > BATCH_BYTES or len(batch) == BATCH_ROWS):
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
                batch, batch_bytes = [], 0
            batch.append(row)
            batch_bytes += row_bytes
            num_rows += 1
        if batch:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
    return num_rows


def convert(
    target: Path,
    prefix: str,
    schema: pa.Schema,
    splits: Mapping[str, Sequence[T]],
    pending_row: Callable[[str, T], PendingRow | Skip],
    published: Mapping[str, int],
    pool: ImagePool | None = None,
) -> str:
    """Write ``{prefix}{split}.arrow`` into target for each split and return a summary table.

    ``splits`` maps a split to its raw rows, and ``pending_row`` converts a raw row of a split. All files are renamed
    together, since new splits mixed with old ones could share rows. ``published`` are row counts for comparison; if
    it is empty, the table has no such column.
    """
    lines = [f"{'split':6} {'written':>8}{' published' if published else ''} {'skipped':>8}  why"]
    paths = {split: target / f"{prefix}{split}.arrow" for split in splits}
    seen: set[str] = set()  # over all splits, to detect leakage between them

    def usable(items: Iterable[Item], skipped: defaultdict, noted: defaultdict) -> Iterator[Row]:
        for item in items:
            if isinstance(item, Note | Skip):
                (noted if isinstance(item, Note) else skipped)[item.reason].append(item.name)
                continue
            if item["image_id"] in seen:
                noted["duplicate image_id"].append(item["image_id"])
            seen.add(item["image_id"])
            yield item

    with pool or ImagePool() as pool, atomic_write_all(*paths.values()) as partials:
        for split, raw_rows in splits.items():
            path, skipped, noted = paths[split], defaultdict(list), defaultdict(list)
            with tqdm(raw_rows, path.name, unit="row", disable=None) as bar, named(path, partials[path]):
                items = pool.items(pending_row(split, raw_row) for raw_row in bar)
                written = write_arrow(partials[path], schema, usable(items, skipped, noted))
            if not written:
                raise UserError(f"no row for {path}: {summarize(skipped) or 'the split is empty'}")
            num_skipped = sum(map(len, skipped.values()))
            expected = f" {published[split]:9}" if published else ""
            line = f"{split:6} {written:8}{expected} {num_skipped:8}  {summarize(skipped)}"
            lines.append(line.rstrip())
            if noted:
                lines.append(f"{'':6} noted: {summarize(noted)}")
    return "\n".join(lines)
