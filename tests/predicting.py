"""A checkpoint for the tiny CLIP, and the tiny test split as files of a user."""

import pandas as pd
import pyarrow as pa
import torch

import run
from clip.cli.build import build, stated_task
from clip.cli.schema import make_config
from clip.datasets import DATASETS
from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from tests import tiny

CASES = [COMPLETE, MISSING_TEXT, MISSING_IMAGE] * 4  # of the 12 test films


def call(*words):
    """The same command line in this process."""
    run.command_line(["run.py", *map(str, words)])


def write_run(clip_folder, folder, task="mmimdb"):
    """A run's folder with a checkpoint; the head is far from zero, so that classes differ."""
    settings = {"task": task, "vit": str(clip_folder), "prompt_length": tiny.LENGTH, "prompt_depth": tiny.DEPTH}
    built = build(make_config(settings, set(settings)), *stated_task(task, {}))
    with torch.no_grad():
        built.model.classifier.weight *= 20
    state = {"model_config": built.model_config, "state_dict": built.model.adapter_state_dict()}
    torch.save(state, folder / "epoch-00-step-000001-best.pt")
    return folder


def films(arrow_folder, folder, task="mmimdb"):
    """Write the test split's images; return (image file, text, label) of each row."""
    (path,) = DATASETS[task].find(arrow_folder, "test")
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    out = []
    for row in table.to_pylist():
        name = f"film {len(out):02d}.jpeg"
        (folder / name).write_bytes(row["image"])
        out.append((name, row[DATASETS[task].text_column][0], row["label"]))
    return out


def masked(rows):
    """Images and texts with ``CASES`` applied, None where missing."""
    images = [None if case == MISSING_IMAGE else image for (image, *_), case in zip(rows, CASES, strict=True)]
    texts = [None if case == MISSING_TEXT else text for (_, text, _), case in zip(rows, CASES, strict=True)]
    return images, texts


def write_tables(folder, rows):
    """The masked rows as films.csv, films.jsonl and films.parquet."""
    images, texts = masked(rows)
    table = pd.DataFrame({"text": texts, "image": images})
    table.to_csv(folder / "films.csv", index=False)
    table.to_json(folder / "films.jsonl", orient="records", lines=True)
    table.to_parquet(folder / "films.parquet")
