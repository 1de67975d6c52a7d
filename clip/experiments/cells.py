"""What finished runs scored: one long table of cells."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from clip.cli import build as assembly
from clip.evaluation import predictions as evaluation
from clip.experiments import keys
from clip.experiments.plan import Planned
from clip.experiments.schema import Experiment
from clip.modules.objectives import Task
from clip.utils.errors import UserError

RENAMED = {"missing_type": "test_type", "missing_ratio": "test_ratio"}
LAST = ("constant_baseline", "missing_table", "score", "run", "published")


def collect(experiment: Experiment, planned: Iterable[Planned]) -> pd.DataFrame:
    """Score the finished runs of an experiment from their predictions.

    Args:
        experiment: says which splits, cases and metric are read.
        planned: its runs, of ``plan``; those that are not done have no rows.

    Returns:
        One row a run, split and test case: the coordinates, "seed", "split", "test_type",
        "test_ratio", all metrics of the task (as shares), "constant_baseline" (what a constant answer
        reaches of the headline), "missing_table" (SHA-256), "score" (the metric that is read),
        "run" (its key) and "published" (in percent, NaN where there is none).

    Raises:
        UserError: the metric is none of the task's, or a file of predictions is damaged.
    """
    rows = [row for run in planned if run.done for row in _cells(experiment, run)]
    first = [*experiment.coordinates, "seed", "split", *RENAMED.values()]
    if not rows:
        return pd.DataFrame(columns=[*first, *LAST])
    metrics = dict.fromkeys(name for row in rows for name in row if name not in (*first, *LAST))
    return pd.DataFrame(rows, columns=[*first, *metrics, *LAST])


def _cells(experiment: Experiment, run: Planned) -> Iterator[dict[str, Any]]:
    read, task = experiment.read, assembly.task_of(run.config)[0]
    metric = read.metric_of(task)
    for split in read.splits:
        predictions = evaluation.CasePredictions.load(run.folder / f"{split}.arrow", run.config["task"], split)
        for row in _scores(experiment, run, split, predictions, task):
            if metric not in row:
                raise UserError(f"{experiment.name} reads {metric}, which {run.label} has not")
            cell = run.at | {"seed": run.seed, "split": split} | row
            place = tuple(cell[name] for name in experiment.axes)
            yield cell | {"score": row[metric], "run": run.key,
                          "published": experiment.published.get(place, math.nan)}  # fmt: skip


def _scores(
    experiment: Experiment,
    run: Planned,
    split: str,
    predictions: evaluation.CasePredictions,
    task: Task,
) -> list[dict[str, Any]]:
    """Score the run's own case, or each case that is read from it."""
    config, read = run.config, experiment.read
    if read.types:
        data = assembly.data_from_config(config, 1, tokenize=list)
        grid = (read.types, read.ratios)

        def draw(*cell: Any) -> np.ndarray:
            return data.draw(split, predictions.observed, *cell)
    else:
        grid = ([config["missing_type"][split]], [config["missing_ratio"][split]])

        def draw(*cell: Any) -> np.ndarray:
            return keys.tables(config)[split]

    scores = evaluation.sweep(predictions, task, draw, *grid, [config["missing_seed"]])
    return scores.drop(columns="missing_seed").rename(columns=RENAMED).to_dict("records")
