"""One forward pass of DCP on each published CLIP at its real size, with random weights.

    python -m benchmarks.members

Each member has a process of its own, so that its peak memory is its own. Seconds are processor time
of one thread, which other work on the machine hardly changes.
"""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.inputs import VIT_B_16, random_model
from benchmarks.step import resident
from clip.evaluation.costs import backbone, trainable

LARGE = replace(VIT_B_16, image_width=1024, image_layers=24, patch=14, grid=16, text_width=768,
                embed_dim=768)  # fmt: skip
REPEATS = 3  # the fastest is kept
MEMBERS = {
    "ViT-B/32": replace(VIT_B_16, patch=32, grid=7),
    "ViT-B/16": VIT_B_16,
    "ViT-L/14": LARGE,
    "ViT-L/14@336px": replace(LARGE, grid=24),
}


def timed(call: Callable[[], Any]) -> float:
    """Give the processor time of a call, in seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


def forward(member: str) -> dict[str, Any]:
    """Build one member and run a complete pair, its text at full length."""
    torch.set_num_threads(1)
    sizes = MEMBERS[member]
    model = random_model(sizes=sizes).eval()
    pair = model.example_inputs(sizes, "cpu")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building the model
    with torch.inference_mode():
        assert model(*pair).isfinite().all()  # the first call allocates
        seconds = min(timed(lambda: model(*pair)) for _ in range(REPEATS))
    return {"member": member, "backbone": backbone(model), "trains": sum(trainable(model).values()),
            "seconds": seconds, "peak_mb": resident("VmHWM") / 1024}  # fmt: skip


def main() -> None:
    """Measure every member and write results/members.json."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = pool.map(forward, MEMBERS, chunksize=1)
    torch.set_num_threads(1)  # as each row did
    machine.write("members", {"one_complete_pair": rows})


if __name__ == "__main__":
    main()
