"""Summary of a data set before training: missing cases, classes, text lengths, image sizes, duplicates."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch.nn.functional as F
from tqdm import tqdm

from clip.datasets import ArrowDataset
from clip.missing import CASES, MISSING_IMAGE, MISSING_TEXT
from clip.utils.errors import UserError, escape
from clip.utils.images import validate_image

CHUNK = 512  # texts tokenized at a time
MAX_CLASSES = 40  # rows of a table; beyond, the middle is left out
MAX_LISTED = 10


class TextLength(NamedTuple):
    """How the length of a text is measured."""

    unit: str  # "tokens" or "words"
    count: Callable[[Sequence[str]], Sequence[int]]  # texts -> lengths
    limit: int  # number of tokens that the backbone reads, start and end included


class SplitSummary(NamedTuple):
    """What one split contains; a few numbers per row, never an image."""

    cases: np.ndarray  # (rows,), missing case of each row in the data
    labels: np.ndarray  # (rows, C), zeros and ones
    texts: pd.DataFrame  # length and hash of each text that is present
    images: pd.DataFrame  # row, width, height and hash of each image that is present; no width if it cannot be decoded


def summarize(dataset: ArrowDataset, num_classes: int, length: TextLength) -> SplitSummary:
    """Read a split once, one row at a time, and return its summary."""
    labels = dataset.labels if dataset.labels.ndim > 1 else F.one_hot(dataset.labels, num_classes)
    texts, images = [], []
    present = np.flatnonzero(dataset.observed[dataset.rows] != MISSING_TEXT).tolist()
    for start in range(0, len(present), CHUNK):
        chunk = [dataset.text(index) for index in present[start : start + CHUNK]]
        texts += zip(length.count(chunk), map(hash, chunk), strict=True)
    column, present = dataset.table.column("image"), np.flatnonzero(dataset.observed != MISSING_IMAGE).tolist()
    for row in tqdm(present, "reading images", unit="image", disable=None):
        data = column[row].as_py() or b""
        try:
            size = validate_image(data, attrgetter("size"))  # reads only the header
        except UserError:
            size = np.nan, np.nan
        images.append((row, *size, hash(data)))
    texts = pd.DataFrame(texts, columns=["length", "hash"]).astype({"length": float})
    images = pd.DataFrame(images, columns=["row", "width", "height", "hash"]).astype({"width": float, "height": float})
    return SplitSummary(dataset.observed, labels.long().numpy(), texts, images)


def format_summaries(splits: Mapping[str, SplitSummary], class_names: Sequence[str], length: TextLength) -> str:
    """Format the summaries of all splits as tables."""
    rows = pd.DataFrame({name: np.bincount(s.cases, minlength=len(CASES)) for name, s in splits.items()}, CASES).T
    rows.insert(0, "rows", rows.sum(axis=1))
    rows["no_class"] = [(s.labels.sum(1) == 0).sum() for s in splits.values()]

    classes = pd.DataFrame({name: s.labels.sum(0) for name, s in splits.items()}, map(escape, class_names))
    absent = [f"no {name} row: {listed(n.index[n == 0])}" for name, n in classes.items() if not n.all()]
    classes = classes.sort_values(list(splits)[0], ascending=False, kind="stable")

    lengths = min_median_max({name: s.texts[["length"]] for name, s in splits.items()})["length"]
    over = [(s.texts["length"] > length.limit).sum() / max(1, len(s.texts)) for s in splits.values()]
    lengths[f"over {length.limit}"] = [f"{100 * share:.1f} %" for share in over]

    sizes = min_median_max({name: s.images[["width", "height"]] for name, s in splits.items()})
    bad = {name: s.images["row"][s.images["width"].isna()] for name, s in splits.items()}
    bad = [f"{name}: {len(r)} images cannot be decoded: rows {listed(r)}" for name, r in bad.items() if len(r)]

    hashes = {name: (s.images["hash"], s.texts["hash"]) for name, s in splits.items()}
    repeated = {name: [one.duplicated().sum() for one in pair] for name, pair in hashes.items()}
    for (name, first), (other, second) in combinations(hashes.items(), 2):
        repeated[f"{other} in {name}"] = [b.isin(a).sum() for a, b in zip(first, second, strict=True)]
    repeated = pd.DataFrame(repeated, ["same image", "same text"]).T

    sections = {
        "missing cases in the data": [table(rows)],
        "rows of each class": [table(classes), *absent],
        f"text length in {length.unit}; the backbone reads {length.limit} tokens": [table(lengths)],
        "image size in pixels": [table(sizes), *bad],
        "repeated images and texts, within a split and across splits": [table(repeated)],
    }
    return "\n\n".join("\n".join((title, *lines)) for title, lines in sections.items())


def min_median_max(splits: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return minimum, median and maximum of each column per split; NaN for a split without values."""
    return pd.concat(splits, names=["split"]).groupby("split").agg(["min", "median", "max"]).reindex(list(splits))


def table(values: pd.DataFrame) -> str:
    """Format a table; the middle of a long one is left out."""
    return values.rename_axis(None).to_string(na_rep="-", float_format="{:g}".format, max_rows=MAX_CLASSES)


def listed(items: Iterable[Any]) -> str:
    """Join the first few items."""
    items = list(map(str, items))
    return ", ".join(items[:MAX_LISTED]) + ", ..." * (len(items) > MAX_LISTED)
