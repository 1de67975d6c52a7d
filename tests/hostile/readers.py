"""Valid files of every kind that the program reads, and the command that reads them."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml

import make_arrow
import run
from clip.experiments.spec import FOLDER, load_experiment
from clip.modules.backbones.clip import load_clip
from clip.utils.errors import UserError
from tests import predicting, raw_data, tiny, tiny_vilt
from tests.own_data import shapes, write_manifest

ROWS = {"train": 4, "dev": 3, "test": 3}
IMAGES = "image.png image.jpeg image.gif image.bmp image.ppm image.tiff image.webp"
CONVERT = "make_arrow.py --num_workers 0 --target out --dataset"
PREDICT = "run.py predict with num_gpus=0 vit=clip load_path=trained.pt predict.output=out.csv"
TRAIN = (
    "run.py with task_finetune_mmimdb fast_dev_run=True num_gpus=0 num_workers=0 per_gpu_batchsize=4 batch_size=4 "
    "prompt_length=6 prompt_depth=2 plots=all data_root=arrow"
)
READERS = {  # name: (files, the command that reads all of them or FILE)
    "raw MM-IMDb": ("mmimdb/split.json mmimdb/labels/0000000.json", f"{CONVERT} mmimdb --root mmimdb"),
    "raw Food-101": ("food/split.json food/text.json food/class_idx.json", f"{CONVERT} food101 --root food"),
    "raw Hateful Memes": ("memes/train.jsonl", f"{CONVERT} hateful_memes --root memes"),
    "manifests": ("own.csv own.jsonl own.parquet", f"{CONVERT} manifest --root FILE"),
    "converted images": (IMAGES, f"{CONVERT} manifest --root images.csv"),
    "predicted images": (IMAGES, f"{PREDICT} predict.image=FILE"),
    "predicted tables": ("rows.csv rows.jsonl rows.parquet", f"{PREDICT} predict.input=FILE"),
    "checkpoints": ("trained.pt", f"{PREDICT} predict.text=film"),
    "arrow files": ("arrow/mmimdb_train.arrow", f"{TRAIN} vit=clip"),
    "missing tables": (
        "missing.csv missing.jsonl missing.npz missing.pt",
        f"{TRAIN} vit=clip missing_table.train=FILE",
    ),
    "CLIP weights": ("clip/model.safetensors clip/weights.pt", f"{TRAIN} vit=FILE"),
    "CLIP folder": ("clip/config.json clip/vocab.json clip/merges.txt", f"{TRAIN} vit=clip"),
    "ViLT": ("vilt/model.safetensors vilt/vocab.txt", f"{TRAIN} vit=vilt backbone=vilt"),
    "experiments": ("table1.yaml figure5.yaml", load_experiment),
    "settings files": ("settings.json settings.yaml", "run.py print_config with FILE"),
}


def read(command: str | Callable[[str], object], file: str) -> None:
    """Read a file of the current folder; one error line becomes a UserError, all else stays a SystemExit."""
    if callable(command):
        return command(file)
    program, *words = command.replace("FILE", file).split()
    Path("out.csv").unlink(missing_ok=True)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return make_arrow.main(words) if program == "make_arrow.py" else run.command_line([program, *words])
    except SystemExit as end:
        if isinstance(end.code, str) and end.code.startswith("error: "):
            raise UserError(end.code) from end
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def write_files(folder: Path, clip: Path) -> Path:
    """Write every file that READERS names."""
    raw_data.mmimdb(folder / "mmimdb", ROWS)
    raw_data.food101(folder / "food", ROWS)
    raw_data.hateful_memes(folder / "memes", ROWS)
    tiny.write_arrow(folder / "arrow", ROWS)
    shutil.copytree(clip, folder / "clip")
    torch.save(dict(load_clip(str(clip)).state), folder / "clip/weights.pt")
    tiny_vilt.write_vilt(folder / "vilt")
    (checkpoint,) = predicting.write_run(clip, folder).glob("epoch-*.pt")
    checkpoint.rename(folder / "trained.pt")
    rows = shapes(folder, ROWS)
    for suffix in (".csv", ".jsonl", ".parquet"):
        write_manifest(folder / f"own{suffix}", rows)
        write_manifest(folder / f"rows{suffix}", [{"image": row["image"], "text": row["text"]} for row in rows])
        write_manifest(folder / f"missing{suffix}", [{"missing_type": i % 3} for i in range(ROWS["train"])])
    np.savez(folder / "missing.npz", np.arange(ROWS["train"]) % 3)
    torch.save(torch.arange(ROWS["train"]) % 3, folder / "missing.pt")
    for i, name in enumerate(IMAGES.split()):
        raw_data.draw(folder / name, i)
    images = [{"image": n, "text": "a", "label": n[-1], "split": s} for n in IMAGES.split() for s in ROWS]
    write_manifest(folder / "images.csv", images)
    for name in ("table1.yaml", "figure5.yaml"):
        (folder / name).write_text(json.dumps(yaml.safe_load((FOLDER / name).read_text())))
    for name in ("settings.json", "settings.yaml"):
        (folder / name).write_text(json.dumps({"batch_size": 4, "dcp": {"prompts": "A"}, "seed": 1}))
    return folder
