"""Convert UPMC Food-101 (split.json, class_idx.json, titles and images) to arrow files."""

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from clip.utils.errors import UserError
from vilt.utils import arrow
from vilt.utils.image_pool import ImagePool
from vilt.utils.raw import PendingRow, Skip, read_object, read_splits, require_paths

SCHEMA = arrow.schema(text=arrow.TEXTS, label=arrow.CLASS)
PUBLISHED = {"train": 61142, "val": 6846, "test": 22716}  # names in split.json

MAX_CLASSES = 10_000
TITLES = ("texts/train_titles.csv", "texts/test_titles.csv")

_RECORD = re.compile(r"([^,\"]+_\d+)\.(?:jpg|txt),(.*)", re.DOTALL)


def make_arrow(root: Path, target: Path, pool: ImagePool | None = None) -> str:
    """Write food101_{train,val,test}.arrow and return the summary table."""
    require_paths(root, "split.json", "class_idx.json", "images/train", "images/test")
    splits = read_splits(root / "split.json", PUBLISHED)
    classes = read_object(root / "class_idx.json")
    for name in chain(*splits.values()):
        number = classes.get(food_class(name))
        if type(number) is not int or not 0 <= number < MAX_CLASSES:
            raise UserError(
                f"class_idx.json needs a number for the class {food_class(name)!r} of {name}, not {number!r:.40}"
            )
    texts = read_texts(root)

    def pending_row(split: str, name: str) -> PendingRow | Skip:
        text, food = texts.get(name, ""), food_class(name)
        if not text.strip():
            return Skip("no text", name)
        folder = "test" if split == "test" else "train"
        columns = {"text": [text], "label": classes[food], "image_id": name, "split": split}
        return PendingRow(root / "images", f"{folder}/{food}/{name}", columns)

    schema = SCHEMA
    if set(classes.values()) == set(range(len(classes))):
        schema = arrow.with_classes(SCHEMA, sorted(classes, key=classes.get), "multiclass")
    return arrow.convert(target, "food101_", schema, splits, pending_row, PUBLISHED, pool)


def food_class(name: str) -> str:
    """Return the class in a file name, such as "apple_pie" in "apple_pie_12.jpg"."""
    return name.rpartition("_")[0]


def read_texts(root: Path) -> dict[str, str]:
    """Read file name -> title from text.json, or from the two csv files if it does not exist."""
    path = root / "text.json"
    if path.exists():
        texts = read_object(path)
        if not all(isinstance(text, str) for text in texts.values()):
            raise UserError(f"{path} must map each file name to one text; download it again")
        return texts
    require_paths(root, *TITLES)
    texts = {}
    for name in TITLES:
        with (root / name).open(encoding="utf-8-sig", errors="replace") as lines:
            texts |= parse_titles(lines)
    return texts


def parse_titles(lines: Iterable[str]) -> dict[str, str]:
    """Parse "name,title,class" lines, more tolerantly than a csv reader.

    A title may have commas with or without quotes, or run over several lines. In the public train_titles.csv the
    quote of one row (breakfast_burrito_730) is never closed, and the rows after it are named .txt instead of .jpg:
    a csv reader swallows them all.
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
    titles = {}
    for name, rest in fields.items():
        title = rest.rstrip().removesuffix(f",{food_class(name)}")
        titles[name] = title[1:].removesuffix('"').replace('""', '"') if title.startswith('"') else title
    return titles
