"""Many things to classify, row by row: a table of image paths and texts, or a folder of images."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clip.inference.samples import FORMATS
from clip.utils.errors import UserError

COLUMNS = ("image", "text")
PARQUET_ROWS = 256  # read at once
SMALL = 2**26  # bytes that any parquet file may unpack to
MOST_PACKED = 1000  # times its size, beyond that
MAC = "._"  # what macOS puts beside each file in archives and on other systems' disks


class Row(NamedTuple):
    """One row as it was given.

    Attributes:
        number: counted from 1, without a header.
        image: path, as given or found; bytes of a file in a parquet's binary column; or missing.
        text: or missing.
        fault: why the row has no image and text, or "".
    """

    number: int
    image: Any
    text: Any
    fault: str = ""


def _check_columns(names: Sequence[str] | None, path: Path) -> None:
    names = names or ()
    if not set(COLUMNS) & set(names):
        raise UserError(
            f"input={path} has neither a column image nor a column text; its columns are {', '.join(names) or 'none'}"
        )
    if repeated := [name for name in COLUMNS if names.count(name) > 1]:
        raise UserError(f"input={path} has the column {repeated[0]} twice; leave one")


def _row(number: int, found: dict[str, Any], fault: str = "") -> Row:
    image, text = (found.get(name) for name in COLUMNS)
    return Row(number, image.strip() if isinstance(image, str) else image, text, fault)


def _read_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)  # else an open quote swallows the rest
        _check_columns(reader.fieldnames, path)
        for number, cells in enumerate(reader, 1):
            fault = ""
            if None in cells or None in cells.values():
                more = "more" if None in cells else "fewer"
                fault = f"{more} cells than the header names; put quotes around commas"
            yield _row(number, cells, fault)


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(filter(str.strip, file), 1):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                yield _row(number, {}, 'no JSON object such as {"image": …, "text": …}')
            else:
                yield _row(number, found, _fault_of_keys(found))


def _fault_of_keys(found: dict[str, Any]) -> str:
    if set(COLUMNS) & set(found):
        return ""
    return f"neither a key image nor a key text; its keys are {', '.join(found)[:80] or 'none'}"


def _read_parquet(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        _check_columns(names, path)
        _refuse_bomb(path, file.metadata)
        number = 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=[c for c in COLUMNS if c in names]):
            for found in batch.to_pylist():
                number += 1
                yield _row(number, found)


def _refuse_bomb(path: Path, about: pq.FileMetaData) -> None:
    # Not by column: what a damaged file says of one can end the program.
    said = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    size = path.stat().st_size
    if said > max(SMALL, MOST_PACKED * size):
        raise UserError(f"input={path} unpacks {size:,} bytes to {said:,}, which no table needs; write it again")


def _read_folder(path: Path) -> Iterator[Row]:
    known = Image.registered_extensions()
    files = (file for file in path.rglob("*") if known.get(file.suffix.lower()) in FORMATS
             and not file.name.startswith(MAC))  # fmt: skip
    files = sorted(file for file in files if file.is_file())
    if not files:
        raise UserError(f"input={path} holds no images; give another folder, or a table")
    for number, file in enumerate(files, 1):
        yield Row(number, str(file.relative_to(path)), None)


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def read_rows(path: Path) -> Iterator[Row]:
    """Read a table with the columns image, text or both, or the images of a folder and below.

    Rows come as they are read; only the names in a folder are held together.

    Args:
        path: a csv (UTF-8, with a header), jsonl or parquet file, or a folder.

    Raises:
        UserError: there is nothing of that kind.
    """
    if not path.exists():
        raise UserError(f"input={path} does not exist; give {', '.join(READERS)} or a folder")
    read = _read_folder if path.is_dir() else READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(f"input={path} is of no known kind; give {', '.join(READERS)} or a folder")
    try:
        yield from read(path)
    except UserError:
        raise
    except (csv.Error, ValueError, pa.ArrowException, OSError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"input={path} cannot be read ({cause})") from None


def base_of(path: Path) -> Path:
    """Give the folder that the image paths of an input start from."""
    return path if path.is_dir() else path.parent
