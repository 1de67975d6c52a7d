"""A checkpoint for the tiny CLIP, and the tiny test split as files that a user would have."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import run
from clip.cli import build as assembly
from clip.cli.schema import validate
from clip.datasets import DATASETS
from tests import tiny

COMPLETE, NO_TEXT, NO_IMAGE = range(3)
STATES = [COMPLETE, NO_TEXT, NO_IMAGE] * 4  # of the 12 test films


def call(*words):
    """The same command line in this process."""
    run.command_line(["run.py", *map(str, words)])


def write_run(clip_folder, folder, task="mmimdb"):
    """A run's folder with a checkpoint; the head is far from zero, so that classes differ."""
    settings = {"task": task, "vit": str(clip_folder), "prompt_length": tiny.LENGTH,
                "prompt_depth": tiny.DEPTH}  # fmt: skip
    built = assembly.build(validate(run.ex.configurations[0]() | settings), set(settings))
    with torch.no_grad():
        built.model.classifier.weight *= 20
    state = {"model_config": built.model_config, "state_dict": built.model.adapter_state_dict()}
    torch.save(state, folder / "epoch-00-step-000001-best.pt")
    return folder


def films(arrow_folder, folder, task="mmimdb"):
    """Write the test split's images; gives (image file, text, label) of each."""
    (path,) = DATASETS[task].find(arrow_folder, "test")
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    out = []
    for row in table.to_pylist():
        name = f"film {len(out):02d}.jpeg"
        (folder / name).write_bytes(row["image"])
        out.append((name, row[DATASETS[task].text_column][0], row["label"]))
    return out


def masked(rows, states):
    """Take away what the states say: dicts with image and text, None where missing."""
    return [{"image": None if state == NO_IMAGE else image,
             "text": None if state == NO_TEXT else text}
            for (image, text, _), state in zip(rows, states, strict=True)]  # fmt: skip


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "image"])
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}
