"""How many rows a second `run.py predict with input=` answers, by what is missing.

    python -m benchmarks.predict

A random CLIP of ViT-B/16's sizes with the prompts of DCP, JPEG posters of a usual size, texts as
long as MM-IMDb's; reading, model and writing together, and reading alone. Loading is left out.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
from clip.engine.micro_batch import CPU_SAMPLES
from clip.inference.readers import read_rows
from clip.inference.writers import written
from PIL import Image

from benchmarks import machine
from benchmarks.inputs import CLASSES, VIT_B_16, random_model
from clip.inference.predict import read_ahead, write_answers
from clip.inference.predictor import Predictor
from clip.inference.samples import MISSING
from clip.modules.backbones.clip_tokenizer import train_tokenizer
from clip.modules.objectives import TASKS
from clip.transforms import ClipTransform

ROWS = 2 * CPU_SAMPLES  # of each kind
POSTER = (400, 600)  # pixels
WORDS = 52  # of a text, each of which becomes one token
THREADS = 2
CPU = {"accelerator": "cpu", "devices": 1, "precision": "32-true"}


def make_predictor() -> Predictor:
    """Build a predictor of random weights."""
    tokenizer = train_tokenizer(["film " * WORDS], 560)
    names = [f"class {i}" for i in range(CLASSES)]
    transform = ClipTransform(VIT_B_16.image_size)
    return Predictor(random_model(), tokenizer, transform, TASKS["mmimdb"], names, CPU,
                     CPU_SAMPLES, {})  # fmt: skip


def write_table(folder: Path, missing: str) -> Path:
    """Write posters and a table of one kind of rows."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)
    poster = Image.fromarray(noise).resize(POSTER, Image.Resampling.BICUBIC)
    path = folder / f"{missing}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for i in range(ROWS):
            poster.save(folder / f"{i}.jpeg", quality=90)
            row = {"image": f"{i}.jpeg", "text": "film " * WORDS} | {missing: None}
            file.write(json.dumps(row) + "\n")
    return path


def measure(predictor: Predictor, table: Path, missing: str) -> dict[str, str | int | float]:
    """Time a table."""
    start = time.perf_counter()
    batches = read_ahead(predictor, read_rows(table), table.parent, THREADS)
    read = sum(map(len, batches))
    reading = time.perf_counter() - start
    start = time.perf_counter()
    batches = read_ahead(predictor, read_rows(table), table.parent, THREADS)
    with written(table.with_suffix(".csv")) as write:
        counts, _ = write_answers(predictor, batches, write)
    seconds = time.perf_counter() - start
    assert counts[missing] == read == ROWS
    return {"missing": missing, "rows": ROWS, "seconds": seconds, "rows a second": ROWS / seconds,
            "rows a second, reading alone": ROWS / reading}  # fmt: skip


def main() -> None:
    """Measure and write results/predict.json."""
    predictor, rows = make_predictor(), []
    predictor.predict(texts=["film"] * CPU_SAMPLES)  # the first pass makes threads and caches
    with tempfile.TemporaryDirectory() as temporary:
        for missing in MISSING:
            table = write_table(Path(temporary), missing)
            rows.append(measure(predictor, table, missing))
    print(json.dumps(rows, indent=1))
    machine.write("predict", {"predictions_with_ViT-B/16": rows})


if __name__ == "__main__":
    main()
