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
from clip.missing.masks import MissingConfig, draw_mask
from clip.modules.objectives import resolve_task

SPLIT = "test"


@functools.cache
def resamples(samples: int) -> np.ndarray:
    """Return how often each sample counts: once for the score itself, then as resampled, (1 + R, samples)."""
    return np.concatenate([np.ones((1, samples), dtype=int), bootstrap.resample(samples)])


@functools.cache
def run_scores(folder: Path, metric: str, kind: str, ratio: float) -> np.ndarray:
    """Return the score of a run and of its resamples in a test case, (1 + R,)."""
    config = json.loads((folder / "plan.json").read_text())["config"]
    predictions = CasePredictions.load(folder / f"{SPLIT}.arrow", config["task"], SPLIT)
    case = MissingConfig({SPLIT: kind}, {SPLIT: ratio}, seed=config["missing_seed"])
    logits = predictions.select(draw_mask(config["task"], SPLIT, predictions.observed, case))
    task = resolve_task(config["task"], predictions.model_config)
    return bootstrap.resampled(metric, task, logits, predictions.labels, resamples(len(predictions.labels)))


def differences(experiment: Path, axis: str, metrics: list[str]) -> pd.DataFrame:
    """Return one row per place, metric and pair of values of an axis, in percent."""
    scores = pd.read_csv(experiment / "scores.csv")
    scores = scores[scores["split"] == SPLIT]
    axes = [*scores.columns[: scores.columns.get_loc("seed")], *CASE_AXES]
    others = [name for name in axes if name != axis]
    rows = []
    for place, group in scores.groupby(others, sort=False):
        at = dict(zip(others, place, strict=True))
        for metric, (first, second) in itertools.product(metrics, itertools.combinations(group[axis].unique(), 2)):
            values = {}
            for name in (first, second):
                runs = group.loc[group[axis] == name, "run"]
                folders = [experiment.parent / "runs" / run for run in runs]
                each = [run_scores(folder, metric, at["test_type"], at["test_ratio"]) for folder in folders]
                values[name] = np.mean(each, axis=0)
            gap = 100 * (values[first] - values[second])
            low, high = bootstrap.interval(gap[1:])
            rows.append(
                at
                | {"metric": metric, "first": first, "second": second, "seeds": len(runs)}
                | {"score of first": 100 * values[first][0], "score of second": 100 * values[second][0]}
                | {"difference": gap[0], "low": low, "high": high}
            )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="folder with scores.csv, beside the folder of runs")
    parser.add_argument("axis", help="whose values are compared, such as method")
    parser.add_argument("target", type=Path, help="csv to write")
    parser.add_argument("--metrics", nargs="+", default=["accuracy"], choices=bootstrap.SCORES)
    args = parser.parse_args()
    differences(args.experiment, args.axis, args.metrics).round(3).to_csv(args.target, index=False)
