"""What a measurement was taken on, and where its numbers go."""

import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def describe() -> dict[str, Any]:
    """Name the date, the machine, the libraries and the command."""
    cpu = next((line.partition(":")[2].strip() for line in _cpu_lines()), platform.processor())
    out = {"date": datetime.date.today().isoformat(), "cpu": cpu, "cores": os.cpu_count(),
           "threads": torch.get_num_threads(), "torch": torch.__version__,
           "python": platform.python_version(),
           "command": " ".join(["python", "-m", *_module(), *sys.argv[1:]])}  # fmt: skip
    if torch.cuda.is_available():
        out["gpu"] = torch.cuda.get_device_name()
    return out


def _cpu_lines() -> list[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return [line for line in lines if line.startswith("model name")]


def _module() -> list[str]:
    return [f"benchmarks.{Path(sys.argv[0]).stem}"]


def write(name: str, results: Any) -> None:
    """Write `results/{name}.json` with the machine beside the results."""
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": describe(), "results": results}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
