"""Bootstrap intervals of the differences between the rows of an experiment, over the images of its test split.

    python -m benchmarks.paired result/fashion_longer method benchmarks/results/study/fashion_longer_paired.csv

Two values of an axis, such as two methods, are compared on the same resamples of the images and at the same place on
all other axes. Scores are means over the seeds: the intervals do not cover other seeds.
"""

import argparse
import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd

from clip.evaluation import bootstrap
from clip.evaluation.predictions import CasePredictions
from clip.experiments.spec import CASE_AXES
from clip.missing.masks import MissingConfig, draw_mask, mask_hash
from clip.modules.objectives import resolve_task

SPLIT = "test"


@functools.cache
def resamples(samples: int) -> np.ndarray:
    """Return how often each sample counts: once for the score itself, then as resampled, (1 + R, samples)."""
    return np.concatenate([np.ones((1, samples), dtype=int), bootstrap.resample(samples)])


@functools.cache
def run_scores(folder: Path, metric: str, kind: str, ratio: float, missing_table: str) -> np.ndarray:
    """Return the score of a run and of its resamples in a test case, (1 + R,); ``missing_table`` is its mask's hash."""
    config = json.loads((folder / "plan.json").read_text())["config"]
    predictions = CasePredictions.load(folder / f"{SPLIT}.arrow", config["task"], SPLIT)
    case = MissingConfig({SPLIT: kind}, {SPLIT: ratio}, seed=config["missing_seed"])
    mask = draw_mask(config["task"], SPLIT, predictions.observed, case)
    assert mask_hash(mask) == missing_table, "the experiment's masks are not those of the default settings"
    logits = predictions.select(mask)
    task = resolve_task(config["task"], predictions.model_config)
    return bootstrap.resampled(metric, task, logits, predictions.labels, resamples(len(predictions.labels)))


def mean_scores(runs: Path, rows: pd.DataFrame, metric: str) -> np.ndarray:
    """Return the scores of the runs of some rows of scores.csv, averaged over the seeds, in percent, (1 + R,)."""
    keys = ["run", "test_type", "test_ratio", "missing_table"]
    scores = [run_scores(runs / run, metric, *case) for run, *case in rows[keys].itertuples(index=False)]
    return 100 * np.mean(scores, axis=0)


def differences(experiment: Path, axis: str, metrics: list[str]) -> pd.DataFrame:
    """Return one row per place, metric and pair of values of an axis, in percent."""
    scores = pd.read_csv(experiment / "scores.csv")
    scores, runs, found = scores[scores["split"] == SPLIT], experiment.parent / "runs", []
    axes = [*scores.columns[: scores.columns.get_loc("seed")], *CASE_AXES]
    others = [name for name in axes if name != axis]
    for place, group in scores.groupby(others, sort=False):
        pairs = itertools.combinations(group.groupby(axis, sort=False), 2)
        for ((first, ours), (second, theirs)), metric in itertools.product(pairs, metrics):
            assert set(ours["seed"]) == set(theirs["seed"]), f"{first} and {second} have other seeds"
            one, other = mean_scores(runs, ours, metric), mean_scores(runs, theirs, metric)
            low, high = bootstrap.interval((one - other)[1:])
            row = {"metric": metric, "first": first, "second": second, "seeds": len(ours)}
            row |= {"score of first": one[0], "score of second": other[0], "difference": one[0] - other[0]}
            found.append(dict(zip(others, place, strict=True)) | row | {"low": low, "high": high})
    return pd.DataFrame(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="folder with scores.csv, beside the folder of runs")
    parser.add_argument("axis", help="whose values are compared, such as method")
    parser.add_argument("target", type=Path, help="csv to write")
    parser.add_argument("--metrics", nargs="+", default=["accuracy"], choices=bootstrap.SCORES)
    args = parser.parse_args()
    differences(args.experiment, args.axis, args.metrics).round(3).to_csv(args.target, index=False)
