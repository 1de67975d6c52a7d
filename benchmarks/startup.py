"""How long the program takes before it does anything: help, settings, one optimiser step.

    python -m benchmarks.startup

The one-step run is made on generated films and a random small CLIP, in a temporary folder.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from clip.demo import write_raw
from clip.modules.backbones.clip import save_clip
from clip.modules.backbones.clip_tokenizer import train_tokenizer
from clip.modules.vision_transformer_prompts import TextTransformer, VisionTransformer

ROOT = Path(__file__).resolve().parent.parent
FILMS = {"train": 64, "dev": 16, "test": 16}
REPEATS = 3


def timed(program: str, *arguments: str) -> float:
    """Give the fastest of a few runs in seconds; the first fills the file cache."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, program, *arguments], cwd=ROOT, check=True,
                       capture_output=True)  # fmt: skip
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def small_clip(folder: Path) -> Path:
    """Write a random CLIP of two layers."""
    tokenizer = train_tokenizer(["a film about a film"], 520)
    shape = {"width": 64, "layers": 2, "embed_dim": 64, "activation": "quick_gelu"}
    image = VisionTransformer(patch=16, grid=2, **shape).state_dict()
    text = TextTransformer(context=77, vocabulary=len(tokenizer.vocab), **shape).state_dict()
    state = {f"visual.{name}": tensor for name, tensor in image.items()} | text
    save_clip(folder, state | {"logit_scale": text["ln_final.bias"].sum()}, "quick_gelu", tokenizer)
    return folder


def main() -> None:
    """Measure and write results/startup.json."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_raw(folder / "raw", FILMS)
        convert = ["--dataset", "mmimdb", "--root", str(folder / "raw"), "--target", str(folder)]
        step = ["with", "task_finetune_mmimdb", f"data_root={folder}", "num_gpus=0", "max_steps=1",
                f"vit={small_clip(folder / 'clip')}", "prompt_depth=2", "num_workers=0",
                f"log_dir={folder / 'result'}"]  # fmt: skip
        results = {
            "import torch": timed("-c", "import torch"),
            "make_arrow.py, 96 films": timed("make_arrow.py", *convert),
            "run.py --help": timed("run.py", "--help"),
            "run.py print_config": timed("run.py", "print_config"),
            "run.py, one optimiser step of 64 samples": timed("run.py", *step),
        }
    print(json.dumps(results, indent=1))
    machine.write("startup", results)


if __name__ == "__main__":
    main()
