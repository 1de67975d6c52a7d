"""What each method costs at ViT-B/16 shapes: parameters, FLOPs, and the time of a training step.

    python -m benchmarks.costs

The counts need no weights. A method's step and the baseline's run in turn on the same batches of
one process, at batch 4 with 70 % of the samples incomplete.
"""

import time
from dataclasses import replace
from typing import Any

from torch import nn

from benchmarks import machine
from benchmarks.inputs import CLASSES, VIT_B_16, Batch, batches, random_model
from benchmarks.step import RATIO, SAMPLES, train_step
from clip.evaluation.costs import BASELINE, backbone, cost, count_by_part, shape_model, trainable
from clip.modules.backbones.clip_convert import ClipSizes
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


def claims(sizes: ClipSizes, num_classes: int) -> list[dict[str, Any]]:
    """Compare the paper's claims about DCP (section 4.1, Table 5, README) with what is counted.

    Returns:
        Rows of claim, paper (as printed), counted (in the same digits) and agrees.
    """

    def added(length: int = 36, **settings: Any) -> tuple[int, int, int]:
        model = shape_model(sizes, "dcp", num_classes, prompt_length=length, **settings)
        parts = count_by_part(trainable(model))
        own = parts["prompts"] + parts["generators"]
        return own, own + parts["unfrozen"], backbone(model)

    own, unfrozen, total = added()
    printed, *_ = added(formulas="paper", unfreeze=())
    coarse = replace(sizes, patch=2 * sizes.patch, grid=sizes.grid // 2)
    coarse_total = backbone(shape_model(coarse, BASELINE, num_classes))
    slope = (added(60)[0] - added(12)[0]) / 4
    equal = (
        ("the backbone", "151M", _millions(total, 0)),
        ("a backbone with patches twice as wide (ViT-B/32)", "151M", _millions(coarse_total, 0)),
        ("prompts and generators", "4.0M", _millions(own, 1)),
        ("prompts and generators, with the unfrozen parts", "4.0M", _millions(unfrozen, 1)),
        ("prompts and generators under the printed formulas", "4.0M", _millions(printed, 1)),
        ("12 more prompt tokens (Table 5)", "1.2M", f"{slope / 1e6:.2g}M"),
        ("4.0M as a share of 151M", "2.4 %", f"{100 * 4.0 / 151:.1f} %"),
        ("prompts and generators, as a share", "2.4 %", f"{100 * own / total:.1f} %"),
    )
    rows = [
        {"claim": claim, "paper": paper, "counted": counted, "agrees": paper == counted}
        for claim, paper, counted in equal
    ]
    below = {
        "claim": "all that is added or unfrozen, as a share",
        "paper": "< 4 %",
        "counted": f"{100 * unfrozen / total:.1f} %",
        "agrees": unfrozen / total < 0.04,
    }
    return [*rows, below]


def _millions(count: float, digits: int) -> str:
    return f"{count / 1e6:.{digits}f}M"


def main() -> None:
    """Count, measure and write results/costs.json."""
    counted = [cost(VIT_B_16, name, CLASSES) for name in PROMPT_TYPES]
    base = next(row for row in counted if row["method"] == BASELINE)
    for row in counted:
        for kind in ("forward", "step"):
            row[f"{kind}_ratio"] = row[f"{kind}_flops"] / base[f"{kind}_flops"]
    results = {"counts": counted, "claims": claims(VIT_B_16, CLASSES), "steps": step_times()}
    machine.write("costs", results)


if __name__ == "__main__":
    main()
