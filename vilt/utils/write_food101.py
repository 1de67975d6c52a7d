"""UPMC Food-101: split.json, class_idx.json, titles and images to arrow rows."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from vilt.utils import arrow
from vilt.utils.raw import (
    RawDataError,
    Skipped,
    Unread,
    read_object,
    read_splits,
    require,
)
from vilt.utils.reader import Reader

SCHEMA = arrow.schema(text=arrow.TEXTS, label=arrow.CLASS)
PUBLISHED = {"train": 61142, "val": 6846, "test": 22716}  # names in split.json

MOST_CLASSES = 10_000
FOLDERS = {"train": "train", "val": "train", "test": "test"}
TITLES = ("texts/train_titles.csv", "texts/test_titles.csv")

_RECORD = re.compile(r"([^,\"]+_\d+)\.(?:jpg|txt),(.*)", re.DOTALL)


def make_arrow(root: Path, target: Path, reader: Reader | None = None) -> str:
    """Writes food101_{train,val,test}.arrow and returns the closing table."""
    require(root, "split.json", "class_idx.json", "images/train", "images/test")
    names = read_splits(root / "split.json", PUBLISHED)
    classes = _read_classes(root / "class_idx.json")
    for name in (name for split in PUBLISHED for name in names[split]):
        if food_class(name) not in classes:
            raise RawDataError(f"{root / 'class_idx.json'} has no index for class {food_class(name)!r} of {name}")
    texts = read_texts(root)
    splits = {split: (len(names[split]), _items(root, split, names[split], classes, texts)) for split in PUBLISHED}
    schema = _named(classes)
    return arrow.convert(target, "food101_", schema, splits, PUBLISHED, reader or Reader())


def _read_classes(path: Path) -> dict[str, int]:
    classes = read_object(path)
    for name, number in classes.items():
        if type(number) is not int or not 0 <= number < MOST_CLASSES:
            raise RawDataError(
                f"{path} gives the class {name!r:.60} the number {number!r:.60}; give whole numbers from 0 on"
            )
    return classes


def _named(classes: Mapping[str, int]) -> pa.Schema:
    """The schema with the names of the classes, if they are numbered 0, 1, 2, ..."""
    by_number = {number: name for name, number in classes.items()}
    names = [by_number.get(number) for number in range(len(classes))]
    return SCHEMA if None in names else arrow.with_classes(SCHEMA, names, "multiclass")


def food_class(name: str) -> str:
    """`apple_pie_12.jpg` is an `apple_pie`."""
    return name.rpartition("_")[0]


def _items(
    root: Path,
    split: str,
    names: list[str],
    classes: Mapping[str, int],
    texts: Mapping[str, str],
) -> Iterator[Unread | Skipped]:
    for name in names:
        text = texts.get(name, "")
        if not text.strip():
            yield Skipped("no text", name)
            continue
        food = food_class(name)
        columns = {"text": [text], "label": classes[food], "image_id": name, "split": split}
        yield Unread(root / "images", f"{FOLDERS[split]}/{food}/{name}", columns)


def read_texts(root: Path) -> dict[str, str]:
    """Reads file name → title from text.json, or from the two csv files where it is absent."""
    path = root / "text.json"
    if not path.exists():
        require(root, *TITLES)
        return {k: v for file in TITLES for k, v in _read_titles(root / file).items()}
    texts = read_object(path)
    if not all(isinstance(text, str) for text in texts.values()):
        raise RawDataError(f"{path} must map each file name to one text")
    return texts


def _read_titles(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        return parse_titles(lines)


def parse_titles(lines: Iterable[str]) -> dict[str, str]:
    """Reads `name,title,class` lines, more tolerantly than csv.

    A title may hold commas with or without quotes, or run over several lines. In the public
    train_titles.csv the quote of one row (breakfast_burrito_730) is never closed, and the rows
    behind it are named .txt instead of .jpg: a csv reader swallows them all.
    """
    fields: dict[str, str] = {}
    name = None
    for line in lines:
        record = _RECORD.fullmatch(line.rstrip("\n"))
        if record:
            name = record[1].rpartition("/")[2] + ".jpg"
            fields[name] = record[2]
        elif name:
            fields[name] += " " + line.rstrip("\n")
    return {name: _title(rest, food_class(name)) for name, rest in fields.items()}


def _title(rest: str, food: str) -> str:
    title = rest.rstrip().removesuffix(f",{food}")
    if title.startswith('"'):
        title = title[1:].removesuffix('"').replace('""', '"')
    return title
