"""A picture of a few samples of each split, with what they are labelled."""

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from clip.datasets import ArrowDataset
from clip.missing import MISSING_IMAGE
from clip.utils.errors import UserError
from clip.utils.files import atomic_write
from clip.utils.images import crop_extreme, to_rgb

matplotlib.use("Agg")  # no screen is needed
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

SHOWN = 6  # samples of a split
SIDE = 240  # pixels
WIDE, LINES = 30, 3  # letters in a line, and lines, of a text


def draw_sheet(datasets: Mapping[str, ArrowDataset], names: Sequence[str], path: Path) -> Path:
    """Draw samples from the beginning to the end of each split, as far apart as possible.

    Args:
        datasets: split -> its samples.
        names: of the classes.
        path: picture to write, whole or not at all.
    """
    figure, axes = plt.subplots(len(datasets), SHOWN, squeeze=False, layout="constrained",
                                figsize=(2.4 * SHOWN, 3.2 * len(datasets)))  # fmt: skip
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (split, dataset) in zip(axes, datasets.items(), strict=True):
        chosen = np.linspace(0, len(dataset) - 1, min(SHOWN, len(dataset))).astype(int).tolist()
        for axis, index in zip(line, chosen, strict=False):
            _draw_sample(axis, dataset, index, f"{split} {dataset.rows[index]}", names)
    with warnings.catch_warnings(), atomic_write(path) as partial:
        warnings.filterwarnings("ignore", message="Glyph")  # a box stands for such a letter
        figure.savefig(partial, format="png", dpi=100)
    plt.close(figure)
    return path


def _draw_sample(axis: plt.Axes, dataset: ArrowDataset, index: int, place: str, names: Sequence[str]) -> None:
    row = int(dataset.rows[index])
    axis.imshow(_picture(dataset, row))
    if dataset.observed[row] == MISSING_IMAGE:
        axis.text(0.5, 0.5, "(no image)", fontsize=8, ha="center", transform=axis.transAxes)
    label = shorten(", ".join(classes_of(dataset.labels[row], names)) or "no class", 1)
    text = shorten(dataset.text(index), LINES) or "(no text)"
    axis.set_title(f"{place}: {label}", fontsize=8, fontweight="bold", parse_math=False)
    axis.text(0.5, -0.03, text, fontsize=7, ha="center", va="top", transform=axis.transAxes,
              parse_math=False)  # fmt: skip


def _picture(dataset: ArrowDataset, row: int) -> np.ndarray:
    """Give an image, small; grey where there is none, dark where it cannot be decoded."""
    if dataset.observed[row] == MISSING_IMAGE:
        return np.full((SIDE, SIDE, 3), 225, dtype=np.uint8)
    try:
        return dataset.image(row, _small)
    except UserError:
        return np.full((SIDE, SIDE, 3), 60, dtype=np.uint8)


def _small(image: Image.Image) -> np.ndarray:
    image = crop_extreme(to_rgb(image))
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)


def classes_of(label: Tensor, names: Sequence[str]) -> list[str]:
    """Name the classes of a label: () a number, or (C,) zeros and ones."""
    numbers = label.nonzero().flatten().tolist() if label.ndim else [int(label)]
    return [names[number] if number < len(names) else f"class {number}" for number in numbers]


def shorten(text: str, lines: int) -> str:
    """Break a text into a few short lines, and end it with dots where it goes on."""
    return "\n".join(textwrap.wrap(text, WIDE, max_lines=lines, placeholder=" ..."))
