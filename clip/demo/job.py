"""Run the complete pipeline on generated data: films, arrow files, a small CLIP, two methods, table and figure.

It needs no network, download or GPU. Each step is a command of this project, printed as typed in a shell.
"""

import shlex
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from clip.demo.films import SIZES, write_raw
from clip.evaluation.figures import draw_sweep
from clip.evaluation.report import sweep_text
from clip.utils.errors import UserError
from clip.utils.files import write_text

MAKE_ARROW = Path(__file__).resolve().parents[2] / "make_arrow.py"
METHODS = {"baseline": "none", "DCP": "dcp"}  # name of the runs -> prompt_type
PRETRAIN = {"image_size": 32, "width": 64, "layers": 3, "epochs": 20}
FINETUNE = {"batch_size": 32, "per_gpu_batchsize": 32, "max_epoch": 8, "val_check_interval": 1.0, "prompt_depth": 3}


def run_demo(call: Callable[..., Any], log_dir: Path) -> pd.DataFrame:
    """Generate films, convert them, pretrain a small CLIP, then fine-tune and sweep each method.

    Everything is written to a new folder demo_0, demo_1, ... of ``log_dir``. ``call(command, **settings)`` runs a
    command of run.py and returns its result. The scores have one row per method, missing type and missing rate.
    """
    folder = next(path for i in count() if not (path := log_dir / f"demo_{i}").exists())
    raw, arrow, small_clip = folder / "raw", folder / "arrow", folder / "clip"
    print(f"generating {sum(SIZES.values())} films in MM-IMDb's raw layout: {raw}")
    write_raw(raw)
    arguments = ["--dataset", "mmimdb", "--root", str(raw), "--target", str(arrow)]
    print("\n$ python make_arrow.py", shlex.join(arguments), flush=True)
    if subprocess.run([sys.executable, str(MAKE_ARROW), *arguments], check=False).returncode:
        raise UserError("make_arrow.py failed on the generated films; its message is printed above")
    shared = {"task": "mmimdb", "data_root": str(arrow), "log_dir": str(folder), "num_gpus": 0, "num_workers": 0}
    call("pretrain", **shared, pretrain=PRETRAIN | {"target": str(small_clip)})
    settings, runs = shared | FINETUNE | {"vit": str(small_clip)}, []
    for name, prompt_type in METHODS.items():
        run = call("train", **settings, exp_name=f"demo_{name.lower()}", prompt_type=prompt_type)
        runs.append(run["folder"])
    results = call("sweep", **settings, exp_name="demo", load_path=runs)
    write_text(folder / "demo.csv", results.to_csv(index=False))
    dataset = "Generated films, a small CLIP fine-tuned at 70 % missing both"
    draw_sweep(results, "F1_Macro", dataset, folder, "demo")
    print(f"\n{sweep_text(results, 'F1_Macro')}\n\nwritten: {folder}/demo.csv, demo.png, demo.pdf")
    return results
