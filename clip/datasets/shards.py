"""Arrow files of one split, complete or in shards: find, memory-map and join them."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from clip.utils.errors import UserError, first_line

SHARD = re.compile(r"-\d{5}-of-\d{5}")


def find_shards(folder: Path, name: str) -> list[Path]:
    """List ``{name}-00000-of-00016.arrow`` and so on in order, or nothing; they must be one complete set."""
    found = [path for path in sorted(folder.glob(f"{name}-*.arrow")) if SHARD.fullmatch(path.stem.removeprefix(name))]
    if found:
        total = found[-1].stem[-5:]
        wanted = [folder / f"{name}-{number:05d}-of-{total}.arrow" for number in range(int(total))]
        if odd := sorted(set(wanted) ^ set(found)):
            problem = "is not one of them" if odd[0] in found else "is missing"
            raise UserError(
                f"{folder} needs {total} shards of {name}, but {odd[0].name} {problem}; copy one complete set"
            )
    return found


def open_table(*paths: Path) -> pa.Table:
    """Memory-map arrow files and join their rows, in order, without a copy.

    Offsets and characters are checked here, once; images are not read.
    """
    tables = []
    for path in paths:
        table = _open(path)
        if tables and not table.schema.equals(tables[0].schema):
            ours, theirs = (", ".join(f"{each.name} {each.type}" for each in t.schema) for t in (table, tables[0]))
            raise UserError(f"{path} has other columns than {paths[0]} ({ours}; {theirs}); make them from one data set")
        tables.append(table)
    return pa.concat_tables(tables)


def read_label_metadata(path: Path) -> dict[str, Any]:
    """Read "class_names" (list of strings) and "task_type" from the schema of an arrow file, or nothing."""
    metadata = _open(path, rows=False).schema.metadata or {}
    if not metadata.keys() & {b"class_names", b"task_type"}:
        return {}
    try:
        names, task_type = json.loads(metadata[b"class_names"]), metadata[b"task_type"].decode()
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("class_names is not a list of strings")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} has no valid class names ({error!r}); run make_arrow.py again") from None
    return {"class_names": names, "task_type": task_type}


def _open(path: Path, rows: bool = True) -> pa.Table:
    """Memory-map an arrow file, or read its schema alone."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if not rows:
            return reader.schema.empty_table()
        table = reader.read_all()
        table.validate(full=True)  # a wrong offset would crash the process when a row is read
        return table
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not a complete arrow file ({first_line(error)}); run make_arrow.py again") from None
