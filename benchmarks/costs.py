"""What each method costs at ViT-B/16 shapes: parameters, FLOPs, and the time of a training step.

    python -m benchmarks.costs

The counts need no weights. A method's step and the baseline's run in turn on the same batches of
one process, at batch 4 with 70 % of the samples incomplete.
"""

import time
from typing import Any

from torch import nn

from benchmarks import machine
from benchmarks.inputs import CLASSES, VIT_B_16, Batch, batches, random_model
from benchmarks.step import RATIO, SAMPLES, train_step
from clip.evaluation.costs import BASELINE, claims, costs
from clip.modules.prompts import PROMPT_TYPES

BATCH = 4


def seconds(models: dict[str, nn.Module], made: list[Batch]) -> dict[str, float]:
    """Time one training step of each model, the mean over the batches, one after the other."""
    spent = dict.fromkeys(models, 0.0)
    for model in models.values():
        train_step(model, made[0])  # the first call allocates
    for batch in made:
        for name, model in models.items():
            start = time.perf_counter()
            train_step(model, batch)
            spent[name] += time.perf_counter() - start
    return {name: total / len(made) for name, total in spent.items()}


def step_times() -> list[dict[str, Any]]:
    """Time every method against the baseline."""
    made = batches("both", RATIO, SAMPLES[BATCH], BATCH)
    base, rows = random_model(BASELINE), []
    for name in PROMPT_TYPES:
        # The baseline against itself says what the ratios' noise is.
        spent = seconds({"baseline": base, "method": random_model(name)}, made)
        rows.append({"method": name, "seconds": spent["method"],
                     "ratio": spent["method"] / spent["baseline"]})  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Count, measure and write results/costs.json."""
    counted = costs(VIT_B_16, CLASSES)
    results = {"counts": counted, "claims": claims(VIT_B_16, CLASSES), "steps": step_times()}
    machine.write("costs", results)


if __name__ == "__main__":
    main()
