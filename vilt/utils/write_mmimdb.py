"""MM-IMDb: split.json, images/<id>.jpeg and labels/<id>.json to arrow rows."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from vilt.utils import arrow
from vilt.utils.raw import (
    Noted,
    RawDataError,
    Skipped,
    Unread,
    inside,
    read_object,
    read_splits,
    require,
)
from vilt.utils.reader import Reader

SCHEMA = arrow.schema(plots=arrow.TEXTS, label=pa.list_(arrow.CLASS), genres=arrow.TEXTS)
PUBLISHED = {"train": 15552, "dev": 2608, "test": 7799}

# The order of the 23 label positions, as published.
GENRES = (
    "Drama",
    "Comedy",
    "Romance",
    "Thriller",
    "Crime",
    "Action",
    "Adventure",
    "Horror",
    "Documentary",
    "Mystery",
    "Sci-Fi",
    "Fantasy",
    "Family",
    "Biography",
    "War",
    "History",
    "Music",
    "Animation",
    "Musical",
    "Western",
    "Sport",
    "Short",
    "Film-Noir",
)


def make_arrow(root: Path, target: Path, reader: Reader | None = None) -> str:
    """Writes mmimdb_{train,dev,test}.arrow and returns the closing table."""
    require(root, "split.json", "images", "labels")
    names = read_splits(root / "split.json", PUBLISHED)
    splits = {split: (len(names[split]), _items(root, split, names[split])) for split in PUBLISHED}
    schema = arrow.with_classes(SCHEMA, GENRES, "multilabel")
    return arrow.convert(target, "mmimdb_", schema, splits, PUBLISHED, reader or Reader())


def _items(root: Path, split: str, names: list[str]) -> Iterator[Unread | Skipped]:
    for name in names:
        path = inside(root / "labels", f"{name}.json")
        if path is None or not os.path.isfile(path):
            yield Skipped("label file is absent", name)
            continue
        plots, genres = _plots_and_genres(path)
        if not any(plot.strip() for plot in plots):
            yield Skipped("no plot", name)
            continue
        label = [int(genre in genres) for genre in GENRES]
        columns = {"plots": plots, "label": label, "genres": genres}
        columns |= {"image_id": name, "split": split}
        yield Unread(root / "images", f"{name}.jpeg", columns, tuple(_notes(name, genres)))


def _notes(name: str, genres: list[str]) -> Iterator[Noted]:
    unknown = [genre for genre in genres if genre not in GENRES]
    yield from (Noted(f"genre {genre} ignored", name) for genre in unknown)
    if len(unknown) == len(genres):
        yield Noted("label all zeros", name)


def _plots_and_genres(path: Path) -> tuple[list[str], list[str]]:
    labels = read_object(path)
    columns = []
    for key in ("plot", "genres"):
        value = labels.get(key)
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise RawDataError(f"{path} has no text or list of texts under {key!r}")
        columns.append(texts)
    return columns[0], columns[1]
