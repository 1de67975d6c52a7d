"""A manifest, one's own table of images, texts and labels: its rows in a stream, checked."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vilt.utils.raw import RawDataError

COLUMNS = ("image", "text", "label")
SPLIT = "split"
SPLITS = {"train": "train", "val": "val", "dev": "val", "test": "test"}
SEPARATOR = "|"  # between the labels of one csv cell
ROWS_READ = 1024  # rows of a parquet file in memory
SMALL = 2**26  # bytes that any parquet file may unpack to
MOST_PACKED = 1000  # times its size, beyond that

Record = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One row of a manifest.

    Args:
        number: Of the row, from 1; a blank line is none.
        image: Path relative to the manifest, or "".
        text: The text, or "" where it is blank.
        labels: Names of its classes; None where the row says nothing.
        several: Whether the label was written as a list.
        split: train, val or test; None where the manifest has no such column.
    """

    number: int
    image: str
    text: str
    labels: tuple[str, ...] | None
    several: bool
    split: str | None

    @property
    def name(self) -> str:
        """What a report calls the row."""
        return self.image or f"row {self.number}"


def read_entries(path: Path) -> Iterator[Entry]:
    """Yields the rows of a csv, jsonl or parquet file, a few of them in memory at a time.

    Raises:
        RawDataError: If the file is none of these, lacks a column, or a row is not valid; the
            message names the row.
    """
    kind = path.suffix.lower()
    if kind not in READERS:
        raise RawDataError(f"{path} is no manifest: give a file that ends in {', '.join(READERS)}")
    if not path.is_file():
        raise RawDataError(f"{path} is absent; give the manifest's own path as --root")
    number, seen = 0, set[str]()
    try:
        for number, record in enumerate(READERS[kind](path), start=1):
            if seen and (SPLIT in record) != (SPLIT in seen):
                before = "have" if SPLIT in seen else "lack"
                raise RawDataError(
                    f"{path} row {number} differs from the rows before it, which {before} a "
                    f"{SPLIT}: give one in every row or in none"
                )
            seen.update(record)
            yield _entry(f"{path} row {number}", number, record, kind == ".csv")
    except RawDataError:
        raise
    except (csv.Error, pa.ArrowException, OSError, ValueError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise RawDataError(f"{path} is no valid {kind[1:]} file ({cause})") from None
    if not number:
        raise RawDataError(f"{path} has no rows; give at least one for each split")
    if absent := [column for column in COLUMNS if column not in seen]:
        found = ", ".join(sorted(seen)) or "nothing"
        raise RawDataError(f"{path} has no column {', '.join(absent)}, but {found}; see DATA.md")


def _read_csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        _refuse_repeats(path, reader.fieldnames or ())
        for number, record in enumerate(reader, start=1):
            if None in record or None in record.values():
                more = "more" if None in record else "fewer"
                raise RawDataError(
                    f"{path} row {number} has {more} cells than the header: put a text that holds "
                    "commas or line ends into double quotes, and a comma for every empty cell"
                )
            yield record


def _refuse_repeats(path: Path, names: Sequence[str]) -> None:
    if repeated := [name for name in (*COLUMNS, SPLIT) if names.count(name) > 1]:
        raise RawDataError(f"{path} has the column {repeated[0]} twice; leave one")


def _read_jsonl(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(filter(str.strip, lines), start=1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RawDataError(f"{path} row {number} is not valid JSON ({error})") from None
            if not isinstance(record, dict):
                raise RawDataError(f"{path} row {number} is no JSON object")
            yield record


def _read_parquet(path: Path) -> Iterator[Record]:
    with pq.ParquetFile(path) as file:
        _refuse_repeats(path, file.schema_arrow.names)
        _refuse_bomb(path, file.metadata)
        wanted = [name for name in file.schema_arrow.names if name in (*COLUMNS, SPLIT)]
        for batch in file.iter_batches(ROWS_READ, columns=wanted):
            yield from batch.to_pylist()


def _refuse_bomb(path: Path, about: pq.FileMetaData) -> None:
    # Not by column: what a damaged file says of one can end the program.
    said = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    size = path.stat().st_size
    if said > max(SMALL, MOST_PACKED * size):
        raise RawDataError(f"{path} unpacks {size:,} bytes to {said:,}, which no table needs; write it again")


READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}


def _entry(place: str, number: int, record: Record, in_csv: bool) -> Entry:
    image, text = (_string(place, key, record.get(key)) for key in ("image", "text"))
    label, split = record.get("label"), record.get(SPLIT)
    if SPLIT in record and (not isinstance(split, str) or split not in SPLITS):
        raise RawDataError(f"{place} has the split {split!r:.60}; it is one of {', '.join(SPLITS)}")
    if in_csv and isinstance(label, str) and SEPARATOR in label:
        label = [name for name in label.split(SEPARATOR) if name.strip()]
    several = isinstance(label, list)
    labels = tuple(_name(place, one) for one in (label if several else [label]))
    if several and not all(labels):
        raise RawDataError(f"{place} has an empty label in its list; leave it out")
    return Entry(number, image.strip(), text if text.strip() else "",
                 labels if several or all(labels) else None, several,
                 SPLITS[split] if SPLIT in record else None)  # fmt: skip


def _string(place: str, key: str, value: Any) -> str:
    if value is None or value != value:  # NaN, as pandas writes an empty cell
        return ""
    if not isinstance(value, str):
        raise RawDataError(f"{place} has the {key} {value!r:.60}; give a text, or leave it empty")
    return _encodable(place, key, value)


def _encodable(place: str, key: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can escape one half of a surrogate pair
        raise RawDataError(
            f"{place} has half a character in its {key}, {text[error.start]!a} at {error.start}; remove it"
        ) from None
    return text


def _name(place: str, label: Any) -> str:
    """A label's class; "" where there is none."""
    if isinstance(label, float) and (label.is_integer() or label != label):
        label = int(label) if label == label else None  # pandas' integers beside an empty cell
    if label is None:
        return ""
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise RawDataError(f"{place} has the label {label!r:.60}; give a text, a whole number or a list of them")
    return _encodable(place, "label", str(label).strip())
