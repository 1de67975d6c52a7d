"""Score the runs of an experiment again after the logits of each missing case were centred.

    python -m benchmarks.centred result/mmimdb benchmarks/results/study/mmimdb_centred.csv

For each class, the mean logit over all test samples in a missing case is subtracted; no label is used. What a run gains
by this it lacks in comparable logits of complete samples, samples without text and samples without image.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

from clip.evaluation.predictions import CasePredictions, score_grid
from clip.missing.masks import MissingConfig, draw_mask
from clip.modules.objectives import TASKS

TASK, SPLIT = "mmimdb", "test"


def main(folder: Path, target: Path) -> None:
    """Write the metrics of all runs in ``folder``/scores.csv, as they are and centred, to ``target``."""
    rows = []
    for run in pd.read_csv(folder / "scores.csv").to_dict("records"):
        path = folder.parent / "runs" / run["run"] / f"{SPLIT}.arrow"
        predictions = CasePredictions.load(path, TASK, SPLIT)
        missing = MissingConfig({SPLIT: run["test_type"]}, {SPLIT: run["test_ratio"]})
        mask = draw_mask(TASK, SPLIT, predictions.observed, missing)
        logits = predictions.logits - predictions.logits.mean(dim=1, keepdim=True)
        for centred, each in ((False, predictions), (True, replace(predictions, logits=logits))):
            scores = score_grid(each, TASKS[TASK], {(run["test_type"], run["test_ratio"], 0): mask})
            rows.append({key: run[key] for key in ("protocol", "method", "seed")} | {"centred": centred})
            rows[-1] |= scores.iloc[0].to_dict()
    table = pd.DataFrame(rows)
    table.to_csv(target, index=False)
    table["mAP"] *= 100
    print(table.groupby(["protocol", "method", "missing_type", "centred"], sort=False)["mAP"].agg(["mean", "std"]))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
