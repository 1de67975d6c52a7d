"""Rows a second that a loaded model classifies, reading of the files included, by missing modality.

    python -m benchmarks.predict

A random CLIP of the sizes of ViT-B/16 with the prompts of DCP, JPEG posters of 400x600 pixels, texts of 52 tokens. The
ratio is to complete rows.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import machine
from benchmarks.inputs import CLASSES, VIT_B_16, random_model
from clip.demo.pretrain import train_tokenizer
from clip.inference.predictor import Predictor
from clip.modules.objectives import TASKS
from clip.transforms import ClipTransform

BATCH, ROWS = 16, 32
TEXT = "film " * 52


def main() -> None:
    """Measure and write results/predict.json."""
    names, transform = [f"class {i}" for i in range(CLASSES)], ClipTransform(VIT_B_16.image_size)
    tokenizer = train_tokenizer([TEXT], 560)
    model, task = random_model().eval(), TASKS["mmimdb"]
    predictor = Predictor(model, tokenizer, transform, task, names, "cpu", torch.float32, BATCH, {})
    predictor.predict(texts=[TEXT] * BATCH)  # the first pass allocates
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)
        poster = Image.fromarray(noise).resize((400, 600), Image.Resampling.BICUBIC)
        images = [Path(folder) / f"{i}.jpeg" for i in range(ROWS)]
        for path in images:
            poster.save(path, quality=90)
        inputs = {"complete": (images, [TEXT] * ROWS), "text": (images, None), "image": (None, [TEXT] * ROWS)}
        for missing, pair in inputs.items():
            start = time.perf_counter()
            answers = predictor.predict(*pair)
            speed = ROWS / (time.perf_counter() - start)
            assert set(answers["missing"]) == {missing}
            rows.append({"missing": missing, "rows/s": speed, "ratio": speed / (rows[0]["rows/s"] if rows else speed)})
    machine.write("predict", {"predictions": rows})


if __name__ == "__main__":
    main()
