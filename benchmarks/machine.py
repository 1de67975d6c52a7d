"""The machine of a measurement, its memory, and the files of results."""

import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from clip.engine.run_folder import git_commit

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
Rows = list[dict[str, Any]]


def describe() -> dict[str, Any]:
    """Return the date, the machine, the libraries and the command."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "date": datetime.date.today().isoformat(),
        "commit": git_commit(),
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
    }


def write(name: str, results: dict[str, Rows]) -> None:
    """Print results, tables as lists of rows by title, and write them to `results/{name}.json`."""
    print(json.dumps(results, indent=1))
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": describe(), "results": results}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def resident_mb(key: str) -> float:
    """Return the memory of this process: "VmRSS" now, "VmHWM" at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def reset_peak() -> float:
    """Reset the peak to the present memory and return that in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_mb("VmRSS")
