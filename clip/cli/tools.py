"""Commands besides training: check a data set, pretrain a small CLIP, run the demo."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl

from clip.cli import commands
from clip.cli.build import build_data, choose_single_device, task_from_data
from clip.cli.schema import Config, make_config
from clip.datasets import DATASETS
from clip.demo.job import run_demo
from clip.demo.pretrain import train_clip
from clip.engine.trainer import make_trainer
from clip.inspection.check import TextLength, format_summaries, summarize
from clip.inspection.contact_sheet import draw_sheet
from clip.missing import SPLITS
from clip.missing.masks import describe_masks
from clip.modules.backbones.registry import BACKBONES
from clip.utils.command_line import format_command
from clip.utils.errors import UserError


def check(config: Config) -> Path:
    """Print a summary of the splits, draw a few samples of each into a PNG file and return its path."""
    task, label_metadata = task_from_data(config)
    data = build_data(config, task, 1, tokenize=list)
    names = task.class_names(label_metadata)
    if len(names) > task.num_classes:
        raise UserError(
            f"data_root={config.data_root} names {len(names)} classes, but task={config.task} has "
            f"{task.num_classes}; set the task and data_root of the same data set"
        )
    available = DATASETS[config.task].available_splits(data.data_root)
    print(f"{config.task}: {label_metadata.get('task_type', 'labels')}, {task.num_classes} classes")
    for split in SPLITS:
        if split not in available:
            print(f"{split}: skipped, data_root={config.data_root} has no arrow file for it")
    datasets = {split: data.dataset(split) for split in SPLITS if split in available}
    length = text_length(config)
    summaries = {split: summarize(dataset, task.num_classes, length) for split, dataset in datasets.items()}
    print(format_summaries(summaries, names, length))
    masks = {split: (dataset.observed, data.mask(split, dataset)) for split, dataset in datasets.items()}
    print(f"\nMissing cases of the rows:\n{describe_masks(masks, data.missing)}")
    name = f"{data.data_root.resolve().name}_{config.task}_samples.png"
    path = draw_sheet(datasets, names, Path(config.log_dir) / name)
    print(f"\nwritten: {path}")
    return path


def text_length(config: Config) -> TextLength:
    """Return how to measure text length: in tokens if there is a tokenizer, else in words."""
    backbone, settings = BACKBONES[config.backbone], config.backbone_settings
    try:
        tokenizer = backbone.tokenizer(config.vit, settings, config.task)
    except UserError as error:
        unit = f"words, since no tokenizer is available ({error})"
        limit = backbone.positions(settings, config.task)
        return TextLength(unit, lambda texts: [len(text.split()) for text in texts], limit)
    return TextLength("tokens", tokenizer.lengths, tokenizer.context)


def pretrain(config: Config) -> Path:
    """Train a small CLIP on the pairs of the training split and return its folder, to be used as ``vit=``."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    settings = config.pretrain
    trainer = make_trainer([], choose_single_device(config, "pretrain"), max_epochs=settings.epochs)
    data = build_data(config, task_from_data(config)[0], settings.image_size, tokenize=list)
    val = data.dataset("val") if "val" in DATASETS[config.task].available_splits(data.data_root) else None
    folder = train_clip(data.dataset("train"), val, trainer, settings)
    print(f"written: {folder}; use it with vit={folder}")
    return folder


def demo(config: Config) -> pd.DataFrame:
    """Run the whole pipeline on a generated data set."""
    functions = {"train": commands.train, "sweep": commands.sweep, "pretrain": pretrain}

    def call(command: str, **settings: Any) -> Any:
        print("\n$", format_command(settings, *[command] * (command != "train")), flush=True)
        return functions[command](make_config(settings, set(settings)))

    return run_demo(call, Path(config.log_dir))
