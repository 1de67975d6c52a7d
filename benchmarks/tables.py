"""Write docs/performance.md from benchmarks/results/*.json.

python -m benchmarks.tables
"""

import ast
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, ROOT, Rows

PAGE = ROOT / "docs" / "performance.md"
HEAD = """# Performance

Written by `python -m benchmarks.tables` from `benchmarks/results/*.json`. Ratios compare two measurements of one run.

## Precision

`precision=auto`, the default, computes in bf16 on a GPU and in 32 bit on a CPU. With `precision=bf16`, a CPU computes
in bf16 if it has the instructions: `avx512_bf16` or `amx_bf16` on x86, `bf16` on ARM (`lscpu` lists them). Other CPUs
would emulate them, several times slower than 32 bit: there the run prints a line and computes in 32 bit.
`precision=32` is always available. `run.json` records under `device` which precision was used.

In bf16, the frozen weights of matrix products are stored in bf16, half the size. Prompts, classifier, optimizer and
checkpoints stay in 32 bit, so a checkpoint can be trained in one precision and evaluated in the other. On a CPU, two
runs in bf16 are bitwise equal, and a resumed run equals an uninterrupted one; they differ from 32 bit by rounding.

Measured once on two busy cores of an Intel Xeon with AMX, torch 2.11, ViT-B/16 sizes, batch 16, missing both at 70 %: a
training step took 4.04 s in 32 bit and 1.68 s in bf16 (2.4 times as fast; 2.3 times with autocast alone).
Missing image, the step was 2.1 times as fast, missing text 1.5 times. Forward passes in evaluation were 2.4 (missing
image), 1.5 (missing text) and 1.1 times as fast (missing both; 2.3 times with autocast alone, so the 1.1 is due to
the busy machine). Logits differed by at most 0.014.

On an NVIDIA H200 with torch 2.11, `compile=True` failed with an `InductorError` (an assertion in `tiling_utils`): the
GPU table below has no compiled rows. The analysis that failed does not support dynamic shapes and has been switched off
since; `compile=True` has not been tried on a GPU again.

## Features that do not change

If nothing that trains affects the features (`prompt_type=none`, or `dept` and `dpl` on top of it, with `unfreeze=[]`),
each sample is encoded once, before the first step, and training reads its features. Scores and weights are the same but
for the rounding of sums, and a resumed run is bitwise that of an uninterrupted one. Measured once on two cores: four
epochs of the baseline on the products of [the study](study.md) took 65 s in all, and 161 s without this, with the same
accuracy after each epoch.

With `simulate_missing=True`, each sample is encoded in all cases that it may have: a run of 30 epochs on the same data
took 105 s in all on one core, and 547 s without this, with equal scores (once, beside other processes).

## Memory that a step frees

On a CPU with glibc, memory that a step frees returns to the system, which clears it before the next step. With
`MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=33554432` in the environment the process keeps it; results are
bitwise equal. Measured once in the runs of [the profile below](#where-the-time-of-a-small-model-goes): 6.9 s instead of
9.2 s to encode the samples once, and 14.8 s instead of 16.1 s to train DCP. In the forward pass of ViT-B/16 (batch 16),
clearing took 6 to 11 % of the processor time, and below 1 % when the memory was kept. The peak did not change.

## Micro-batches of a small CLIP

`per_gpu_batchsize=auto` is 16 on a CPU, which suits ViT-B/16. A small CLIP is faster with more: an epoch of DCP on the
products of [the study](study.md) (width 128, 40 pixels) took 0.8 minutes and 658 MiB with 16, and 0.6 minutes and 843
MiB with 128. Measured once, one core each, with the same validation accuracy.
"""
SECTIONS = {
    "step": "The training step",
    "sweep": "The sweep",
    "input": "The input",
    "gpu": "One GPU",
    "predict": "Predictions",
    "profile": "Where the time of a small model goes",
    "startup": "Start-up",
    "costs": "Cost of each method",
    "backbones": "Methods on each backbone",
    "faults": "Killed jobs",
}


def cell(value: Any) -> str:
    """Format a number with four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(rows: Rows) -> str:
    """Return a Markdown table of rows with the same keys."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(name: str, title: str) -> str:
    """Return the description, the machine and the tables of one benchmark."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    first, _, *more = ast.get_docstring(ast.parse(source)).split("\n\n")  # the second is the command
    on = content["machine"]
    commit = f"commit {on['commit'][:7]}" if "commit" in on else "measured before the code was reorganised"
    where = f"{on['date']}, {on.get('gpu') or on['cpu']}, {on['cores']} cores, {on['threads']} threads"
    parts = [f"## {title}", first, *more, f"`{on['command']}`, {where}, torch {on['torch']}, {commit}"]
    for name, rows in content["results"].items():
        parts += [f"{name[0].upper()}{name[1:]}:", table(rows)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the page."""
    parts = [section(name, title) for name, title in SECTIONS.items() if (RESULTS / f"{name}.json").exists()]
    PAGE.write_text("\n".join((HEAD, *parts)), encoding="utf-8")


if __name__ == "__main__":
    main()
