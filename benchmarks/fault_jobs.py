"""The jobs that `benchmarks.faults` kills: their commands, and how one tells that nothing broke."""

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from PIL import Image

from benchmarks.startup import ROOT, small_clip
from clip.demo import write_raw

RAW = {"train": 320, "dev": 40, "test": 40}
FILMS = {"train": 48, "dev": 16, "test": 16}
EXPERIMENT = """\
title: Two methods
source: none
base: {task: mmimdb, max_epoch: 4, val_check_interval: 1.0, learning_rate: 0.02}
grid:
  method:
    none: {prompt_type: none}
    DCP: {prompt_type: dcp}
read: {splits: [val, test]}
rows: [method]
columns: [split]
published: []
"""
Words = Callable[[Path, Path], list[str]]


@dataclass(frozen=True)
class Job:
    """A command to be killed.

    Attributes:
        words: (what all jobs share, the job's own folder) -> its command line.
        compared: patterns of files that must be equal in the end, in the last version if there are
            several.
        kills: wanted.
        goes_on: whether a checkpoint in the folder is handed over after a kill.
        processes: that compute together, as torchrun starts them.
        keeps: whether what was done before a kill need not be done again.
        forked: whether it begins with its imports done; else it is started as a user does.
    """

    words: Words
    compared: tuple[str, ...]
    kills: int
    goes_on: bool = False
    processes: int = 1
    forked: bool = True
    keeps: bool = False

    def command(self, shared: Path, own: Path) -> list[str]:
        """Give the words behind "python", those of a first start or one after a kill."""
        words = self.words(shared, own)
        left = any(own.rglob("epoch-*-last.pt"))
        return [*words, f"resume_from={own}"] if self.goes_on and left else words

    def outcome(self, own: Path) -> dict[str, str]:
        """Hash what a job made, without its times and the place where it lies."""
        versions = sorted(own.glob("*/version_*"), key=lambda path: int(path.name[8:]))
        root = versions[-1] if versions else own
        paths = sorted(path for pattern in self.compared for path in root.glob(pattern))
        return {path.relative_to(root).as_posix(): READERS[path.suffix](path) for path in paths}


def prepare(shared: Path) -> None:
    """Make the raw data, arrow files, CLIP and experiment that the jobs read."""
    write_raw(shared / "raw", RAW)
    write_raw(shared / "small", FILMS)
    small_clip(shared / "clip")
    (shared / "two.yaml").write_text(EXPERIMENT, encoding="utf-8")


def settings(shared: Path, own: Path) -> list[str]:
    """Give the settings of a tiny training in a folder."""
    return [f"data_root={shared / 'data'}", f"vit={shared / 'clip'}", "num_gpus=0",
            "num_workers=1", "per_gpu_batchsize=4", "batch_size=8", "prompt_length=6",
            "prompt_depth=2", f"log_dir={own}"]  # fmt: skip


def convert(shared: Path, own: Path, raw: str = "raw") -> list[str]:
    """Give the words of make_arrow.py."""
    return [str(ROOT / "make_arrow.py"), "--dataset", "mmimdb", "--root", str(shared / raw),
            "--target", str(own), "--image_size", "32", "--num_workers", "1"]  # fmt: skip


def train(shared: Path, own: Path) -> list[str]:
    """Give the words of a training."""
    return [str(ROOT / "run.py"), "with", "task_finetune_mmimdb", *settings(shared, own),
            "max_epoch=8", "val_check_interval=0.5", "learning_rate=0.02"]  # fmt: skip


def sweep(shared: Path, own: Path) -> list[str]:
    """Give the words of a sweep."""
    return [str(ROOT / "run.py"), "sweep", "with", "task_finetune_mmimdb", *settings(shared, own),
            f"load_path={shared / 'trained'}"]  # fmt: skip


def reproduce(shared: Path, own: Path) -> list[str]:
    """Give the words of an experiment of two runs."""
    return [str(ROOT / "run.py"), "reproduce", "with", f"experiment={shared / 'two.yaml'}",
            *settings(shared, own)]  # fmt: skip


def _bytes(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _arrow(path: Path) -> str:
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    return hashlib.sha256(repr(table.to_pydict()).encode()).hexdigest()


def _checkpoint(path: Path) -> str:
    content = torch.load(path, weights_only=True)
    digest = hashlib.sha256(repr((content["epoch"], content["global_step"])).encode())
    optimizers = [state["state"] for state in content.get("optimizer_states", [])]
    moments = (each for state in optimizers for each in state.values())
    for part in (content["state_dict"], *moments):
        for name, tensor in sorted(part.items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _metrics(path: Path) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps({name: value for name, value in content.items() if name.startswith("val/")})


def _table(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows, path
    assert len({len(row) for row in rows}) == 1, path
    return _bytes(path)


def _picture(path: Path) -> str:
    with Image.open(path) as image:
        image.load()
    return _bytes(path)


READERS: dict[str, Callable[[Path], str]] = {
    ".arrow": _arrow, ".pt": _checkpoint, ".json": _metrics, ".csv": _table, ".png": _picture,
    ".md": _bytes, ".html": _bytes, ".npz": _bytes,
}  # fmt: skip


def broken(own: Path) -> list[str]:
    """Name the files that stand under a final name and cannot be read to their end."""
    out = []
    for path in own.rglob("*"):
        final = not path.name.startswith(".") and path.suffix in READERS
        if not (final and path.is_file()):
            continue
        try:
            READERS[path.suffix](path)
        except Exception as error:  # noqa: BLE001  whatever a reader raises, the file is broken
            out.append(f"{path}: {error}")
    return out


RUN = ("checkpoints/*-best.pt", "checkpoints/*-last.pt", "metrics.json")
JOBS: dict[str, Job] = {
    "make_arrow": Job(convert, ("*.arrow",), 70, forked=False),
    "train": Job(train, RUN, 50, goes_on=True, keeps=True),
    "train, 2 processes": Job(train, RUN, 30, goes_on=True, keeps=True, processes=2),
    "sweep": Job(sweep, ("sweep.csv", "predictions.arrow"), 44),
    "reproduce": Job(reproduce, ("two/*.csv", "two/table.md", "runs/*/*.arrow"), 12, forked=False, keeps=True),
}
