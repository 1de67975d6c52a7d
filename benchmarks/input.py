"""Speed and memory of make_arrow.py, of the loader behind it, and of opening a data set.

python -m benchmarks.input --rows 1000 10000 --folder result/input

Generates raw data laid out as MM-IMDb (20 kB a poster) and writes benchmarks/results/input.json.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Subset

from benchmarks import machine
from benchmarks.raw_films import generate
from clip.datasets import DATASETS, ArrowDataset
from clip.missing.masks import MissingConfig, draw_mask
from clip.modules.backbones.clip_tokenizer import Tokenizer, train_tokenizer
from clip.transforms import ClipTransform
from clip.utils.images import square
from vilt.utils.raw import Pixels, stored
from vilt.utils.write_mmimdb import GENRES

ROOT = Path(__file__).resolve().parents[1]
IMAGE_SIZE = 224
LOADED = 1000  # samples of a loader's measurement
WORKERS = min(8, os.cpu_count() or 1)  # as make_arrow.py by itself
AS_USUAL = ("files", None, WORKERS)
LARGE = 20_000  # rows from which only the usual conversion and the opening are measured
CASES = (("files", None, 0), AS_USUAL, ("pixels", IMAGE_SIZE, WORKERS))
PAUSE = 0.1  # seconds between two looks at the memory
BARE = "import vilt.utils.write_mmimdb; print(open('/proc/self/smaps_rollup').read())"


def pss(rollup: str) -> int:
    """Read the memory of a process in kB, what it shares divided among its sharers."""
    return int(rollup.partition("\nPss:")[2].split()[0])


def session_memory(session: int) -> int:
    """Add up the memory of all processes of a session, in kB."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                total += pss((process / "smaps_rollup").read_text())
        except (OSError, IndexError):  # it has just ended
            continue
    return total


def children_seconds() -> float:
    """Add up the CPU time of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def convert(raw: Path, target: Path, rows: int, *options: object) -> dict[str, float]:
    """Run make_arrow.py and watch its time and memory."""
    command = [sys.executable, "make_arrow.py", "--dataset", "mmimdb", "--root", raw]
    command += ["--target", target, *options]
    start, cpu, peak = time.perf_counter(), children_seconds(), 0
    run = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while run.poll() is None:
        peak = max(peak, session_memory(run.pid))
        time.sleep(PAUSE)
    seconds = time.perf_counter() - start
    if run.returncode:
        raise SystemExit(f"make_arrow.py failed on {raw}")
    found = {"seconds": seconds, "rows_per_s": rows / seconds, "peak_mb": peak / 1024}
    return found | {"cpu_seconds": children_seconds() - cpu}


def decode_speed(files: list[Path], pixels: Pixels | None) -> float:
    """Read, decode and resize images one after another in this process; images/s."""
    start = time.perf_counter()
    for file in files:
        stored(file.read_bytes(), pixels)
    return len(files) / (time.perf_counter() - start)


def yardstick(raw: Path, pixels: Pixels | None, processes: int) -> float:
    """Let that many processes decode and do nothing else; images/s of all together."""
    files = sorted((raw / "images").iterdir())[:LOADED]
    parts = [files[first::processes] for first in range(processes)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, spawn.Barrier(processes).wait) as pool:
        return sum(pool.map(partial(decode_speed, pixels=pixels), parts))


def conversions(raw: Path, folder: Path, rows: int) -> Iterator[dict[str, Any]]:
    """Convert the files as they are, in one process and with workers, and to pixels.

    ``of_decode`` is the share of what as many processes decode that do nothing else, measured
    before and after.
    """
    for kind, size, workers in CASES if rows < LARGE else (AS_USUAL,):
        options = ["--num_workers", workers] + ["--image_size", size] * bool(size)
        measured = partial(yardstick, raw, partial(square, size=size) if size else None)
        one, before = measured(1), measured(max(1, workers))
        found = convert(raw, folder / kind, rows, *options)
        most = (before + measured(max(1, workers))) / 2
        speeds = {"one_decodes_per_s": one, "all_decode_per_s": most}
        speeds["of_decode"] = found["rows_per_s"] / most
        yield {"stored": kind, "num_workers": workers} | found | speeds


def opened(folder: Path, tokenize: Callable) -> ArrowDataset:
    """Open the training split."""
    return ArrowDataset(
        *DATASETS["mmimdb"].find(folder, "train"),
        text_column=DATASETS["mmimdb"].text_column,
        num_classes=len(GENRES),
        multilabel=True,
        transform=ClipTransform(IMAGE_SIZE),
        tokenize=tokenize,
    )


def loader_speed(dataset: ArrowDataset, ratio: float, workers: int) -> float:
    """Load samples in random order with that share of them incomplete; samples/s."""
    rows = dataset.num_rows
    missing = MissingConfig({"train": "both"}, {"train": ratio})
    dataset.set_mask(draw_mask("mmimdb", "train", dataset.observed, missing))
    order = np.random.default_rng(0).permutation(rows)[:LOADED].tolist()
    batches = iter(DataLoader(Subset(dataset, order), batch_size=32, num_workers=workers))
    next(batches)  # the workers have started
    start = time.perf_counter()
    loaded = sum(len(batch["label"]) for batch in batches)
    return loaded / (time.perf_counter() - start)


def loading(folder: Path, tokenize: Tokenizer) -> Iterator[dict[str, Any]]:
    """Measure the loader on both kinds of arrow files."""
    for kind in ("files", "pixels"):
        dataset = opened(folder / kind, tokenize)
        for ratio in (0.0, 0.7):
            for workers in (0, 2):
                speed = loader_speed(dataset, ratio, workers)
                case = {"stored": kind, "missing_both": ratio, "num_workers": workers}
                yield case | {"samples_per_s": speed}


def measure(rows: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Generate one data set and take all its figures, a list of rows under each title."""
    raw = folder / "raw"
    if not raw.exists():
        generate(raw, rows)
    converted = list(conversions(raw, folder, rows))
    start = time.perf_counter()
    dataset = opened(folder / "files", str)
    seconds = time.perf_counter() - start
    found = {"conversion": converted, "opening": [{"open_seconds": seconds}]}
    if rows >= LARGE:
        return found
    texts = [dataset.text(row) for row in range(min(LOADED, dataset.num_rows))]
    return found | {"loader": list(loading(folder, train_tokenizer(texts, 1000)))}


def main() -> None:
    """Measure all sizes and write results/input.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000], help="data sets")
    parser.add_argument("--folder", type=Path, required=True, help="where the data are generated")
    args = parser.parse_args()
    bare = subprocess.run([sys.executable, "-c", BARE], cwd=ROOT, capture_output=True, text=True)
    results = {"memory before any work": [{"bare_mb": pss(bare.stdout) / 1024}]}
    for rows in args.rows:
        for name, found in measure(rows, args.folder / str(rows)).items():
            results.setdefault(name, []).extend({"rows": rows} | row for row in found)
    print(json.dumps(results, indent=1))
    machine.write("input", results)


if __name__ == "__main__":
    main()
