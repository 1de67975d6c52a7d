"""What the commands of run.py do, as plain functions of checked settings."""

import functools
import json
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from torch import Tensor

from clip.cli import build as assembly
from clip.cli.arguments import command_of
from clip.cli.schema import PRECISIONS, validate
from clip.datasets import DATASETS
from clip.demo.job import run_demo
from clip.demo.pretrain import train_clip
from clip.engine import run_folder
from clip.engine import trainer as runs
from clip.engine.checkpoints import check_compatible
from clip.engine.interruption import GracefulStop
from clip.engine.meter import Meter
from clip.engine.micro_batch import accumulation
from clip.evaluation import predictions as evaluation
from clip.evaluation import report
from clip.inspection.check import TextLength, summarize
from clip.inspection.check import report as data_report
from clip.inspection.contact_sheet import draw_sheet
from clip.missing.masks import SPLITS
from clip.modules.backbones.registry import WEIGHTS
from clip.modules.objectives import Task, resolve_task
from clip.utils.errors import UserError
from clip.utils.files import write_text

Config = dict[str, Any]
LEAST = 1 + 1e-9  # batches between validations; 49 * (1 / 49) is less than 1
Given = set[str]  # names of the settings that the user gave


def devices(config: Config) -> Config:
    """Choose the Trainer's accelerator, devices and precision."""
    return runs.devices(config["num_gpus"], PRECISIONS[str(config["precision"])])


def start(config: Config, kind: str, record: Config) -> list[Any]:
    """Make the run's folder with its run.json; a fast_dev_run leaves nothing behind."""
    if config["fast_dev_run"]:
        return []
    split = "train" if kind == "train" else "test"
    case = f"{config['missing_type'][split]}{config['missing_ratio'][split]:g}"
    name = f"{config['exp_name']}_{config['prompt_type']}_{kind}_{case}_seed{config['seed']}"
    loggers = run_folder.loggers(config["log_dir"], name)
    folder = Path(loggers[0].log_dir)
    runs.write_json(folder / "run.json", {"command": sys.argv} | record)
    print(f"run folder: {folder}")
    return loggers


def train(config: Config, given: Given) -> Config:
    """Fine-tune the prompts and the head; returns the run's folder and best validation score."""
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    path = config["resume_from"]
    resume = runs.find_checkpoint(path, runs.LAST) if path else None
    device = devices(config)
    world = runs.world(config, device)
    module, data = assembly.from_config(config, given, device)
    per_pass = config["per_gpu_batchsize"]
    accumulated = accumulation(config["batch_size"], per_pass, world)
    print(f"{config['batch_size']} samples a step: {accumulated} passes of {per_pass}")
    data.setup("fit")
    check_headline(module.task, data.datasets["val"].sample_labels())
    module.training_config = assembly.training_config(config, data)
    if resume:
        shape = {"per_gpu_batchsize": per_pass, "processes": world}
        runs.check_resume(resume, module.model_config, module.training_config, shape)
    record = assembly.run_record(module, config) | assembly.data_record(data)
    loggers = start(config, "train", record)
    folder = module.guard.folder = Path(loggers[0].log_dir) if loggers else None
    headline = f"val/{module.task.headline}"
    meter = Meter()
    callbacks = runs.checkpoint_callbacks(folder, headline, resume) if folder else []
    batches = len(data.datasets["train"]) / per_pass / world
    trainer = runs.make_trainer(
        loggers,
        device,
        [*callbacks, meter, GracefulStop(folder, per_pass)] if folder else [],
        num_nodes=config["num_nodes"],
        max_epochs=config["max_epoch"],
        max_steps=config["max_steps"] or -1,
        accumulate_grad_batches=accumulated,
        val_check_interval=validation_share(config["val_check_interval"], batches),
        fast_dev_run=config["fast_dev_run"],
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    if not folder:
        return {}
    result = {"folder": str(folder), "missing_tables": data.table_hashes}
    result |= kept(callbacks, headline) | meter.measured(trainer.global_step)
    runs.write_json(folder / "metrics.json", result)
    print(json.dumps(result, indent=2))
    print(f"evaluate it: python run.py with task_finetune_{config['task']} "
          f"data_root={config['data_root']} load_path={folder} test_only=True")  # fmt: skip
    return result


def check_headline(task: Task, label: Tensor) -> None:
    """Refuse validation labels that can choose no checkpoint, as one class alone for an AUROC.

    Raises:
        UserError: the headline has no value on them.
    """
    if math.isnan(task.constant_baseline(label)[task.headline]):
        raise UserError(
            f"the validation rows, all of one class, have no {task.headline} to choose a "
            "checkpoint by; give them rows of the other class too"
        )


def validation_share(wanted: float, batches: float) -> float:
    """Give the share of an epoch between validations: as wanted, but at least one batch."""
    return min(1.0, max(wanted, LEAST / max(1, batches)))


def kept(callbacks: list[Any], headline: str) -> Config:
    """Name a training's best and last checkpoint, and give the best's score if it has one."""
    best, last = callbacks
    score = None if best.best_model_score is None else float(best.best_model_score)
    return {"best": best.best_model_path, "last": last.best_model_path, headline: score}


def evaluate(config: Config, given: Given) -> Config:
    """Score load_path on the test split under one missing table."""
    device = devices(config)
    module, data = assembly.from_config(config, given, device)
    data.setup("test")
    record = assembly.run_record(module, config) | assembly.data_record(data)
    loggers = start(config, "test", record)
    trainer = runs.make_trainer(loggers, device, num_nodes=config["num_nodes"], fast_dev_run=config["fast_dev_run"])
    (metrics,) = trainer.test(module, datamodule=data, verbose=False)
    floor = module.task.constant_baseline(data.datasets["test"].sample_labels())
    print(f"{report.metrics_text(metrics)}\n{report.baseline_text(floor)}")
    if loggers:
        result = metrics | {"constant_baseline": floor, "missing_tables": data.table_hashes}
        runs.write_json(Path(loggers[0].log_dir) / "metrics.json", result)
    return metrics


def sweep(config: Config, given: Given) -> pd.DataFrame:
    """Score a grid of test types, rates and seeds; table, csv, figure and the predictions."""
    if config["predictions"]:
        path = Path(config["predictions"])
        predictions = evaluation.CasePredictions.load(path, config["task"], "test")
        config["prompt_type"] = predictions.model_config["prompt_type"]
        check_compatible(assembly.task_of(config)[1], predictions.model_config, config["predictions"])
        data = assembly.data_from_config(config, 1, tokenize=list)
        loggers = start(config | {"fast_dev_run": False}, "sweep",
                        {"config": config, "model_config": predictions.model_config})  # fmt: skip
    else:
        predictions, data, loggers = _predict_test(config, given)
    task = resolve_task(config["task"], predictions.model_config)
    folder = Path(loggers[0].log_dir)
    predictions.save(folder / "predictions.arrow")
    draw = functools.partial(data.draw, "test", predictions.observed)
    seeds = config["sweep_seeds"] or [config["missing_seed"]]
    grid = (config["sweep_types"], config["sweep_ratios"], seeds)
    results = evaluation.sweep(predictions, task, draw, *grid)
    write_text(folder / "sweep.csv", results.to_csv(index=False))
    report.draw_sweep(results, task.headline, folder / "sweep.png", config["exp_name"])
    print(report.as_text(results, task.headline))
    print(f"written: {folder}/sweep.csv, sweep.png, predictions.arrow")
    return results


def _predict_test(config: Config, given: Given) -> tuple[evaluation.CasePredictions, Any, list[Any]]:
    """Run the test split through load_path in all three states."""
    if not config["load_path"]:
        raise UserError("sweep needs load_path=, a checkpoint or the folder of a run")
    device = one_device(config, "sweep")
    module, data = assembly.from_config(config, given, device)
    record = assembly.run_record(module, config)
    loggers = start(config | {"fast_dev_run": False}, "sweep", record)
    return predict_split(module, data, "test", device), data, loggers


def predict_split(module: Any, data: Any, split: str, device: Config) -> evaluation.CasePredictions:
    """Run one split through a model in all three states.

    Args:
        module: of ``assembly.from_config``.
        data: of ``assembly.from_config``.
        split: "train", "val" or "test".
        device: of ``one_device``.
    """
    loader = data.loader(data.dataset(split))
    where = "cuda" if device["accelerator"] == "gpu" else "cpu"
    how = (module.normalize, where, runs.DTYPES[device["precision"]], split, module.model_config)
    return evaluation.predict_cases(module.model, loader, *how)


def one_device(config: Config, command: str) -> Config:
    """Choose the device of a command that does not share its work.

    Raises:
        UserError: it was started in several processes, or on several GPUs.
    """
    device = devices(config)
    if runs.world(config, device) > 1:
        raise UserError(f"{command} runs in one process: give num_gpus=1 num_nodes=1")
    return device


def check(config: Config, given: Given) -> Path:
    """Print a summary of the splits and draw a few samples of each; returns the picture's path."""
    task, label_metadata = assembly.task_of(config)
    data = assembly.data_from_config(config, 1, tokenize=list)
    names = label_metadata.get("class_names", [])
    if len(names) > task.num_classes:
        raise UserError(
            f"data_root={config['data_root']} names {len(names)} classes, but task={config['task']} has "
            f"{task.num_classes}; give the task or the folder of this data set"
        )
    names = [*names, *(f"class {number}" for number in range(len(names), task.num_classes))]
    dataset = DATASETS[config["task"]]
    dataset.require_any(data.data_root)
    available = dataset.available_splits(data.data_root)
    datasets = {split: data.dataset(split) for split in SPLITS if split in available}
    length = text_length(config)
    print(f"{config['task']}: {label_metadata.get('task_type', 'labels')}, {task.num_classes} classes")
    for split in (split for split in SPLITS if split not in available):
        print(f"{split}: skipped, data_root={config['data_root']} has no arrow file of it")
    summaries = {split: summarize(part, task.num_classes, length) for split, part in datasets.items()}
    print(data_report(summaries, names, length))
    path = draw_sheet(datasets, names, Path(config["log_dir"]) / f"{config['task']}_samples.png")
    print(f"\nwritten: {path}")
    return path


def text_length(config: Config) -> TextLength:
    """Choose how the length of a text is measured: in tokens if there is a tokenizer, else in words."""
    backbone, settings = WEIGHTS[config["backbone"]], assembly.backbone_settings(config)
    try:
        tokenizer = backbone.tokenizer(config["vit"], settings, config["task"])
    except UserError as error:
        unit = f"words, since there is no tokenizer ({error})"
        limit = backbone.positions(settings, config["task"])
        return TextLength(unit, lambda texts: [len(text.split()) for text in texts], limit)
    return TextLength("tokens", tokenizer.lengths, tokenizer.context)


def pretrain(config: Config, given: Given) -> Path:
    """Train a small CLIP on the pairs of the training split; ``vit=`` takes its folder."""
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    settings = dict(config["pretrain"])
    trainer = runs.make_trainer([], one_device(config, "pretrain"), max_epochs=settings.pop("epochs"))
    data = assembly.data_from_config(config, settings["image_size"], tokenize=list)
    val = data.dataset("val") if "val" in DATASETS[config["task"]].available_splits(data.data_root) else None
    folder = train_clip(data.dataset("train"), val, trainer, **settings)
    print(f"a CLIP for vit={folder}")
    return folder


def demo(config: Config, given: Given) -> pd.DataFrame:
    """Run the complete pipeline on generated data."""
    commands = {"train": train, "sweep": sweep, "pretrain": pretrain}

    def call(command: str, **updates: Any) -> Any:
        print("\n$", command_of(updates, *[command] * (command != "train")), flush=True)
        return commands[command](validate(config | updates), set(updates))

    return run_demo(call, Path(config["log_dir"]))
