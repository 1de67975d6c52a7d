"""Score the runs of experiments/study/mmimdb.yaml again after the logits of each missing case were centred.

    python -m benchmarks.centred result/mmimdb benchmarks/results/study/mmimdb_centred.csv

For each class, the mean logit over the test samples in a missing case is subtracted from theirs; no label is used. The
gain shows how much a run loses because its logits are not comparable across the missing cases.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from clip.evaluation.predictions import CasePredictions, score_grid
from clip.missing import CASES
from clip.missing.masks import MissingConfig, draw_mask
from clip.modules.objectives import TASKS

TASK, SPLIT = "mmimdb", "test"
TEST_CASES = (("both", 0.7), ("text", 0.7), ("image", 0.7), ("both", 0.0), ("text", 1.0), ("image", 1.0))


def score(path: Path) -> pd.DataFrame:
    """Score a file of predictions in ``TEST_CASES``, as it is and centred."""
    predictions, tables = CasePredictions.load(path, TASK, SPLIT), []
    for kind, ratio in TEST_CASES:
        mask = draw_mask(TASK, SPLIT, predictions.observed, MissingConfig({SPLIT: kind}, {SPLIT: ratio}))
        cases = torch.from_numpy(mask[predictions.rows])
        means = [
            predictions.logits[case, cases == case].mean(dim=0) for case in range(len(CASES))
        ]  # NaN if there is none
        centred = replace(predictions, logits=predictions.logits - torch.stack(means)[:, None])
        for name, each in (("no", predictions), ("yes", centred)):
            tables.append(score_grid(each, TASKS[TASK], {(kind, ratio, 0): mask}).assign(centred=name))
    return pd.concat(tables)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="folder with scores.csv")
    parser.add_argument("target", type=Path, help="csv to write")
    args = parser.parse_args()
    runs = pd.read_csv(args.experiment / "scores.csv")[["protocol", "method", "seed", "run"]].drop_duplicates()
    tables = [
        score(args.experiment.parent / "runs" / run["run"] / f"{SPLIT}.arrow").assign(**run)
        for run in runs.to_dict("records")
    ]
    pd.concat(tables).to_csv(args.target, index=False)
