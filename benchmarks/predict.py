"""Rows a second that a loaded model classifies, reading of the files included, by missing modality.

    python -m benchmarks.predict

A random CLIP of the sizes of ViT-B/16 with the prompts of DCP, JPEG posters of 400x600 pixels, texts of 52 tokens. The
ratio is to complete rows. On a processor with bf16 instructions, the same rows are classified in bf16 too, in turn with
float32; the speedup is the ratio to float32.
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
from clip.engine.trainer import has_native_bf16
from clip.inference.predictor import Predictor
from clip.modules.objectives import TASKS
from clip.transforms import ClipTransform

BATCH, ROWS = 16, 32
TEXT = "film " * 52


def main() -> None:
    """Measure and write results/predict.json."""
    names, transform = [f"class {i}" for i in range(CLASSES)], ClipTransform(VIT_B_16.image_size)
    tokenizer = train_tokenizer([TEXT], 560)
    predictors = {}
    for dtype in (torch.float32, torch.bfloat16)[: 1 + has_native_bf16()]:
        model = random_model().eval()
        model.cast_frozen(dtype)
        predictors[dtype] = Predictor(model, tokenizer, transform, TASKS["mmimdb"], names, "cpu", dtype, BATCH, {})
        predictors[dtype].predict(texts=[TEXT] * BATCH)  # the first pass allocates
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)
        poster = Image.fromarray(noise).resize((400, 600), Image.Resampling.BICUBIC)
        images = [Path(folder) / f"{i}.jpeg" for i in range(ROWS)]
        for path in images:
            poster.save(path, quality=90)
        inputs = {"complete": (images, [TEXT] * ROWS), "text": (images, None), "image": (None, [TEXT] * ROWS)}
        for missing, pair in inputs.items():
            speeds = []
            for dtype, predictor in predictors.items():
                start = time.perf_counter()
                answers = predictor.predict(*pair)
                speeds.append(ROWS / (time.perf_counter() - start))
                assert set(answers["missing"]) == {missing}
                complete = next((r["rows/s"] for r in rows if r["type"] == str(dtype)), speeds[-1])
                row = {"missing": missing, "type": str(dtype), "rows/s": speeds[-1], "ratio": speeds[-1] / complete}
                rows.append(row | {"speedup": speeds[-1] / speeds[0]})
    machine.write("predict", {"predictions": rows})


if __name__ == "__main__":
    main()
