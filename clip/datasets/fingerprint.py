"""Tells whether arrow files still hold what a run was trained on, without reading all of them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clip.datasets.shards import open_table

IMAGE = "image"
WHOLE_IMAGES = 256  # spread evenly; all images of 10 GB would take a minute
SHOWN = 16


def fingerprint(*paths: Path) -> str:
    """Hash what a split holds, whatever its files are called and however they are cut.

    Columns, types, number of rows, every value of every column but the images; of each image its
    length, and the bytes of ``WHOLE_IMAGES`` of them. Not seen: other bytes of the same length in
    another image.

    Args:
        paths: the file, or all its shards in order.

    Returns:
        "<rows> rows <hash>".

    Raises:
        UserError: as ``shards.open_table``.
    """
    table = open_table(*paths)
    digest = hashlib.sha256(repr((table.num_rows, _columns(table))).encode())
    for name in sorted(table.column_names):
        column = table.column(name)
        for part in _images(column) if name == IMAGE else _values(column):
            digest.update(part)
    return f"{table.num_rows} rows {digest.hexdigest()[:SHOWN]}"


def _columns(table: pa.Table) -> list[tuple[str, str]]:
    return sorted((column.name, str(column.type)) for column in table.schema)


def _images(column: pa.ChunkedArray) -> list[bytes]:
    lengths = [pc.fill_null(pc.binary_length(chunk), -1).to_numpy() for chunk in column.chunks]
    chosen = np.linspace(0, len(column) - 1, min(len(column), WHOLE_IMAGES)).astype(int)
    return [np.concatenate([np.zeros(0, np.int64), *lengths]).astype(np.int64).tobytes(),
            *(column[int(row)].as_py() or b"" for row in chosen)]  # fmt: skip


def _values(column: pa.ChunkedArray) -> Iterator[bytes]:
    """Write values, not buffers: these depend on where a file was cut."""
    for chunk in column.chunks:
        for value in chunk.to_pylist():
            yield repr(value).encode()
