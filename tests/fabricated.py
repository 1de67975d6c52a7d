"""Runs of an experiment that nobody trained: random logits whose scores are known."""

import itertools
import json

import numpy as np
import pandas as pd
import torch

from clip.evaluation.predictions import CasePredictions
from clip.experiments.schema import Experiment, Read, Run
from clip.missing.masks import MissingConfig, draw_mask, mask_hash
from clip.modules.objectives import TASKS

SAMPLES = {"val": 80, "test": 120}
SKILLS = {"Baseline": 0.2, "MMP": 0.7, "DCP": 1.2}  # by how much a logit points the right way
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
    """The folder of one run, and its predictions by split."""
    folder.mkdir(parents=True)
    splits = {}
    for split, samples in split_sizes.items():
        splits[split] = predict(task, split, SKILLS[method], seed, samples)
        splits[split].save(folder / f"{split}.arrow")
    settings = {"task": task, "prompt_type": TYPES[method], "both_ratio": 0.5, "missing_seed": 0,
                "missing_type": {"train": "both"}, "missing_ratio": {"train": 0.7}}  # fmt: skip
    about = {"settings": settings, "seed": seed, "key": folder.name, "trainable": TRAINABLE,
             "model_config": splits["val"].model_config, "total_parameters": 150_000,
             "missing_tables": {"train": "cd" * 32}, "git_commit": "0123abc",
             "command": f"python run.py with task_finetune_{task} seed={seed}"}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(about | extra))
    result = {"headline": TASKS[task].headline, "best_val": 0.5, "seconds_train": 600,
              "seconds_per_step": 0.0625, "peak_memory_mb": None, "steps": 1234}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return splits


def experiment(rows=("test_type", "method"), columns=("test_ratio",), figure="curves", metric=None):
    runs = tuple(Run({"method": method}, {}) for method in SKILLS)
    return Experiment("figure5", "Curves & <b>cases</b>", "Figure 5", {}, runs,
                      Read(("test",), metric=metric), rows, columns, {}, figure)  # fmt: skip


def fabricate(folder, tasks=("mmimdb",), types=("both",), ratios=(0.0, 0.7), seeds=(0, 1),
              sizes=SAMPLES, splits=("test",), metric=None, **extra):  # fmt: skip
    """Cells and folders of every task, method and seed, at every test case."""
    rows, folders = [], {}
    for task, method, seed in itertools.product(tasks, SKILLS, seeds):
        key = f"{task}-{method}-{seed}"
        folders[key] = folder / "runs" / key
        made = write_run(folders[key], task, method, seed, sizes, extra)
        for split, kind, ratio in itertools.product(splits, types, ratios):
            found = made[split]
            table = draw_mask(task, split, found.observed, MissingConfig({split: kind}, {split: ratio}))
            score = TASKS[task].score(found.select(table), found.labels)
            floor = TASKS[task].constant_baseline(found.labels)[TASKS[task].headline]
            rows.append({"task": task, "method": method, "seed": seed, "split": split,
                         "test_type": kind, "test_ratio": ratio, **score, "constant_baseline": floor,
                         "missing_table": mask_hash(table), "run": key,
                         "score": score[metric or TASKS[task].headline],
                         "published": 50 - 10 * ratio if method != "MMP" else np.nan})  # fmt: skip
    return pd.DataFrame(rows), folders
