"""Runs of an experiment that were never trained: random logits whose scores are known."""

import itertools
import json

import numpy as np
import pandas as pd
import torch

from clip.evaluation.predictions import CasePredictions
from clip.experiments.spec import Experiment
from clip.missing.masks import MissingConfig, draw_mask, mask_hash
from clip.modules.objectives import TASKS

SAMPLES = {"val": 80, "test": 120}
SKILLS = {"Baseline": 0.2, "MMP": 0.7, "DCP": 1.2}  # how far a logit points to the label
TYPES = {"Baseline": "none", "MMP": "mmp", "DCP": "dcp"}
TRAINABLE = {"prompts.initial": 1000, "prompts.generators.0.weight": 200, "classifier.bias": 23}


def predict(task, split, skill, seed, samples):
    """Predictions that are better where nothing is missing."""
    classes = TASKS[task].num_classes
    generator = torch.Generator().manual_seed(7)  # the same samples for every method
    labels = torch.randint(0, classes, (samples,), generator=generator)
    truth = torch.nn.functional.one_hot(labels, classes).float()
    if task == "mmimdb":
        share = torch.linspace(0.5, 0.05, classes)
        labels = truth = (torch.rand(samples, classes, generator=generator) < share).float()
    torch.manual_seed(seed)
    noise = torch.randn(3, samples, classes)
    strength = skill * torch.tensor([2.0, 1.2, 1.5])[:, None, None]
    logits = noise + strength * (2 * truth - 1) - (0.6 if task == "mmimdb" else 0)
    model_config = {"task": task, "vit": "ViT-B/16", "backbone_sha256": "ab" * 32}
    return CasePredictions(logits, labels, np.arange(samples), samples, split, model_config)


def write_run(folder, task, method, seed, split_sizes, extra):
    """Write the folder of one run, and return its predictions by split."""
    folder.mkdir(parents=True)
    splits = {split: predict(task, split, SKILLS[method], seed, size) for split, size in split_sizes.items()}
    for split, predictions in splits.items():
        predictions.save(folder / f"{split}.arrow")
    config = {
        "task": task,
        "prompt_type": TYPES[method],
        "missing_type": {"train": "both"},
        "missing_ratio": {"train": 0.7},
    }
    record = {
        "config": config,
        "seed": seed,
        "trainable": TRAINABLE,
        "model_config": splits["val"].model_config,
        "total_parameters": 150_000,
        "missing_tables": {"train": "cd" * 32},
        "git_commit": "0123abc",
        "command": f"python run.py with task_finetune_{task} seed={seed}",
    }
    result = {"seconds_train": 600, "seconds_per_step": 0.0625, "peak_memory_mb": None, "steps": 1234}
    (folder / "run.json").write_text(json.dumps(record | extra))
    (folder / "result.json").write_text(json.dumps(result))
    return splits


def experiment(rows=("test_type", "method"), columns=("test_ratio",), figure="curves", metric=None):
    """An experiment that compares the methods of ``SKILLS``."""
    coordinates = [axis for axis in (*rows, *columns) if axis not in ("split", "test_type", "test_ratio")]
    cases = {"types": ["both"], "ratios": [0.0, 0.7]} if "test_ratio" in (*rows, *columns) else None
    return Experiment(
        name="figure5",
        title="Curves & <b>cases</b>",
        source="Figure 5",
        base={},
        runs=[{"at": dict.fromkeys(coordinates, method), "settings": {}} for method in SKILLS],
        read={"splits": ["val", "test"] if "split" in columns else ["test"], "cases": cases, "metric": metric},
        rows=list(rows),
        columns=list(columns),
        published=[],
        figure=figure,
    )


def fabricate(
    folder,
    tasks=("mmimdb",),
    types=("both",),
    ratios=(0.0, 0.7),
    seeds=(0, 1),
    sizes=SAMPLES,
    splits=("test",),
    metric=None,
    **extra,
):
    """Scores and folders of every task, method and seed at every test case, and the masks by their hash."""
    rows, folders, masks = [], {}, {}
    for task, method, seed in itertools.product(tasks, SKILLS, seeds):
        key = f"{task}-{method}-{seed}"
        folders[key] = folder / "runs" / key
        made = write_run(folders[key], task, method, seed, sizes, extra)
        for split, kind, ratio in itertools.product(splits, types, ratios):
            found, headline = made[split], metric or TASKS[task].headline
            mask = draw_mask(task, split, found.observed, MissingConfig({split: kind}, {split: ratio}))
            masks[mask_hash(mask)] = mask
            scores = TASKS[task].score(found.select(mask), found.labels)
            case = {"task": task, "method": method, "seed": seed, "split": split, "test_type": kind}
            last = {
                "constant_baseline": TASKS[task].constant_baseline(found.labels)[headline],
                "missing_table": mask_hash(mask),
                "score": scores[headline],
                "run": key,
                "published": 50 - 10 * ratio if method != "MMP" else np.nan,
            }
            rows.append(case | {"test_ratio": ratio} | scores | last)
    return pd.DataFrame(rows), folders, masks
