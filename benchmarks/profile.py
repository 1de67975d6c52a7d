"""Processor time of one training run per method, by phase and part.

    python -m benchmarks.profile task_finetune_manifest data_root=... vit=... num_workers=0 [setting=value ...]

Takes the settings of `python run.py with`. Each run has a process of its own, whose stack is sampled every 5 ms of
processor time. A sample counts for the part of its innermost known frame; `kernel, s` is the part of the seconds spent
in the kernel, most of all to clear fresh memory. Parts below 0.5 % are in the sum of their phase only.
"""

import multiprocessing
import resource
import signal
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from types import FrameType

METHODS, INTERVAL = ("dcp", "none"), 0.005
PHASES = {  # part of "file:function" of a frame -> its phase
    "encode_splits": "encoding once",
    "loops/evaluation_loop.py": "validation",
    "loops/fit_loop.py": "training",
    "": "start and end",
}
PARTS = {
    "ArrowDataset.image": "read, decode and resize images",
    "ArrowDataset.tokens": "read and tokenise texts",
    "ArrowDataset.__getitem__": "batches",
    "PromptedCLIP.collate": "batches",
    "torch/utils/data/": "batches",
    "PromptedCLIP.features": "model, forward",
    "Transform.normalize": "model, forward",
    "torchmetrics/": "metrics",
    "model_step": "head and loss",
    "torch/autograd/graph.py": "model, backward",
    "torch/optim/": "optimizer",
    "engine/checkpoints.py": "checkpoints",
    "MetricsLog": "logging",
    "logger_connector/": "logging",
    "loops/": "Lightning and callbacks",
    "importlib": "imports",
    "": "other",
}


def find(table: dict[str, str], frames: list[str]) -> str:
    """Return the value of the innermost frame that a key is part of, or the default, whose key is empty."""
    known = (value for frame in frames for key, value in table.items() if key and key in frame)
    return next(known, table[""])


def profile(words: list[str]) -> list[dict[str, object]]:
    """Train with these words of a command line and return a row for each phase and part."""
    seconds, kernel, last = Counter(), Counter(), [0.0, 0.0]

    def sample(number: int, frame: FrameType | None) -> None:
        usage, frames = resource.getrusage(resource.RUSAGE_SELF), []
        while frame:
            frames.append(f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}")
            frame = frame.f_back
        phase, part = find(PHASES, frames), find(PARTS, frames)
        for key in ((phase, "sum"), (phase, part), ("run", "sum")):
            seconds[key] += usage.ru_utime + usage.ru_stime - sum(last)
            kernel[key] += usage.ru_stime - last[1]
        usage = resource.getrusage(resource.RUSAGE_SELF)  # again: this function's own time does not count
        last[:] = usage.ru_utime, usage.ru_stime

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    from run import command_line  # its imports are measured

    command_line(["run.py", "with", *words])
    signal.setitimer(signal.ITIMER_PROF, 0)
    total, columns = seconds["run", "sum"], ("phase", "part", "seconds", "share", "kernel, s")
    keys = sorted(seconds, key=lambda key: (-seconds[key[0], "sum"], -seconds[key]))
    rows = [(*key, seconds[key], seconds[key] / total, kernel[key]) for key in keys]
    return [dict(zip(columns, row, strict=True)) for row in rows if row[3] > 0.005]


if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        rows = list(pool.map(profile, [[*sys.argv[1:], f"prompt_type={method}"] for method in METHODS]))
    from benchmarks import machine  # imports torch, which must not be there when a run starts

    machine.write("profile", dict(zip(METHODS, rows, strict=True)))
