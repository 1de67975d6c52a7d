"""Score the finished runs of an experiment and format its table with the published values."""

import itertools
import math
from collections.abc import Iterable
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
        One row per run, split and test case: the coordinates, seed, split, test_type, test_ratio, all metrics of the
        task as fractions, constant_baseline (score of the best constant prediction), missing_table (SHA-256 of the
        mask), score (the metric that is evaluated), run (its key), published (in percent or NaN); and masks by hash.
    """
    first, rows, masks = [*experiment.coordinates, "seed", "split", *CASE_AXES], [], {}
    cases = experiment.read.cases
    for run, split in itertools.product(planned, experiment.read.splits):
        if not run.finished:
            continue
        config, seed = run.config, run.config.missing_seed
        task, _ = build.task_from_data(config)
        predictions = CasePredictions.load(run.folder / f"{split}.arrow", config.task, split)
        metric = experiment.read.metric_of(task)
        drawn = {(config.missing_type[split], config.missing_ratio[split], seed): masks_of(config)[split]}
        if cases:
            data = build.build_data(config, task, 1, tokenize=list)
            grid = itertools.product(cases.types, map(float, cases.ratios), [seed])
            drawn = {case: data.draw(split, predictions.observed, *case) for case in grid}
        masks |= {mask_hash(mask): mask for mask in drawn.values()}
        scores = score_grid(predictions, task, drawn, metric).drop(columns="missing_seed")
        scores = scores.rename(columns={"missing_type": "test_type", "missing_ratio": "test_ratio"})
        for score in scores.to_dict("records"):
            row = run.at | {"seed": config.seed, "split": split} | score
            published = experiment.published_values.get(tuple(row[axis] for axis in experiment.axes), math.nan)
            rows.append(row | {"score": row[metric], "run": run.key, "published": published})
    metrics = dict.fromkeys(name for row in rows for name in row if name not in (*first, *LAST))
    return pd.DataFrame(rows, columns=[*first, *metrics, *LAST]), masks


def layout(experiment: Experiment, scores: pd.DataFrame, planned: Iterable[PlannedRun]) -> pd.DataFrame:
    """Lay out an experiment as in the paper, as text in percent; the cells of unfinished runs are empty.

    For each value of ``columns`` there is "ours" (mean ± standard deviation over the seeds) and, if anything is
    published, "paper".
    """
    axes, cases, published = experiment.axes, experiment.read.cases, experiment.published_values
    ours = {place: mean_std(group) for place, group in scores.groupby(axes, sort=False)["score"]} if len(scores) else {}
    grid = [experiment.read.splits, cases.types if cases else [None], cases.ratios if cases else [None]]
    places = [
        run.at | dict(zip(("split", *CASE_AXES), case, strict=True))
        for run, case in itertools.product(planned, itertools.product(*grid))
    ]
    table: dict[tuple, dict[str, Any]] = {}
    for at in [*places, *(dict(zip(axes, place, strict=True)) for place in published)]:
        place, name = tuple(at[axis] for axis in axes), " ".join(str(at[axis]) for axis in experiment.columns)
        row = {axis: at[axis] for axis in experiment.rows}
        cells = table.setdefault(tuple(row.values()), row)
        cells[f"{name} ours".strip()] = ours.get(place, "")
        if published:
            cells[f"{name} paper".strip()] = f"{published[place]:.2f}" if place in published else ""
    return pd.DataFrame(table.values()).fillna("")


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
