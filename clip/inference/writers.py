"""Predictions to a file, batch by batch; it gets its name when it is whole."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clip.utils.errors import UserError
from clip.utils.files import named

Write = Callable[[pd.DataFrame], None]


@contextlib.contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield lambda frame: frame.to_csv(file, index=False, header=not file.tell())


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    with contextlib.ExitStack() as stack:
        writers: list[pq.ParquetWriter] = []

        def write(frame: pd.DataFrame) -> None:
            if not writers:  # the first batch decides; no column is ever of another type
                schema = pa.Schema.from_pandas(frame, preserve_index=False)
                writers.append(stack.enter_context(pq.ParquetWriter(path, schema)))
            writers[0].write_table(pa.Table.from_pandas(frame, writers[0].schema))

        yield write


WRITERS = {".csv": _csv, ".parquet": _parquet}


def check_output(path: Path) -> None:
    """Refuse a name before any work is done.

    Raises:
        UserError: it is of no known kind, or there is such a file, or no such folder.
    """
    if path.suffix.lower() not in WRITERS:
        raise UserError(f"output={path} is of no known kind; give a name in {', '.join(WRITERS)}")
    if path.exists():
        raise UserError(f"output={path} is there already; give another name or remove it")
    if not path.parent.is_dir():
        raise UserError(f"output={path}: there is no folder {path.parent}; make it")


@contextlib.contextmanager
def written(path: Path) -> Iterator[Write]:
    """Open a file for batches; it appears whole, or not at all where nothing was written."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with named(path, partial), WRITERS[path.suffix.lower()](partial) as write:
            yield write
        if partial.exists() and partial.stat().st_size:
            _name(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _name(partial: Path, path: Path) -> None:
    """Give a file its name unless somebody else has taken it since ``check_output``."""
    try:
        os.link(partial, path)
    except OSError:  # it is there, or a disk without links knows no such step
        check_output(path)
        os.replace(partial, path)
