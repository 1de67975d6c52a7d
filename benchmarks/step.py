"""Our step against the slow form at ViT-B/16 shapes: time, memory, and equal outputs.

    python -m benchmarks.step

Both forms run in turn on the same batches of one process. Peak memory is that of a process of its
own for each form.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.inputs import Batch, batches, random_model
from tests.oracles.clip import SlowModel

TYPES = ("both", "image", "text")
RATIO = 0.7
SAMPLES = {4: 20, 16: 48}  # batch size -> samples; 20 are exactly 70 %, 48 as near as can be


def train_step(model: nn.Module, batch: Batch) -> Tensor:
    """Run forward and backward; returns the logits."""
    logits = model(*batch)
    logits.square().mean().backward()
    return logits.detach()


@torch.inference_mode()
def eval_step(model: nn.Module, batch: Batch) -> Tensor:
    """Run forward only."""
    return model(*batch)


STEPS: dict[str, Callable[[nn.Module, Batch], Tensor]] = {"train": train_step, "eval": eval_step}


def compare(ours: nn.Module, slow: nn.Module, mode: str, kind: str, size: int) -> dict[str, Any]:
    """Time both forms on the same batches, one after the other."""
    seconds, worst, missing = {"ours": 0.0, "slow": 0.0}, 0.0, 0
    made = batches(kind, RATIO, SAMPLES[size], size)
    STEPS[mode](ours, made[0])  # the first call allocates
    for batch in made:
        missing += int((batch[2] != 0).sum())
        logits = []
        for name, model in (("ours", ours), ("slow", slow)):
            start = time.perf_counter()
            logits.append(STEPS[mode](model, batch))
            seconds[name] += time.perf_counter() - start
        worst = max(worst, float((logits[0] - logits[1]).abs().max()))
    return {
        "mode": mode, "missing": kind, "batch": size, "missing_rate": missing / SAMPLES[size],
        "ours_seconds": seconds["ours"] / len(made), "slow_seconds": seconds["slow"] / len(made),
        "ratio": seconds["slow"] / seconds["ours"], "largest_difference": worst,
    }  # fmt: skip


def peak_memory(form: str, kind: str, size: int) -> float:
    """Measure what one training step adds to the peak memory of a fresh process, in MB."""
    model = random_model()
    model = SlowModel(model) if form == "slow" else model
    (batch, *_) = batches(kind, RATIO, SAMPLES[size], size)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building the model
    before = resident("VmRSS")
    train_step(model, batch)
    return (resident("VmHWM") - before) / 1024


def resident(key: str) -> int:
    """Read a memory figure of this process from Linux, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main() -> None:
    """Measure all cases and write results/step.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=list(SAMPLES), choices=SAMPLES)
    args = parser.parse_args()
    ours = random_model()
    slow, rows = SlowModel(ours), []
    for size in args.batch:
        for mode in STEPS:
            for kind in TYPES:
                rows.append(compare(ours, slow, mode, kind, size))
                print(rows[-1], flush=True)
    memory = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for size in args.batch:
            jobs = [(form, "both", size) for form in ("ours", "slow")]
            ours_mb, slow_mb = pool.starmap(peak_memory, jobs, chunksize=1)
            memory.append({"batch": size, "ours_mb": ours_mb, "slow_mb": slow_mb})
            print(memory[-1], flush=True)
    machine.write("step", {"steps": rows, "peak_memory_of_a_training_step": memory})


if __name__ == "__main__":
    main()
