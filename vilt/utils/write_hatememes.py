"""Hateful Memes: {train,dev,test}.jsonl and img/ to arrow rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vilt.utils import arrow
from vilt.utils.raw import RawDataError, Unread, parse_json, require
from vilt.utils.reader import Reader

SCHEMA = arrow.schema(text=arrow.TEXTS, label=arrow.CLASS)
PUBLISHED = {"train": 8500, "dev": 500, "test": 1000}
CLASSES = ("not hateful", "hateful")


def make_arrow(root: Path, target: Path, reader: Reader | None = None) -> str:
    """Writes hatememes_{train,dev,test}.arrow and returns the closing table."""
    base = root if (root / "train.jsonl").exists() else root / "data"
    if not base.exists():
        raise RawDataError(f"{root} has neither train.jsonl nor data/train.jsonl; see DATA.md")
    require(base, *(f"{split}.jsonl" for split in PUBLISHED), "img")
    # Every line is checked before anything is written.
    sizes = {split: sum(1 for _ in _read_lines(base / f"{split}.jsonl")) for split in PUBLISHED}
    splits = {split: (sizes[split], _items(base, split)) for split in PUBLISHED}
    schema = arrow.with_classes(SCHEMA, CLASSES, "binary")
    return arrow.convert(target, "hatememes_", schema, splits, PUBLISHED, reader or Reader())


def _items(base: Path, split: str) -> Iterator[Unread]:
    for meme in _read_lines(base / f"{split}.jsonl"):
        columns = {"text": [meme["text"]], "label": meme["label"]}
        yield Unread(base, meme["img"], columns | {"image_id": meme["img"], "split": split})


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _read_meme(line, path, number)


def _read_meme(line: bytes, path: Path, number: int) -> dict[str, Any]:
    where = f"{path} line {number}"
    meme = parse_json(line, f"{where} is not valid JSON")
    if not isinstance(meme, dict) or not all(isinstance(meme.get(key), str) for key in ("img", "text")):
        raise RawDataError(f"{where} needs the texts 'img' and 'text'")
    if "label" not in meme:
        raise RawDataError(f"{where} has no label: {_labelled_fix(path)}")
    if type(meme["label"]) is not int or meme["label"] not in (0, 1):
        raise RawDataError(f"{where} has the label {meme['label']!r:.60}, neither 0 nor 1")
    return meme


def _labelled_fix(path: Path) -> str:
    seen = path.with_name(f"{path.stem}_seen.jsonl")
    place = f"it is there: {seen}" if seen.exists() else "it is part of the full public data set"
    return f"rename {seen.name}, which holds labels, to {path.name} ({place})"
