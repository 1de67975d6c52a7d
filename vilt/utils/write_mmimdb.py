"""Convert MM-IMDb (split.json, posters and label files) to arrow files."""

import os
from pathlib import Path

import pyarrow as pa

from vilt.utils import arrow
from vilt.utils.image_pool import ImagePool
from vilt.utils.raw import Note, PendingRow, Skip, read_object, read_splits, require_paths, resolve_inside

SCHEMA = arrow.schema(plots=arrow.TEXTS, label=pa.list_(arrow.CLASS), genres=arrow.TEXTS)
PUBLISHED = {"train": 15552, "dev": 2608, "test": 7799}

# In the published order of the 23 label positions.
GENRES = (
    *("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror", "Documentary", "Mystery"),
    *("Sci-Fi", "Fantasy", "Family", "Biography", "War", "History", "Music", "Animation", "Musical", "Western"),
    *("Sport", "Short", "Film-Noir"),
)


def make_arrow(root: Path, target: Path, pool: ImagePool | None = None) -> str:
    """Write mmimdb_{train,dev,test}.arrow and return a summary table."""
    # The published archive has images and labels in one folder.
    images, labels = ("dataset", "dataset") if (root / "dataset").exists() else ("images", "labels")
    require_paths(root, "split.json", images, labels)

    def pending_row(split: str, name: str) -> PendingRow | Skip:
        path = resolve_inside(root / labels, f"{name}.json")
        if path is None or not os.path.isfile(path):
            return Skip("no label file", name)
        content = read_object(path)
        plots, genres = (_as_texts(content.get(key)) for key in ("plot", "genres"))
        if plots is None or not any(plot.strip() for plot in plots):
            return Skip("no plot", name)
        if genres is None:
            return Skip("no genres", name)
        label = [int(genre in genres) for genre in GENRES]
        notes = [Note(f"genre {genre} ignored", name) for genre in genres if genre not in GENRES]
        if not any(label):
            notes.append(Note("label all zeros", name))
        columns = {"plots": plots, "label": label, "genres": genres, "image_id": name, "split": split}
        return PendingRow(root / images, f"{name}.jpeg", columns, tuple(notes))

    schema, splits = arrow.with_classes(SCHEMA, GENRES, "multilabel"), read_splits(root / "split.json", PUBLISHED)
    return arrow.convert(target, "mmimdb_", schema, splits, pending_row, PUBLISHED, pool)


def _as_texts(value: object) -> list[str] | None:
    """Return a string or list of strings as a list; None for other values."""
    texts = [value] if isinstance(value, str) else value
    return texts if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else None
