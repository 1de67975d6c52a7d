"""One `sweep` against one `test_only` command for each of its cells, both timed with start-up.

    python -m benchmarks.sweep task_finetune_mmimdb data_root=... load_path=... [setting=value ...]

Takes the settings of `python run.py sweep with`.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks import machine

NOT_SCORES = {"missing_type", "missing_ratio", "missing_seed", "constant_baseline", "missing_table"}


def timed(*words: str) -> float:
    """Run a command line of the program and return its seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "run.py", *words], cwd=machine.ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def test_cell(settings: list[str], row: pd.Series, folder: Path) -> tuple[float, float]:
    """Test one cell of a sweep; return its seconds and the largest difference of a score."""
    case = [f"test_type={row.missing_type}", f"test_ratio={row.missing_ratio}"]
    seconds = timed("with", *settings, "test_only=True", *case, f"log_dir={folder}")
    (path,) = folder.glob("*/version_0/metrics.json")
    found = json.loads(path.read_text())
    assert found["missing_tables"]["test"] == row.missing_table
    return seconds, max(abs(found[f"test/{name}"] - row[name]) for name in row.index if name not in NOT_SCORES)


def main() -> None:
    """Measure and write results/sweep.json."""
    settings = sys.argv[1:]
    if not settings or settings[0] == "--help":
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sweep = timed("sweep", "with", *settings, f"log_dir={folder}")
        (path,) = folder.glob("*/version_0/sweep.csv")
        cells = [test_cell(settings, row, folder / str(i)) for i, row in pd.read_csv(path).iterrows()]
    tests = sum(seconds for seconds, _ in cells)
    row = {"cells": len(cells), "sweep, s": sweep, "test_only commands, s": tests, "ratio": tests / sweep}
    machine.write("sweep", {"seconds": [row | {"largest difference of a score": max(d for _, d in cells)}]})


if __name__ == "__main__":
    main()
