"""Contact sheet: a picture of a few samples of each split with their labels."""

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure  # not pyplot, which may need a screen
from PIL import ImageOps

from clip.datasets import ArrowDataset
from clip.missing import MISSING_IMAGE
from clip.utils.errors import UserError
from clip.utils.files import atomic_write
from clip.utils.images import crop_extreme, to_rgb

COLUMNS = 6  # samples of a split
SIDE = 240  # pixels
LINE, MAX_LINES = 30, 3  # characters in a line, and lines, of a text


def draw_sheet(datasets: Mapping[str, ArrowDataset], class_names: Sequence[str], path: Path) -> Path:
    """Draw evenly spaced samples of each split into one PNG file and return its path."""
    size = (2.4 * COLUMNS, 3.2 * len(datasets))
    figure = Figure(size, layout="constrained")
    axes = figure.subplots(len(datasets), COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (split, dataset) in zip(axes, datasets.items(), strict=True):
        chosen = np.linspace(0, len(dataset) - 1, min(COLUMNS, len(dataset))).astype(int).tolist()
        for axis, index in zip(line, chosen, strict=False):
            row = int(dataset.rows[index])
            label = dataset.labels[row]
            classes = label.nonzero().flatten().tolist() if label.ndim else [int(label)]
            title = wrap(", ".join(class_names[number] for number in classes) or "no class", 1)
            axis.set_title(f"{split} {row}: {title}", fontsize=8, fontweight="bold", parse_math=False)
            axis.imshow(thumbnail(dataset, row))
            style = {"ha": "center", "va": "top", "transform": axis.transAxes, "fontsize": 7, "parse_math": False}
            axis.text(0.5, -0.03, wrap(dataset.text(index), MAX_LINES) or "(no text)", **style)
            if dataset.observed[row] == MISSING_IMAGE:
                axis.text(0.5, 0.5, "(no image)", **style)
    with warnings.catch_warnings(), atomic_write(path) as partial:
        warnings.filterwarnings("ignore", message="Glyph")  # matplotlib draws a box for a character without one
        figure.savefig(partial, format="png", dpi=100)
    return path


def thumbnail(dataset: ArrowDataset, row: int) -> np.ndarray:
    """Return a row's image, scaled down; a light square if it is missing, a dark one if it is undecodable."""
    if dataset.observed[row] == MISSING_IMAGE:
        return np.full((SIDE, SIDE, 3), 225, dtype=np.uint8)
    try:
        return dataset.image(row, lambda image: np.asarray(ImageOps.contain(crop_extreme(to_rgb(image)), (SIDE, SIDE))))
    except UserError:
        return np.full((SIDE, SIDE, 3), 60, dtype=np.uint8)


def wrap(text: str, lines: int) -> str:
    """Break a text into at most a few lines and end it with dots where it is cut."""
    return "\n".join(textwrap.wrap(text, LINE, max_lines=lines, placeholder=" ..."))
