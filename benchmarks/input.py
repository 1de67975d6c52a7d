"""Speed and memory of make_arrow.py, of the data loader, and of opening a data set.

    python -m benchmarks.input --rows 1000 10000

Raw data are generated in the layout of MM-IMDb with posters of about 20 kB. `share of decoding` compares a conversion
with as many processes that only decode the same images. Memory is that of all processes, shared pages counted once.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Subset

from benchmarks import machine
from clip.datasets import DATASETS, ArrowDataset
from clip.demo.pretrain import train_tokenizer
from clip.missing.masks import MissingConfig, draw_mask
from clip.transforms import ClipTransform
from vilt.utils.write_mmimdb import GENRES

IMAGE_SIZE = 224
LOADED = 1000  # samples that the loader and the decoding processes read
WORKERS = min(8, os.cpu_count() or 1)
LARGE = 20_000  # rows from which only the usual conversion and the opening are measured
CASES = (("files", 0), ("files", WORKERS), ("pixels", WORKERS))  # what is stored, worker processes
WORDS = ["lonely", "hunter", "meets", "queen", "of", "winter", "and", "finds", "an", "old", "town"]


def generate(root: Path, rows: int) -> None:
    """Write raw data; 90 % of the rows are for training."""
    rng, posters = np.random.default_rng(rows), []
    for _ in range(min(rows, 200)):
        coarse = Image.fromarray(rng.integers(0, 256, (42, 28, 3), dtype=np.uint8))
        posters.append(BytesIO())
        coarse.resize((256, 384), Image.Resampling.BICUBIC).save(posters[-1], "JPEG", quality=80)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    names = [f"{row:07d}" for row in range(rows)]
    for row, name in enumerate(names):
        (root / f"images/{name}.jpeg").write_bytes(posters[row % len(posters)].getvalue())
        label = {"plot": [" ".join(rng.choice(WORDS, 120))], "genres": [GENRES[row % len(GENRES)]]}
        (root / f"labels/{name}.json").write_text(json.dumps(label))
    train, dev = rows * 9 // 10, rows * 19 // 20
    splits = {"train": names[:train], "dev": names[train:dev], "test": names[dev:]}
    (root / "split.json").write_text(json.dumps(splits))


def session_memory(session: int) -> float:
    """Return the memory of all processes of a session in MB."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                total += int((process / "smaps_rollup").read_text().partition("\nPss:")[2].split()[0])
        except (OSError, IndexError):  # it has just ended
            continue
    return total / 1024


def decode(files: list[Path]) -> float:
    """Decode images one after another in this process and return images a second."""
    start = time.perf_counter()
    for file in files:
        with Image.open(BytesIO(file.read_bytes())) as image:
            image.load()
    return len(files) / (time.perf_counter() - start)


def decoding_speed(raw: Path, processes: int) -> float:
    """Return the images a second that processes decode together that do nothing else."""
    files, spawn = sorted((raw / "images").iterdir())[:LOADED], multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, spawn.Barrier(processes).wait) as pool:
        return sum(pool.map(decode, (files[first::processes] for first in range(processes))))


def convert(raw: Path, target: Path, rows: int, stored: str, workers: int) -> dict[str, Any]:
    """Run make_arrow.py and watch its time and memory."""
    words = ["--dataset", "mmimdb", "--root", str(raw), "--target", str(target), "--num_workers", str(workers)]
    words += ["--image_size", str(IMAGE_SIZE)] * (stored == "pixels")
    decoded, peak, start = decoding_speed(raw, max(1, workers)), 0.0, time.perf_counter()
    command = [sys.executable, "make_arrow.py", *words]
    run = subprocess.Popen(command, cwd=machine.ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while run.poll() is None:
        peak = max(peak, session_memory(run.pid))
        time.sleep(0.1)
    speed = rows / (time.perf_counter() - start)
    if run.returncode:
        raise SystemExit(f"make_arrow.py failed on {raw}")
    decoded = (decoded + decoding_speed(raw, max(1, workers))) / 2
    row = {"rows": rows, "stored": stored, "workers": workers, "rows/s": speed, "peak, MB": peak}
    return row | {"decoding, images/s": decoded, "share of decoding": speed / decoded}


def open_dataset(folder: Path, tokenize: Any) -> ArrowDataset:
    """Open the training split."""
    spec, classes = DATASETS["mmimdb"], len(GENRES)
    options = {
        "text_column": spec.text_column,
        "num_classes": classes,
        "multilabel": True,
        "transform": ClipTransform(IMAGE_SIZE),
    }
    return ArrowDataset(*spec.find(folder, "train"), tokenize=tokenize, **options)


def loader_speed(dataset: ArrowDataset, ratio: float, workers: int) -> float:
    """Load samples in random order at a missing rate and return samples a second."""
    rows = dataset.num_rows
    missing = MissingConfig({"train": "both"}, {"train": ratio})
    dataset.set_mask(draw_mask("mmimdb", "train", np.zeros(rows, dtype=np.uint8), missing))
    order = np.random.default_rng(0).permutation(rows)[:LOADED].tolist()
    batches = iter(DataLoader(Subset(dataset, order), batch_size=32, num_workers=workers))
    next(batches)  # the workers have started
    start = time.perf_counter()
    return sum(len(batch["label"]) for batch in batches) / (time.perf_counter() - start)


def measure(rows: int, folder: Path) -> dict[str, machine.Rows]:
    """Generate one data set and measure it."""
    raw = folder / "raw"
    generate(raw, rows)
    cases = CASES if rows < LARGE else CASES[1:2]
    found = {"conversion": [convert(raw, folder / stored, rows, stored, workers) for stored, workers in cases]}
    start = time.perf_counter()
    dataset = open_dataset(folder / "files", str)
    found["opening"] = [{"rows": rows, "seconds": time.perf_counter() - start}]
    if rows >= LARGE:
        return found
    tokenizer = train_tokenizer([dataset.text(row) for row in range(min(LOADED, dataset.num_rows))], 1000)
    found["loader"] = []
    for stored in ("files", "pixels"):
        dataset = open_dataset(folder / stored, tokenizer)
        for ratio, workers in ((0.0, 0), (0.0, 2), (0.7, 0), (0.7, 2)):
            row = {"rows": rows, "stored": stored, "missing both": ratio, "workers": workers}
            found["loader"].append(row | {"samples/s": loader_speed(dataset, ratio, workers)})
    return found


def main() -> None:
    """Measure all sizes and write results/input.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000], help="sizes of the data sets")
    results: dict[str, machine.Rows] = {}
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as folder:
            for name, found in measure(rows, Path(folder)).items():
                results.setdefault(name, []).extend(found)
    machine.write("input", results)


if __name__ == "__main__":
    main()
