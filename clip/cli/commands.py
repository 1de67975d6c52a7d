"""The commands of run.py that train and evaluate, as functions of the configuration."""

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from clip.cli.build import (
    build_all,
    build_data,
    finished_result,
    resume_settings,
    run_record,
    stated_task,
    task_from_data,
    training_config,
)
from clip.cli.schema import Config
from clip.datamodules import MissingModalityDataModule
from clip.engine.callbacks import GracefulStop, Timer
from clip.engine.checkpoints import (
    LAST,
    check_compatible,
    check_resume,
    checkpoint_callbacks,
    find_checkpoint,
)
from clip.engine.run_folder import make_loggers, write_json
from clip.engine.trainer import DTYPES, accumulation, choose_device, make_trainer, world_size
from clip.evaluation import figures, predictions, report
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from clip.modules.objectives import resolve_task
from clip.utils.command_line import format_command
from clip.utils.errors import UserError
from clip.utils.files import write_text


def train(config: Config) -> dict[str, Any]:
    """Fine-tune the prompts and the classifier; return the run's folder and its best validation score."""
    if config.resume_from:
        config = resume_settings(config)
        if finished := finished_result(config):
            return finished
    pl.seed_everything(config.seed, workers=True, verbose=False)
    device = choose_device(config.num_gpus, config.num_nodes, config.precision)
    processes = world_size(device)
    config, module, data = build_all(config, device)
    accumulated = accumulation(config.batch_size, config.per_gpu_batchsize, processes)
    print(f"{config.batch_size} samples per step: {accumulated} passes of {config.per_gpu_batchsize}")
    data.setup("fit")
    module.training_config = training_config(config, data)
    baseline = module.task.constant_baseline(data.datasets["val"].sample_labels())
    if math.isnan(baseline[module.task.headline]):
        raise UserError(
            f"the validation rows, all of one class, have no {module.task.headline} to select a "
            "checkpoint by; add rows of the other class"
        )

    resume = find_checkpoint(config.resume_from, LAST) if config.resume_from else None
    if resume:
        shape = {"per_gpu_batchsize": config.per_gpu_batchsize, "processes": processes}
        check_resume(resume, module.model_config, module.training_config, shape)

    record, loggers, callbacks = run_record(config, module, data), [], []
    if not config.fast_dev_run:
        loggers = start_run(config, "train", record)
        folder = Path(loggers[0].log_dir)
        best, last = checkpoint_callbacks(folder, f"val/{module.task.headline}", resume)
        timer = Timer()
        callbacks = [best, last, timer, GracefulStop(folder, config.per_gpu_batchsize, config.max_steps)]
    batches = len(data.datasets["train"]) / (config.per_gpu_batchsize * processes)
    trainer = make_trainer(
        loggers,
        device,
        callbacks,
        max_epochs=config.max_epoch,
        accumulate_grad_batches=accumulated,
        val_check_interval=validation_share(config.val_check_interval, batches),
        fast_dev_run=config.fast_dev_run,
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    if config.fast_dev_run:
        return {}

    score = None if best.best_model_score is None else float(best.best_model_score)
    result = {
        "folder": str(folder),
        "missing_tables": data.mask_hashes,
        "best": best.best_model_path,
        "last": last.best_model_path,
        f"val/{module.task.headline}": score,
        "constant_baseline": baseline,
    } | timer.summary(trainer.global_step)
    write_json(folder / "metrics.json", result)
    print(training_summary(config, result, module.task.headline))
    return result


def training_summary(config: Config, result: dict[str, Any], headline: str) -> str:
    """Return the closing lines of a training run: score, time, memory and the command that evaluates it."""
    evaluate = {"data_root": config.data_root, "load_path": result["folder"], "test_only": True}
    command = format_command(evaluate).replace(" with ", f" with task_finetune_{config.task} ", 1)
    score, baseline = result[f"val/{headline}"], result["constant_baseline"][headline]
    best = "no validation" if score is None else f"{100 * score:.2f} (best constant prediction {100 * baseline:.2f})"
    return (
        f"best val/{headline}: {best}\n"
        f"{result['steps']} steps in {result['seconds_train'] / 60:.1f} minutes of training, "
        f"{result['peak_memory_mb']:,.0f} MiB peak memory\n"
        f"run folder: {result['folder']}\n"
        f"evaluate it: {command}"
    )


def validation_share(interval: float, batches: float) -> float:
    """Return the share of an epoch between validations: the setting, but at least one batch."""
    return min(1.0, max(interval, (1 + 1e-9) / max(1, batches)))  # 49 * (1 / 49) is less than 1


def start_run(config: Config, kind: str, record: dict[str, Any]) -> list[Logger]:
    """Create the run's folder with its run.json and return its loggers."""
    split = "train" if kind == "train" else "test"
    case = f"{config.missing_type[split]}{config.missing_ratio[split]:g}"
    name = f"{config.exp_name}_{config.prompt_type}_{kind}_{case}_seed{config.seed}"
    loggers = make_loggers(config.log_dir, name)
    folder = Path(loggers[0].log_dir)
    write_json(folder / "run.json", {"command": sys.argv} | record)
    print(f"run folder: {folder}")
    return loggers


def evaluate(config: Config) -> dict[str, float]:
    """Score ``load_path`` on the test split under one mask."""
    device = choose_device(config.num_gpus, config.num_nodes, config.precision)
    config, module, data = build_all(config, device)
    data.setup("test")
    record = run_record(config, module, data)
    loggers = [] if config.fast_dev_run else start_run(config, "test", record)
    trainer = make_trainer(loggers, device, fast_dev_run=config.fast_dev_run)
    (metrics,) = trainer.test(module, datamodule=data, verbose=False)
    baseline = module.task.constant_baseline(data.datasets["test"].sample_labels())
    print(f"{report.metrics_text(metrics)}\n{report.baseline_text(baseline)}")
    if loggers:
        result = metrics | {"constant_baseline": baseline, "missing_tables": data.mask_hashes}
        write_json(Path(loggers[0].log_dir) / "metrics.json", result)
    return metrics


def sweep(config: Config) -> pd.DataFrame:
    """Score a grid of test types, rates and seeds; write a table, a figure and the predictions."""
    if config.sweep.predictions:
        stored = predictions.CasePredictions.load(Path(config.sweep.predictions), config.task, "test")
        config = config.replace(prompt_type=stored.model_config["prompt_type"])
        check_compatible(task_from_data(config)[1], stored.model_config, config.sweep.predictions)
        data = build_data(config, stated_task(config.task, stored.model_config)[0], 1, tokenize=list)
        record = {"config": config.model_dump(), "model_config": stored.model_config}
    else:
        if not config.load_path:
            raise UserError("sweep needs load_path=, a checkpoint or the folder of a run")
        device = choose_single_device(config, "sweep")
        config, module, data = build_all(config, device)
        record = run_record(config, module, data)
        stored = predict_split(module, data, "test", device)
    folder = Path(start_run(config, "sweep", record)[0].log_dir)
    stored.save(folder / "predictions.arrow")
    task = resolve_task(config.task, stored.model_config)
    seeds = config.sweep.seeds or [config.missing_seed]
    cases = itertools.product(config.sweep.types, map(float, config.sweep.ratios), seeds)
    masks = {case: data.draw("test", stored.observed, *case) for case in cases}
    results = predictions.score_grid(stored, task, masks)
    write_text(folder / "sweep.csv", results.to_csv(index=False))
    figures.draw_sweep(results, task.headline, folder / "sweep.png", config.exp_name)
    print(report.sweep_text(results, task.headline))
    print(f"written: {folder}/sweep.csv, sweep.png, predictions.arrow")
    return results


def predict_split(
    module: MissingAwarePromptModule, data: MissingModalityDataModule, split: str, device: dict[str, Any]
) -> predictions.CasePredictions:
    """Run a model over one split in all three missing cases."""
    where = "cuda" if device["accelerator"] == "gpu" else "cpu"
    dtype = DTYPES[device["precision"]]
    loader = data.loader(data.dataset(split))
    return predictions.predict_cases(module.model, loader, module.normalize, where, dtype, split, module.model_config)


def choose_single_device(config: Config, command: str) -> dict[str, Any]:
    """Return the device of a command that runs in one process.

    Raises:
        UserError: it was started in several processes, or on several GPUs.
    """
    device = choose_device(config.num_gpus, config.num_nodes, config.precision)
    if world_size(device) > 1:
        raise UserError(f"{command} runs in one process; give num_gpus=1 num_nodes=1 and start it without torchrun")
    return device
