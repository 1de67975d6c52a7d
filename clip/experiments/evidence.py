"""What the predictions of a run say beyond its score: states, classes, resampled test sets."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip.evaluation import bootstrap
from clip.evaluation.predictions import CasePredictions
from clip.missing import CASES
from clip.missing.masks import MissingConfig, draw_mask, mask_hash
from clip.modules.objectives import Task

STATE_NAMES = tuple(case.replace("_", " ").replace("missing", "no") for case in CASES)


@dataclass(frozen=True)
class Evidence:
    """What one run's predictions say, or the mean over several seeds.

    Attributes:
        states: (3,), the headline metric if every sample were in that state (``missing.CASES``).
        classes: (C,), F1 of each class (several labels) or share of right answers (one label).
        support: (C,), samples of each class.
        point: metric -> score of the split itself.
        resampled: metric -> (R,), scores of resampled splits; no metric where the masks are not
            known.
    """

    states: np.ndarray
    classes: np.ndarray
    support: np.ndarray
    point: dict[str, np.ndarray]
    resampled: dict[str, np.ndarray]


@functools.lru_cache(maxsize=64)
def _drawn(
    task: str, split: str, observed: bytes, missing_type: str, ratio: float, both_ratio: float, seed: int
) -> tuple[np.ndarray, str]:
    missing = MissingConfig({split: missing_type}, {split: ratio}, both_ratio, seed)
    mask = draw_mask(task, split, np.frombuffer(observed, dtype=np.uint8), missing)
    return mask, mask_hash(mask)


@functools.lru_cache(maxsize=2)
def _weights(samples: int) -> np.ndarray:
    return bootstrap.resample(samples)


def masks(predictions: CasePredictions, settings: Mapping[str, Any], cell: Mapping[str, Any]) -> np.ndarray | None:
    """Draw the missing table of a cell again; its hash decides whether it is the one.

    Args:
        predictions: of the cell's split.
        settings: of the run.
        cell: a row of the cells.

    Returns:
        States, or None where the table was not drawn from these settings (a file, another draw).
    """
    if not {"task", "both_ratio", "missing_seed"} <= settings.keys():
        return None
    how = cell["test_type"], cell["test_ratio"], settings["both_ratio"], settings["missing_seed"]
    table, found = _drawn(settings["task"], cell["split"], predictions.observed.tobytes(), *how)
    return table if found == cell["missing_table"] else None


def gather(predictions: CasePredictions, task: Task, table: np.ndarray | None, metrics: Iterable[str]) -> Evidence:
    """Score the predictions of one run.

    Args:
        predictions: of the split.
        task: its metrics are used.
        table: of the test case, or None if it is not known.
        metrics: keys of ``bootstrap.SCORES``, which are resampled.
    """
    labels = predictions.labels
    states = [task.score(logits, labels)[task.headline] for logits in predictions.logits]
    truth = labels.long().numpy()
    support = truth.sum(0) if truth.ndim > 1 else np.bincount(truth, minlength=task.num_classes)
    if table is None:
        unknown = np.full(task.num_classes, np.nan)
        return Evidence(np.array(states), unknown, support, {}, {})
    logits = predictions.select(table)
    once, weights = np.ones((1, len(labels)), dtype=np.int64), _weights(len(labels))
    each = bootstrap.class_f1 if truth.ndim > 1 else bootstrap.class_accuracy
    probabilities = task.probabilities(logits.float()).numpy()
    point, resampled = (
        {name: bootstrap.resampled(name, task, logits, labels, rows) for name in metrics} for rows in (once, weights)
    )
    classes = each(probabilities, truth, once)[0]
    return Evidence(np.array(states), classes, support, point, resampled)


def mean(found: list[Evidence]) -> Evidence:
    """Average over seeds; resamples are averaged one by one, since they are of the same samples."""
    known = [each for each in found if each.resampled]
    names = known[0].resampled if known else ()
    return Evidence(
        np.mean([each.states for each in found], axis=0),
        np.mean([each.classes for each in known or found], axis=0),
        found[0].support,
        {name: np.mean([each.point[name] for each in known], axis=0) for name in names},
        {name: np.mean([each.resampled[name] for each in known], axis=0) for name in names},
    )
