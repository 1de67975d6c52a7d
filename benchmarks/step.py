"""One step of DCP at the sizes of ViT-B/16 against the slow reference model, in float32.

    python -m benchmarks.step

The reference (`tests/oracles/clip.py`) makes prompts sample by sample, runs both towers for every sample at full length
and sets the features of missing modalities to zero afterwards. Both models run in turn on the same batches in one
process. Memory is what a training step adds to the peak of a process of its own.
"""

import argparse
import multiprocessing
import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.inputs import Batch, batches, random_model
from tests.oracles.clip import SlowModel

RATIO = 0.7
SAMPLES = {4: 20, 16: 48}  # batch size -> samples of all batches; 48 is as near to 70 % as can be


def train_step(model: nn.Module, batch: Batch) -> Tensor:
    """Run forward and backward and return the logits."""
    logits = model(*batch)
    logits.square().mean().backward()
    return logits.detach()


@torch.inference_mode()
def eval_step(model: nn.Module, batch: Batch) -> Tensor:
    """Run forward and return the logits."""
    return model(*batch)


STEPS = {"train": train_step, "eval": eval_step}


def compare(ours: nn.Module, slow: nn.Module, mode: str, missing: str, size: int) -> dict[str, Any]:
    """Time both models on the same batches."""
    seconds, difference, incomplete = [0.0, 0.0], 0.0, 0
    made = batches(missing, RATIO, SAMPLES[size], size)
    STEPS[mode](ours, made[0])  # the first call allocates
    for batch in made:
        incomplete += int((batch[2] != 0).sum())
        logits = []
        for i, model in enumerate((ours, slow)):
            start = time.perf_counter()
            logits.append(STEPS[mode](model, batch))
            seconds[i] += (time.perf_counter() - start) / len(made)
        difference = max(difference, float((logits[0] - logits[1]).abs().max()))
    row = {"mode": mode, "missing": missing, "batch": size, "missing rate": incomplete / SAMPLES[size]}
    row |= {"reference, s": seconds[1], "ours, s": seconds[0], "ratio": seconds[1] / seconds[0]}
    return row | {"largest difference of a logit": difference}


def peak_memory(form: str, size: int) -> float:
    """Return what one training step adds to the peak memory of this fresh process, in MB."""
    model = random_model()
    model = SlowModel(model) if form == "reference" else model
    batch = batches("both", RATIO, SAMPLES[size], size)[0]
    before = machine.reset_peak()
    train_step(model, batch)
    return machine.resident_mb("VmHWM") - before


def main() -> None:
    """Measure all cases and write results/step.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=list(SAMPLES), choices=SAMPLES)
    args = parser.parse_args()
    ours = random_model()
    slow, rows, memory = SlowModel(ours), [], []
    for size in args.batch:
        for mode in STEPS:
            for missing in ("both", "image", "text"):
                rows.append(compare(ours, slow, mode, missing, size))
                print(rows[-1], flush=True)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for size in args.batch:
            reference_mb, ours_mb = pool.starmap(peak_memory, [("reference", size), ("ours", size)], chunksize=1)
            memory.append({"batch": size, "reference, MB": reference_mb, "ours, MB": ours_mb})
    machine.write("step", {"time": rows, "peak memory of a training step, missing both": memory})


if __name__ == "__main__":
    main()
