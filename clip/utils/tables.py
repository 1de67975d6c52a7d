"""Read csv, jsonl and parquet tables provided by users."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clip.utils.errors import UserError, escape
from clip.utils.files import parse_object

# Words that pandas reads as NaN, here in all formats.
EMPTY_WORDS = {"#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "-nan", "-NaN"}


def read_table(path: Path) -> pd.DataFrame:
    """Read a csv (UTF-8, with a header), jsonl or parquet file.

    Rows are numbered from 1, without the header; blank lines do not count. Column names are stripped. Cells are Python
    objects; in a csv file, strings. Empty cells and words that pandas reads as NaN, such as "nan", become None; the
    number of such words is printed.
    """
    kind = path.suffix.lower()
    if kind not in READERS:
        raise UserError(f"{path} is not a table; give a file that ends in {', '.join(READERS)}")
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the path")
    try:
        names, rows = READERS[kind](path)
    except UserError:
        raise
    except (csv.Error, pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is not a valid {kind[1:]} file ({reason}); write it again") from None
    names = [str(name).strip() for name in names]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path} has the column {repeated[0]!r} twice; remove or rename one")
    if words := [cell for row in rows for cell in row if isinstance(cell, str) and cell in EMPTY_WORDS]:
        print(escape(f"{path}: {len(words)} cells such as {words[0]!r} are read as empty"), file=sys.stderr)
    empty = {"", *EMPTY_WORDS}
    cells = [[None if c != c or (isinstance(c, str) and c in empty) else c for c in row] for row in rows]
    return pd.DataFrame(cells, columns=names, index=range(1, len(rows) + 1), dtype=object)


def _read_csv(path: Path) -> tuple[list[Any], list[list[Any]]]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)  # otherwise an unclosed quote extends to the end of the file
        names, *rows = [cells for cells in lines if cells] or [[]]
    for number, cells in enumerate(rows, start=1):
        if len(cells) != len(names):
            raise UserError(
                f"{path} row {number} below the header has {len(cells)} cells, but the header has {len(names)}; put "
                "texts with commas or line breaks into double quotes, and a comma for every empty cell"
            )
    return names, rows


def _read_jsonl(path: Path) -> tuple[list[Any], list[list[Any]]]:
    lines = filter(bytes.strip, path.read_bytes().splitlines())
    records = [parse_object(line, f"{path} row {number}") for number, line in enumerate(lines, start=1)]
    names = list(dict.fromkeys(name for record in records for name in record))
    return names, [[record.get(name) for name in names] for record in records]


def _read_parquet(path: Path) -> tuple[list[Any], list[list[Any]]]:
    table = pq.read_table(path)
    columns = [column.to_pylist() for column in table.columns]
    try:
        # Hugging Face data sets store class numbers, -1 for none, and their names beside the schema.
        content = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        for name, feature in content.get("info", {}).get("features", {}).items():
            feature = feature[0] if isinstance(feature, list) else feature  # the older form of a list
            feature = feature.get("feature", feature) if isinstance(feature, dict) else {}
            if feature.get("_type") == "ClassLabel" and name in table.column_names:
                names, i = {-1: None} | dict(enumerate(feature["names"])), table.column_names.index(name)
                columns[i] = [
                    [names[n] for n in cell] if isinstance(cell, list) else names.get(cell) for cell in columns[i]
                ]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its class names cannot be read: {error!r:.100}") from None
    return table.column_names, [list(row) for row in zip(*columns, strict=True)]


READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
