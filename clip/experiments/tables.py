"""Score the finished runs of an experiment and format its table with the published values."""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clip.cli import build
from clip.evaluation.predictions import CasePredictions, score_grid
from clip.evaluation.report import PERCENT
from clip.experiments.plan import PlannedRun, masks_of
from clip.experiments.spec import CASE_AXES, Experiment
from clip.missing.masks import mask_hash
from clip.utils.files import write_text

ABSENT = "–"
LAST = ("constant_baseline", "missing_table", "score", "run", "published")
Masks = dict[str, np.ndarray]


def percent(value: float, form: str = ".2f") -> str:
    """Format a fraction in percent; a dash if it is undefined."""
    return format(PERCENT * value, form) if math.isfinite(value) else ABSENT


def mean_std(values: pd.Series) -> str:
    """Format the mean over the seeds, and the standard deviation if there are several."""
    spread = values.std()
    return percent(values.mean()) + (f" ± {percent(spread)}" if math.isfinite(spread) else "")


def collect(experiment: Experiment, planned: Iterable[PlannedRun]) -> tuple[pd.DataFrame, Masks]:
    """Score the finished runs of an experiment from their predictions.

    Returns:
        One row per run, split and test case: the coordinates, seed, split, test_type, test_ratio, all
        metrics of the task as fractions, constant_baseline (score of the best constant prediction),
        missing_table (SHA-256 of the mask), score (value of the experiment's metric), run (its key),
        published (in percent, NaN where there is none); and the masks by their SHA-256.
    """
    first, rows, masks = [*experiment.coordinates, "seed", "split", *CASE_AXES], [], {}
    for run, split in itertools.product(planned, experiment.read.splits):
        if not run.finished:
            continue
        task, _ = build.task_from_data(run.config)
        predictions = CasePredictions.load(run.folder / f"{split}.arrow", run.config.task, split)
        metric = experiment.read.metric_of(task)
        for scores in _scores(experiment, run, predictions, metric, masks):
            row = run.at | {"seed": run.config.seed, "split": split} | scores
            published = experiment.published_values.get(tuple(row[axis] for axis in experiment.axes), math.nan)
            rows.append(row | {"score": row[metric], "run": run.key, "published": published})
    metrics = dict.fromkeys(name for row in rows for name in row if name not in (*first, *LAST))
    return pd.DataFrame(rows, columns=[*first, *metrics, *LAST]), masks


def _scores(
    experiment: Experiment, run: PlannedRun, predictions: CasePredictions, metric: str, masks: Masks
) -> list[dict[str, Any]]:
    """Score a run with its own mask or in each test case; add the masks to ``masks``."""
    config, split, cases = run.config, predictions.split, experiment.read.cases

    def draw(*case: Any) -> np.ndarray:
        mask = data.draw(split, predictions.observed, *case) if cases else masks_of(config)[split]
        masks[mask_hash(mask)] = mask
        return mask

    types = cases.types if cases else [config.missing_type[split]]
    ratios = cases.ratios if cases else [config.missing_ratio[split]]
    task, _ = build.task_from_data(config)
    data = build.build_data(config, task, 1, tokenize=list)
    scores = score_grid(predictions, task, draw, types, ratios, [config.missing_seed], metric)
    names = {"missing_type": "test_type", "missing_ratio": "test_ratio"}
    return scores.drop(columns="missing_seed").rename(columns=names).to_dict("records")


def layout(experiment: Experiment, scores: pd.DataFrame, planned: Iterable[PlannedRun]) -> pd.DataFrame:
    """Lay out an experiment as in the paper, as text in percent.

    Args:
        experiment: the experiment with the axes of its rows and columns.
        scores: rows of ``collect``.
        planned: all runs; the cells of unfinished ones are empty.

    Returns:
        Rows: values of ``rows``. Columns, for each value of ``columns``: "ours" (mean ± standard
        deviation over the seeds) and, if anything is published, "paper".
    """
    axes, cases = experiment.axes, experiment.read.cases
    ours = {place: mean_std(group) for place, group in scores.groupby(axes, sort=False)["score"]} if len(scores) else {}
    grid = [experiment.read.splits, cases.types if cases else [None], cases.ratios if cases else [None]]
    places = {}  # keys only: an ordered set
    for run, case in itertools.product(planned, itertools.product(*grid)):
        at = run.at | dict(zip(("split", *CASE_AXES), case, strict=True))
        places[tuple(at[axis] for axis in axes)] = None
    places |= dict.fromkeys(experiment.published_values)

    def part(place: tuple, names: Sequence[str]) -> tuple:
        return tuple(place[axes.index(name)] for name in names)

    across = dict.fromkeys(part(place, experiment.columns) for place in places)
    table: dict[tuple, dict[str, str]] = {}
    for row in dict.fromkeys(part(place, experiment.rows) for place in places):
        table[row] = dict(zip(experiment.rows, row, strict=True))
        for column in across:
            at = dict(zip((*experiment.rows, *experiment.columns), (*row, *column), strict=True))
            place = tuple(at[axis] for axis in axes)
            name, paper = " ".join(map(str, column)), experiment.published_values.get(place)
            table[row][f"{name} ours".strip()] = ours.get(place, "")
            if experiment.published:
                table[row][f"{name} paper".strip()] = "" if paper is None else f"{paper:.2f}"
    return pd.DataFrame(table.values())


def to_markdown(table: pd.DataFrame) -> str:
    """Format a table in Markdown."""
    rows = [table.columns, ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def write(
    experiment: Experiment, scores: pd.DataFrame, table: pd.DataFrame, planned: list[PlannedRun], target: Path
) -> str:
    """Write scores.csv, table.csv and table.md to a folder, and return the text of table.md."""
    seeds, finished = sorted({run.config.seed for run in planned}), sum(run.finished for run in planned)
    spread = f", mean ± standard deviation over the seeds {seeds}" if len(seeds) > 1 else ""
    published = '; "paper" is the published value' if experiment.published else ""
    text = (
        f"## {experiment.title} ({experiment.source})\n\nIn percent{spread}{published}.\n\n{to_markdown(table)}\n"
        f"{finished} of {len(planned)} runs finished.\n"
    )
    write_text(target / "scores.csv", scores.to_csv(index=False))
    write_text(target / "table.csv", table.to_csv(index=False))
    write_text(target / "table.md", text)
    return text
