"""One sweep against a test_only run for each of its cells: time, and the same scores.

    python -m benchmarks.sweep task_finetune_mmimdb data_root=... load_path=... [setting=value ...]

Takes what `run.py sweep with` takes. Both are timed as commands, start-up included.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import machine

ROOT = Path(__file__).resolve().parent.parent
EXACT = {"missing_type", "missing_ratio", "missing_seed", "constant_baseline", "missing_table"}


def command(*arguments: str) -> float:
    """Run the command line and give its seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "run.py"), *arguments], cwd=ROOT, check=True,
                   capture_output=True)  # fmt: skip
    return time.perf_counter() - start


def cell(settings: list[str], row: pd.Series, folder: Path) -> tuple[float, float]:
    """Test one cell of a sweep; give its seconds and the largest difference of a score."""
    name = f"cell_{row.missing_type}_{row.missing_ratio}"
    seconds = command("with", *settings, "test_only=True", f"test_type={row.missing_type}",
                      f"test_ratio={row.missing_ratio}", f"log_dir={folder / name}")  # fmt: skip
    (path,) = (folder / name).glob("*/version_0/metrics.json")
    found = json.loads(path.read_text())
    assert found["missing_tables"]["test"] == row.missing_table
    scores = [name for name in row.index if name not in EXACT]
    return seconds, max(abs(found[f"test/{name}"] - row[name]) for name in scores)


def main() -> None:
    """Measure and write results/sweep.json."""
    settings = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sweep_seconds = command("sweep", "with", *settings, f"log_dir={folder}")
        (csv,) = folder.glob("*/version_0/sweep.csv")
        table = pd.read_csv(csv)
        cells = [cell(settings, row, folder) for _, row in table.iterrows()]
    tests_seconds = sum(seconds for seconds, _ in cells)
    results: dict[str, Any] = {
        "cells": len(cells), "sweep_seconds": sweep_seconds, "tests_seconds": tests_seconds,
        "ratio_of_commands": tests_seconds / sweep_seconds,
        "largest_difference_of_a_score": max(difference for _, difference in cells),
    }  # fmt: skip
    print(json.dumps(results, indent=1))
    machine.write("sweep", results)


if __name__ == "__main__":
    main()
