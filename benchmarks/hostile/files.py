"""Good files to begin with."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SPLITS = ("train", "dev", "test")
TABLES = (".csv", ".jsonl", ".parquet")
FORMATS = {".png": "PNG", ".jpeg": "JPEG", ".gif": "GIF", ".bmp": "BMP", ".ppm": "PPM",
           ".tiff": "TIFF", ".webp": "WEBP", ".jp2": "JPEG2000", ".avif": "AVIF"}  # fmt: skip
LABELS = [{"image": "a.png", "text": "one, \"two\"", "label": "cat", "split": "train"},
          {"image": "", "text": "b", "label": "dog", "split": "dev"},
          {"image": "a.png", "text": "", "label": "cat", "split": "test"}]  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A reader under attack.

    Attributes:
        targets: files that are spoiled, one at a time.
        read: reads what lies in the folder; is told which file was spoiled.
    """

    targets: list[Path]
    read: Callable[[Path], Any]


def picture(suffix: str = ".png", size: tuple[int, int] = (12, 9)) -> bytes:
    """Encode a small image."""
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, FORMATS[suffix])
    return file.getvalue()


def put(path: Path, content: Any) -> Path:
    """Write bytes as they are, a list as lines of JSON, and all else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        lines = content if isinstance(content, list) else [content]
        content = "\n".join(map(json.dumps, lines)).encode()
    path.write_bytes(content)
    return path


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        put(path, rows)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return path
