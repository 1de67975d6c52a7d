"""MM-IMDb: split.json, posters and label files to arrow files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from vilt.utils import arrow
from vilt.utils.image_pool import ImagePool
from vilt.utils.raw import Note, PendingRow, Skip, read_object, read_splits, require_paths, resolve_inside

SCHEMA = arrow.schema(plots=arrow.TEXTS, label=pa.list_(arrow.CLASS), genres=arrow.TEXTS)
PUBLISHED = {"train": 15552, "dev": 2608, "test": 7799}

# The order of the 23 label positions, as published.
GENRES = (
    *("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror", "Documentary", "Mystery"),
    *("Sci-Fi", "Fantasy", "Family", "Biography", "War", "History", "Music", "Animation", "Musical", "Western"),
    *("Sport", "Short", "Film-Noir"),
)


def make_arrow(root: Path, target: Path, pool: ImagePool | None = None) -> str:
    """Write mmimdb_{train,dev,test}.arrow and return the closing table."""
    # The published archive has both kinds of files in one folder.
    images, labels = ("dataset", "dataset") if (root / "dataset").exists() else ("images", "labels")
    require_paths(root, "split.json", images, labels)
    names = read_splits(root / "split.json", PUBLISHED)
    splits = {
        split: (len(names[split]), _pending_rows(root / images, root / labels, split, names[split]))
        for split in PUBLISHED
    }
    schema = arrow.with_classes(SCHEMA, GENRES, "multilabel")
    return arrow.convert(target, "mmimdb_", schema, splits, PUBLISHED, pool)


def _pending_rows(images: Path, labels: Path, split: str, names: list[str]) -> Iterator[PendingRow | Skip]:
    for name in names:
        path = resolve_inside(labels, f"{name}.json")
        if path is None or not os.path.isfile(path):
            yield Skip("no label file", name)
            continue
        content = read_object(path)
        plots, genres = (_as_texts(content.get(key)) for key in ("plot", "genres"))
        if plots is None or not any(plot.strip() for plot in plots):
            yield Skip("no plot", name)
        elif genres is None:
            yield Skip("no genres", name)
        else:
            label = [int(genre in genres) for genre in GENRES]
            notes = [Note(f"genre {genre} ignored", name) for genre in genres if genre not in GENRES]
            if not any(label):
                notes.append(Note("label all zeros", name))
            columns = {"plots": plots, "label": label, "genres": genres, "image_id": name, "split": split}
            yield PendingRow(images, f"{name}.jpeg", columns, tuple(notes))


def _as_texts(value: object) -> list[str] | None:
    """Return the texts of a label file's field, which is one text or a list; None if it is neither."""
    texts = [value] if isinstance(value, str) else value
    return texts if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else None
