"""The whole job on an embedded stand-in: raw data, arrow, a small CLIP, two methods, a figure.

No network, no downloads, no GPU. Every step is a command of this project, printed as one would
type it. The data are drawn by ``demo_data``; the test films are touched by the last step only.
"""

import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from clip.cli.arguments import command_of
from clip.demo import SIZES, write_raw
from clip.evaluation import report
from clip.utils.errors import UserError
from clip.utils.files import write_text

ROOT = Path(__file__).resolve().parents[2]
METHODS = {"baseline": "none", "DCP": "dcp"}  # name in the figure -> prompt_type
HEADLINE = "F1_Macro"
PRETRAIN = {"image_size": 32, "patch": 8, "width": 64, "layers": 3, "vocabulary": 2048,
            "epochs": 22, "batch_size": 64, "learning_rate": 2e-3, "sources": []}  # fmt: skip
FINETUNE = {"batch_size": 32, "per_gpu_batchsize": 32, "max_epoch": 8, "prompt_depth": 3,
            "val_check_interval": 1.0, "num_workers": 0}  # fmt: skip


def whole_job(call: Callable[..., Any], folder: Path) -> pd.DataFrame:
    """Do everything, from drawn films to one table and one figure.

    Args:
        call: (command, **settings) -> its result, with the commands of run.py.
        folder: everything is written below it, in a new demo_0, demo_1, ...

    Returns:
        One row a method, missing type and missing rate of the test split.
    """
    folder = next(path for i in count() if not (path := folder / f"demo_{i}").exists())
    raw, arrow, small_clip = folder / "raw", folder / "arrow", folder / "clip"
    print(f"drawing {sum(SIZES.values())} films in MM-IMDb's raw layout: {raw}")
    write_raw(raw, SIZES)
    convert(raw, arrow)
    shared = {"task": "mmimdb", "data_root": str(arrow), "log_dir": str(folder), "num_gpus": 0}
    announced(call, "pretrain", **shared, pretrain=PRETRAIN | {"target": str(small_clip)})
    shared |= FINETUNE | {"vit": str(small_clip)}
    results = []
    for name, prompt_type in METHODS.items():
        settings = shared | {"exp_name": f"demo_{name.lower()}"}
        run = announced(call, "train", **settings, prompt_type=prompt_type)
        scores = announced(call, "sweep", **settings, load_path=run["folder"])
        results.append(scores.assign(method=name))
    return conclude(pd.concat(results), folder)


def convert(raw: Path, arrow: Path) -> None:
    """Call make_arrow.py as a user would.

    Raises:
        UserError: it failed; it has printed why.
    """
    arguments = ["--dataset", "mmimdb", "--root", str(raw), "--target", str(arrow)]
    print("\n$ python make_arrow.py", *arguments, flush=True)
    done = subprocess.run([sys.executable, str(ROOT / "make_arrow.py"), *arguments], check=False)
    if done.returncode:
        raise UserError("the demo stopped: make_arrow.py failed, see above")


def announced(call: Callable[..., Any], command: str, **settings: Any) -> Any:
    """Print a command as one would type it, then call it."""
    word = [] if command == "train" else [command]
    print("\n$", command_of(settings, *word), flush=True)
    return call(command, **settings)


def conclude(results: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Print the table of all methods and draw the figure."""
    csv, figure = folder / "demo.csv", folder / "demo.png"
    write_text(csv, results.to_csv(index=False))
    title = "Generated films, a small CLIP; fine-tuned at 70 % missing both"
    report.draw_sweep(results, HEADLINE, figure, title)
    print(f"\n{report.sweep_text(results, HEADLINE)}\n\nwritten: {csv} and {figure}")
    return results
