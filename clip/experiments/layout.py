"""Tables as data: what the page lays out, and how scores are written."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from clip.evaluation.report import PERCENT
from clip.experiments.schema import Experiment

ABSENT = "–"


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        text: the number.
        note: small print under it.
    """

    text: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        header: lines of column titles.
        rows: cells; the first ``labels`` of each are its name.
        labels: how many.
        title: over the table.
        note: under the title.
    """

    header: list[list[str]]
    rows: list[list[Cell]]
    labels: int = 1
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page: its title, a paragraph, figures (SVG), tables and commands."""

    title: str
    text: str = ""
    figures: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)


def name_of(value: Any) -> str:
    """Write a coordinate: 0.7 as 0.7, 50.0 as 50."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def percent(value: float, sign: bool = False) -> str:
    """Write a fraction in percent; a dash for what is undefined."""
    if not math.isfinite(value):
        return ABSENT
    return f"{PERCENT * value:+.2f}" if sign else f"{PERCENT * value:.2f}"


def with_spread(values: pd.Series) -> str:
    """Write the mean over the seeds, and ± their standard deviation where there are several."""
    mean, spread = values.mean(), values.std()
    return percent(mean) + (f" ± {percent(spread)}" if math.isfinite(spread) else "")


def labels(values: Iterable[Any]) -> list[Cell]:
    """Write coordinates as the name of a row."""
    return [Cell(name_of(value)) for value in values]


def _score_cell(group: pd.DataFrame) -> Cell:
    published = group["published"].iloc[0]
    if math.isnan(published):
        return Cell(with_spread(group["score"]))
    gap = PERCENT * group["score"].mean() - published
    return Cell(with_spread(group["score"]), f"{published:.2f} ({gap:+.2f})")


def _ordered(cells: pd.DataFrame, axes: list[str]) -> list[tuple[Any, ...]]:
    """List the places on some axes, those of the first axis together, each as first met."""
    if not axes:
        return [()]
    order = {axis: list(dict.fromkeys(cells[axis])) for axis in axes}
    places = cells[axes].drop_duplicates().itertuples(index=False, name=None)

    def rank(place: tuple[Any, ...]) -> list[int]:
        return [order[axis].index(value) for axis, value in zip(axes, place, strict=True)]

    return sorted(places, key=rank)


def main_table(experiment: Experiment, cells: pd.DataFrame) -> Table:
    """Lay out the experiment as the paper does, ours over the published value."""
    rows, columns = list(experiment.rows), list(experiment.columns)
    groups = {tuple(key): group for key, group in cells.groupby([*rows, *columns], sort=False)}
    found = {place: _score_cell(group) for place, group in groups.items()}
    down, across = _ordered(cells, rows), _ordered(cells, columns)
    header = [[*([""] * len(rows)), *(name_of(place[level]) for place in across)]
              for level in range(len(columns))] or [[*rows, "score"]]  # fmt: skip
    header[-1][: len(rows)] = rows
    body = [[*labels(place), *(found.get((*place, *other), Cell(ABSENT)) for other in across)]
            for place in down]  # fmt: skip
    counts = sorted({group["seed"].nunique() for group in groups.values()})
    note = f"n = {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}"
    if columns:
        note += f". Across: {', '.join(columns)}"
    return Table(header, body, labels=len(rows), note=f"{note}.")
