"""Train, evaluate and compare: `python run.py with task_finetune_mmimdb data_root=...`."""

import functools
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # sacred 0.8.7 needs it
warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 against torch 2.13
warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # num_workers says so
warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # run.json lies there
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)

import pandas as pd  # noqa: E402
import pytorch_lightning as pl  # noqa: E402
from pytorch_lightning.utilities import rank_zero_only  # noqa: E402

from clip import assembly, evaluation, report, runs  # noqa: E402
from clip.config import ex  # noqa: E402
from clip.config_rules import PRECISIONS, validate  # noqa: E402
from clip.demo import whole_job  # noqa: E402
from clip.errors import UserError  # noqa: E402
from clip.modules.objectives import TASKS  # noqa: E402
from clip.pretrain import PretrainSettings, train_clip  # noqa: E402

Config = dict[str, Any]
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
    loggers = runs.loggers(config["log_dir"], name)
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
    world = device["devices"] * config["num_nodes"]
    accumulated = assembly.accumulation(config, world)
    module, data = assembly.from_config(config, given)
    data.setup("fit")
    record = assembly.run_record(module, config) | {"missing_tables": data.table_hashes}
    loggers = start(config, "train", record)
    folder = Path(loggers[0].log_dir) if loggers else None
    headline = f"val/{module.task.headline}"
    callbacks = runs.checkpoint_callbacks(folder, headline, resume) if folder else []
    batches = len(data.datasets["train"]) / config["per_gpu_batchsize"] / world
    trainer = runs.make_trainer(
        loggers,
        device,
        callbacks,
        num_nodes=config["num_nodes"],
        max_epochs=config["max_epoch"],
        max_steps=config["max_steps"] or -1,
        accumulate_grad_batches=accumulated,
        # A share of less than one batch is one batch.
        val_check_interval=min(1.0, max(config["val_check_interval"], 1 / max(1, batches))),
        fast_dev_run=config["fast_dev_run"],
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    if not folder:
        return {}
    best, last = callbacks
    score = None if best.best_model_score is None else float(best.best_model_score)
    result = {"folder": str(folder), "best": best.best_model_path, "last": last.best_model_path,
              headline: score, "missing_tables": data.table_hashes}  # fmt: skip
    runs.write_json(folder / "metrics.json", result)
    print(json.dumps(result, indent=2))
    print(f"evaluate it: python run.py with task_finetune_{config['task']} "
          f"data_root={config['data_root']} load_path={folder} test_only=True")  # fmt: skip
    return result


def evaluate(config: Config, given: Given) -> Config:
    """Score load_path on the test split under one missing table."""
    device = devices(config)
    module, data = assembly.from_config(config, given)
    data.setup("test")
    record = assembly.run_record(module, config) | {"missing_tables": data.table_hashes}
    loggers = start(config, "test", record)
    trainer = runs.make_trainer(
        loggers, device, num_nodes=config["num_nodes"], fast_dev_run=config["fast_dev_run"]
    )
    (metrics,) = trainer.test(module, datamodule=data, verbose=False)
    floor = module.task.floor(data.datasets["test"].sample_labels())
    print(f"{report.metrics_text(metrics)}\n{report.floor_text(floor)}")
    if loggers:
        result = metrics | {"input_ignored": floor, "missing_tables": data.table_hashes}
        runs.write_json(Path(loggers[0].log_dir) / "metrics.json", result)
    return metrics


def run_sweep(config: Config, given: Given) -> pd.DataFrame:
    """Score a grid of test types, rates and seeds; table, csv, figure and the predictions."""
    if config["predictions"]:
        predictions = evaluation.StatePredictions.load(Path(config["predictions"]), config["task"])
        data, record = assembly.data_from_config(config, 1, tokenize=list), {"config": config}
    else:
        predictions, data, record = predict(config, given)
    loggers = start(config | {"fast_dev_run": False}, "sweep", record)
    folder, task = Path(loggers[0].log_dir), TASKS[config["task"]]
    predictions.save(folder / "predictions.arrow")
    draw = functools.partial(data.draw, "test", predictions.num_rows)
    seeds = config["sweep_seeds"] or [config["missing_seed"]]
    grid = (config["sweep_types"], config["sweep_ratios"], seeds)
    results = evaluation.sweep(predictions, task, draw, *grid)
    results.to_csv(folder / "sweep.csv", index=False)
    report.draw_sweep(results, task.headline, folder / "sweep.png", config["exp_name"])
    print(report.as_text(results, task.headline))
    print(f"written: {folder}/sweep.csv, sweep.png, predictions.arrow")
    return results


def predict(config: Config, given: Given) -> tuple[evaluation.StatePredictions, Any, Config]:
    """Run the test split through load_path in all three states."""
    if not config["load_path"]:
        raise UserError("sweep needs load_path=, a checkpoint or the folder of a run")
    device = devices(config)
    if device["devices"] > 1:
        raise UserError(f"sweep runs in one process on one device, not on {device['devices']}")
    module, data = assembly.from_config(config, given)
    record = assembly.run_record(module, config)
    loader = data.loader(data.dataset("test"))
    where = "cuda" if device["accelerator"] == "gpu" else "cpu"
    model = module.model
    found = evaluation.predict_states(model, loader, module.prepare, where, config["task"])
    return found, data, record


def run_pretrain(config: Config, given: Given) -> Path:
    """Train a small CLIP on the pairs of the training split; its folder is a vit=."""
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    settings = PretrainSettings(**config["pretrain"])
    data = assembly.data_from_config(config, settings.image_size, tokenize=list)
    trainer = functools.partial(runs.make_trainer, [], devices(config))
    folder = train_clip(settings, data.dataset, trainer)
    print(f"a CLIP for vit={folder}")
    return folder


def run_demo(config: Config, given: Given) -> pd.DataFrame:
    """Do the whole job on a generated data set."""
    commands = {"train": train, "sweep": run_sweep, "pretrain": run_pretrain}

    def call(command: str, **updates: Any) -> Any:
        return commands[command](validate(config | updates), set(updates))

    return whole_job(call, Path(config["log_dir"]))


def guarded(function: Callable[[Config, Given], Any], config: Config, run: Any) -> None:
    """Call a command with checked settings; a mistake of the user ends it in one line."""
    if rank_zero_only.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the first process speaks for all
    try:
        function(validate(config), set(run.meta_info["config_updates"]))
    except UserError as error:
        # A loader process puts its traceback in front of the message; the last line is ours.
        raise SystemExit(f"error: {str(error).strip().splitlines()[-1]}") from None


@ex.main
def main(_config: Config, _run: Any) -> None:
    """Fine-tune on a task, or score load_path on its test split with test_only=True."""
    guarded(evaluate if _config["test_only"] else train, _config, _run)


@ex.command
def sweep(_config: Config, _run: Any) -> None:
    """Score load_path on a grid of test types and rates; writes sweep.csv and sweep.png."""
    guarded(run_sweep, _config, _run)


@ex.command
def pretrain(_config: Config, _run: Any) -> None:
    """Train a small CLIP on the training pairs, for machines without a network."""
    guarded(run_pretrain, _config, _run)


@ex.command
def demo(_config: Config, _run: Any) -> None:
    """Do the whole job in minutes on generated films: no network, no downloads, no GPU."""
    guarded(run_demo, _config, _run)


if __name__ == "__main__":
    ex.run_commandline()
