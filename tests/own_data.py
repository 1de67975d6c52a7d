"""A manifest of one's own: tiny, with cells that are really empty, in all three file types."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.raw_data import draw

SHAPES = ("circle", "square", "star")


def write_manifest(path: Path, rows: list[dict]) -> Path:
    """Writes the rows in the format of the suffix; a list of labels is a|b in csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for row in rows for k in row)))
            writer.writeheader()
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _cell(value: object) -> object:
    if isinstance(value, list):
        return "|".join(map(str, value)) + "|" * (len(value) < 2)
    return value


def shapes(folder: Path, counts: dict[str, int], several: bool = False) -> list[dict]:
    """Rows of which every fifth has no text and every seventh no image; draws the images."""
    rows = []
    for split, count in counts.items():
        for i in range(count):
            name, image = SHAPES[i % 3], f"pictures/{split}{i}.png"
            draw(folder / image, 5 * len(rows))  # distinct for fifty rows
            rows.append({
                "image": "" if i % 7 == 6 else image,
                "text": "" if i % 5 == 4 and i % 7 != 6 else f"a {name}, number {i} of {split}",
                "label": [name, SHAPES[0]][: 1 + i % 2] if several else name,
                "split": split,
            })  # fmt: skip
    return rows
