"""The arrow files of one split, whole or in shards: found, complete, joined."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa

from clip.datasets.ipc import is_packed
from clip.utils.errors import UserError

# What pyarrow raises on a damaged file, and `is_packed`.
UNREADABLE = (pa.ArrowException, OSError, ValueError, LookupError, struct.error)
SHARD = re.compile(r"-\d{5}-of-\d{5}")


def find_shards(folder: Path, name: str) -> list[Path]:
    """List ``{name}-00000-of-00016.arrow`` and so on in order, or nothing.

    Raises:
        UserError: one of them is absent, or they belong to files cut up in different ways.
    """
    found = [path for path in sorted(folder.glob(f"{name}-*.arrow"))
             if SHARD.fullmatch(path.stem.removeprefix(name))]  # fmt: skip
    totals = sorted({path.stem.rpartition("-")[2] for path in found})
    if len(totals) > 1:
        raise UserError(f"{folder} has {name} in {' and in '.join(totals)} shards; leave one set there")
    for total in totals:
        wanted = [folder / f"{name}-{i:05d}-of-{total}.arrow" for i in range(int(total))]
        if absent := [path.name for path in wanted if path not in found]:
            raise UserError(
                f"{folder} lacks {absent[0]}, {len(absent)} of {len(wanted)} shards are not there; fetch them all"
            )
        if found != wanted:
            raise UserError(f"{found[-1]} is no shard of {len(wanted)}; remove it")
    return found


def open_table(*paths: Path) -> pa.Table:
    """Memory-map arrow files and join their rows, in order, without a copy.

    Offsets and letters are checked here, once; an image is not looked at.

    Raises:
        UserError: one is absent, truncated, foreign or compressed, or has other columns than the
            first.
    """
    tables = [_read(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if not table.schema.equals(tables[0].schema):
            raise UserError(
                f"{path} has other columns than {paths[0]} ({_columns(table)}; "
                f"{_columns(tables[0])}); make them again from one data set"
            )
    return pa.concat_tables(tables)


def _open_file(path: Path) -> pa.ipc.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except UNREADABLE as error:
        raise _not_whole(path, error) from None


def _read(path: Path) -> pa.Table:
    reader = _open_file(path)
    try:
        if is_packed(path):  # a few bytes could unpack to more than the memory
            raise UserError(f"{path} is compressed, which no memory map can read; write it plain")
        table = reader.read_all()
        table.validate(full=True)  # a wrong offset would end the program when a row is read
    except UNREADABLE as error:
        raise _not_whole(path, error) from None
    return table


def _not_whole(path: Path, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} is no whole arrow file ({cause}); make it again: make_arrow.py")


def read_facts(path: Path) -> dict[str, Any]:
    """Read what an arrow file says of its labels, from its schema alone.

    Returns:
        "class_names" (list of strings) and "task_type", or nothing in files that do not say it.

    Raises:
        UserError: no arrow file, or what it says cannot be read.
    """
    said = _open_file(path).schema.metadata or {}
    if not said.keys() & {b"class_names", b"task_type"}:
        return {}
    try:
        names, task_type = json.loads(said[b"class_names"]), said[b"task_type"].decode()
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} names its classes in no way that is known ({error!r})") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} has class_names={names!r:.80}; it must be a JSON list of strings")
    return {"class_names": names, "task_type": task_type}


def _columns(table: pa.Table) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in table.schema)
