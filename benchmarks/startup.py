"""Seconds until the program does something: help, settings, one optimiser step; the fastest of three runs.

    python -m benchmarks.startup

The step is taken on generated films and a small random CLIP.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from tests import raw_data, tiny

FILMS = {"train": 64, "dev": 16, "test": 16}


def fastest(*words: object) -> float:
    """Return the seconds of the fastest of three runs; the first fills the file cache."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *map(str, words)], cwd=machine.ROOT, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Measure and write results/startup.json."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw_data.mmimdb(folder / "raw", FILMS)
        tiny.write_clip(folder / "clip")
        step = ["with", "task_finetune_mmimdb", f"data_root={folder}", f"vit={folder}/clip", f"log_dir={folder}/result"]
        step += ["num_gpus=0", "num_workers=0", "max_steps=1", "prompt_depth=2"]
        convert = ["--dataset", "mmimdb", "--root", folder / "raw", "--target", folder]
        seconds = {
            "import torch": fastest("-c", "import torch"),
            "make_arrow.py, 96 films": fastest("make_arrow.py", *convert),
            "run.py --help": fastest("run.py", "--help"),
            "run.py print_config": fastest("run.py", "print_config"),
            "run.py, one optimiser step of 64 samples": fastest("run.py", *step),
        }
    machine.write("startup", {"seconds": [{"command": name, "seconds": value} for name, value in seconds.items()]})


if __name__ == "__main__":
    main()
