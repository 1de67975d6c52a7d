"""The table of an experiment: ours beside the published values, in percent."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from clip.experiments.layout import with_spread
from clip.experiments.plan import Planned
from clip.experiments.schema import CASE_AXES, Experiment
from clip.utils.files import write_text

OURS, PAPER = "ours", "paper"
Place = tuple[Any, ...]


def table(experiment: Experiment, cells: pd.DataFrame, planned: Iterable[Planned]) -> pd.DataFrame:
    """Lay out an experiment as in the paper; every value is a text.

    Args:
        experiment: its axes, laid out in ``rows`` and ``columns``.
        cells: of ``collect``.
        planned: all runs, of ``plan``, also those that are not there yet: their cells are empty.

    Returns:
        Down the table the values of ``rows``; across it, for each value of ``columns``, "ours"
        (mean ± standard deviation over the seeds) and, if anything is published, "paper".
    """
    axes = list(experiment.axes)
    ours = {}
    if len(cells):
        for place, scores in cells.groupby(axes, sort=False)["score"]:
            ours[place] = with_spread(scores)
    places = list(dict.fromkeys([*_places(experiment, planned), *experiment.published]))
    down = list(dict.fromkeys(_part(place, axes, experiment.rows) for place in places))
    across = list(dict.fromkeys(_part(place, axes, experiment.columns) for place in places))
    lines, kinds = [], (OURS, PAPER) if experiment.published else (OURS,)
    for row, column in itertools.product(down, across):
        at = dict(zip((*experiment.rows, *experiment.columns), (*row, *column), strict=True))
        place = tuple(at[name] for name in axes)
        paper = experiment.published.get(place)
        texts = {OURS: ours.get(place, ""), PAPER: "" if paper is None else f"{paper:.2f}"}
        lines.append({kind: texts[kind] for kind in kinds})
    names = [" ".join([*map(str, column), kind]) for column in across for kind in kinds]
    texts = [[text for cell in lines[i : i + len(across)] for text in cell.values()]
             for i in range(0, len(lines), len(across))]  # fmt: skip
    body = pd.DataFrame(texts, columns=names)
    left = pd.DataFrame([list(row) for row in down], columns=list(experiment.rows), dtype=object)
    return pd.concat([left, body], axis=1)


def _part(place: Place, axes: list[str], names: Iterable[str]) -> Place:
    return tuple(place[axes.index(name)] for name in names)


def _places(experiment: Experiment, planned: Iterable[Planned]) -> Iterator[Place]:
    """Give the values of all axes, of runs that are there and of those that are not."""
    read = experiment.read
    for run in planned:
        cases = itertools.product(read.splits, read.types or [None], read.ratios or [None])
        for split, *case in cases:
            at = run.at | {"split": split} | dict(zip(CASE_AXES, case, strict=True))
            yield tuple(at[name] for name in experiment.axes)


def as_markdown(table: pd.DataFrame) -> str:
    """Write a table in Markdown."""
    rows = [table.columns, ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def write(experiment: Experiment, cells: pd.DataFrame, planned: list[Planned], target: Path) -> str:
    """Write cells.csv, table.csv and table.md into a folder, and give the text of the last."""
    made = table(experiment, cells, planned)
    seeds = sorted({run.seed for run in planned})
    absent = sum(not run.done for run in planned)
    spread = f", mean ± standard deviation over the seeds {seeds}" if len(seeds) > 1 else ""
    published = f'; "{PAPER}" is the published value' if experiment.published else ""
    text = (
        f"## {experiment.title} ({experiment.source})\n\n"
        f"In percent{spread}{published}.\n\n{as_markdown(made)}\n"
        f"{len(planned) - absent} of {len(planned)} runs are there, {absent} are not yet.\n"
    )
    write_text(target / "cells.csv", cells.to_csv(index=False))
    write_text(target / "table.csv", made.to_csv(index=False))
    write_text(target / "table.md", text)
    return text
