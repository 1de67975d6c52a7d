"""The commands of run.py that train and evaluate, as functions of the configuration."""

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.utilities import rank_zero_only

from clip.cli import build
from clip.cli.schema import Config
from clip.datamodules import MissingModalityDataModule
from clip.engine.callbacks import GracefulStop, LearningRates, Timer
from clip.engine.checkpoints import (
    BEST,
    CHECKPOINT_NAME,
    CHECKPOINTS,
    LAST,
    BestCheckpoint,
    Checkpoint,
    check_compatible,
    check_resume,
    find_checkpoint,
    selection_mode,
)
from clip.engine.run_folder import check_loggers, log_result, make_loggers, make_version_dir, write_json
from clip.engine.trainer import DTYPES, accumulation, choose_device, make_trainer, world_size
from clip.evaluation import figures, predictions, report
from clip.evaluation.classes import class_scores, confusion
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from clip.modules.objectives import resolve_task
from clip.utils.command_line import flatten, format_command
from clip.utils.errors import UserError
from clip.utils.files import display_path, write_text


def train(config: Config) -> dict[str, Any]:
    """Fine-tune the prompts and the classifier; return the run's folder and the scores of its best checkpoint."""
    if config.resume_from:
        config = build.resume_settings(config)
        if finished := build.finished_result(config):
            return finished
    check_loggers(config.logger)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    config = config.replace(select_by=selection_metric(config))
    device = choose_device(config.num_gpus, config.num_nodes, config.precision)
    processes = world_size(device)
    config, module, data = build.build_all(config, device)
    accumulated = accumulation(config.batch_size, config.per_gpu_batchsize, processes)
    print(f"{config.batch_size} samples per step: {accumulated} passes of {config.per_gpu_batchsize}")
    data.setup("fit")
    module.training_config = {"missing_tables": dict(data.mask_hashes), **flatten({"arrow_files": data.fingerprints})}
    baseline = module.task.constant_baseline(data.datasets["val"].sample_labels())
    if math.isnan(baseline.get(config.select_by, 0)):
        raise UserError(
            f"the validation rows, all of one class, have no {config.select_by} to select a "
            "checkpoint by; add rows of the other class"
        )

    resume = Path(config.resume_from) if config.resume_from else None
    if resume:
        shape = {"per_gpu_batchsize": config.per_gpu_batchsize, "processes": processes}
        check_resume(resume, module.model_config, module.training_config, shape)

    record, loggers, callbacks = build.run_record(config, device, module, data), [], []
    if not config.fast_dev_run:
        folder = start_run(config, "train", record)
        loggers = make_loggers(folder, config)
        checkpoints = folder / CHECKPOINTS
        best = BestCheckpoint(checkpoints, config.select_by, module.task.headline, baseline, resume)
        last = Checkpoint(checkpoints, resume, filename=f"{CHECKPOINT_NAME}-{LAST}", save_on_train_epoch_end=True)
        early = EarlyStopping(
            f"val/{config.select_by}",
            mode=selection_mode(config.select_by),
            patience=config.early_stopping or math.inf,
            check_finite=False,
            check_on_train_epoch_end=False,
        )
        timer = Timer()
        stop = GracefulStop(folder, config.per_gpu_batchsize, config.max_steps)
        callbacks = [best, last, early, timer, LearningRates(), stop]
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

    if trainer.is_global_zero and best.best_model_path and not Path(best.best_model_path).exists():
        raise UserError(f"{best.best_model_path} no longer exists; train again")

    scores = dict.fromkeys([module.task.headline, "epoch", "step"]) | best.scores
    result = {
        "folder": str(folder),
        "missing_tables": data.mask_hashes,
        "best": best.best_model_path,
        "last": last.best_model_path,
        "best_epoch": scores.pop("epoch"),
        "best_step": scores.pop("step"),
        **{f"val/{name}": score for name, score in scores.items()},
        "constant_baseline": baseline,
        "stopped_early": early.wait_count >= early.patience,
    } | timer.summary(trainer.global_step)
    write_json(folder / "metrics.json", result)
    log_result(loggers, config, result)
    print(training_summary(config, result, module.task.headline, module.warmup_steps))
    return result


def selection_metric(config: Config) -> str:
    """Return the validation metric that selects the best checkpoint; raise UserError if the task does not log it."""
    task, _ = build.task_from_data(config)
    metric, choices = config.select_by or task.headline, [*task.metrics(task.num_classes), "loss"]
    if metric not in choices:
        raise UserError(f"select_by={metric} is not a validation metric here; choose one of {', '.join(choices)}")
    return metric


def training_summary(config: Config, result: dict[str, Any], headline: str, warmup_steps: int) -> str:
    """Format the results of a training run as a table, followed by warnings."""
    evaluate = {"data_root": display_path(config.data_root), "load_path": display_path(result["folder"])}
    evaluate |= {"plugins": config.plugins} if config.plugins else {}
    evaluate["test_only"] = True
    test_case = {"test_type": config.missing_type["test"], "test_ratio": config.missing_ratio["test"]}
    command = format_command(evaluate | test_case).replace(" with ", f" with task_finetune_{config.task} ", 1)
    baseline, rows, warnings = result["constant_baseline"], {}, []
    for name in dict.fromkeys((config.select_by, headline)):
        score = result.get(f"val/{name}")
        constant = f" (constant {report.format_score(name, baseline[name])})" if name in baseline else ""
        text = "no validation" if score is None else report.format_score(name, score) + constant
        rows[f"{'best val' if name == config.select_by else 'val'} {name.replace('_', '-')}"] = text
    minutes = {name: f"{result[f'seconds_{name}'] / 60:.1f} minutes" for name in ("train", "validation")}
    rows |= {
        "best checkpoint": f"epoch {result['best_epoch']}, step {result['best_step']}",
        "training": f"{minutes['train']}, {result['steps']} steps",
        "validation": minutes["validation"],
        "peak memory": f"{result['peak_memory_mb']:,.0f} MiB",
        "run folder": display_path(result["folder"]),
        "evaluate": command,
    }
    if result["stopped_early"]:
        rows["stopped early"] = f"{config.early_stopping} validations without a better {config.select_by}"
    judged = config.select_by if config.select_by in baseline else headline
    score = result.get(f"val/{judged}")
    if score is not None and score <= baseline[judged]:
        warnings.append("warning: the best checkpoint is not better on the validation split than a constant answer")
    if result["best_step"] is not None and result["best_step"] <= warmup_steps:
        warnings.append(f"warning: the best checkpoint lies in the warm-up of {warmup_steps} steps")
    width = max(map(len, rows))
    return "\n".join([*(f"{name:{width}}  {text}" for name, text in rows.items()), *warnings])


def validation_share(interval: float, batches: float) -> float:
    """Return the share of an epoch between validations: the setting, but at least one batch."""
    return min(1.0, max(interval, (1 + 1e-9) / max(1, batches)))  # 49 * (1 / 49) is less than 1


def start_run(config: Config, kind: str, record: dict[str, Any]) -> Path:
    """Create the folder of a run with its run.json and return it; that of a trained model is in its run's folder."""
    split = "train" if kind == "train" else "test"
    case = f"{config.missing_type[split]}{config.missing_ratio[split]:g}"
    parent = Path(config.log_dir) if kind == "train" else build.output_folder(config)
    if parent == Path(config.log_dir):
        parent /= f"{config.exp_name}_{config.prompt_type}_{kind}_{case}_seed{config.seed}"
    else:  # its name has the method and seed of the model
        parent /= f"{kind}_{case}_seed{config.missing_seed}"
    # Only rank 0 writes; the other ranks get the folder by broadcast.
    folder = parent / "version_0" if rank_zero_only.rank else make_version_dir(parent)
    write_json(folder / "run.json", {"command": sys.argv} | record)
    print(f"run folder: {display_path(folder)}")
    return folder


def evaluate(config: Config) -> dict[str, float]:
    """Score ``load_path`` on the test split under one mask."""
    check_loggers(config.logger)
    device = choose_device(config.num_gpus, config.num_nodes, config.precision)
    config, module, data = build.build_all(config, device)
    data.setup("test")
    record, loggers = build.run_record(config, device, module, data), []
    if not config.fast_dev_run:
        record["checkpoint"] = str(find_checkpoint(config.load_path, BEST).resolve())
        folder = start_run(config, "test", record)
        loggers = make_loggers(folder, config)
    trainer = make_trainer(loggers, device, fast_dev_run=config.fast_dev_run)
    (metrics,) = trainer.test(module, datamodule=data, verbose=False)
    baseline = module.task.constant_baseline(data.datasets["test"].sample_labels())
    constant = ", ".join(f"{name} {report.format_score(name, score)}" for name, score in baseline.items())
    print(f"{report.metrics_text(metrics)}\nbest constant prediction: {constant}")
    if loggers:
        result = metrics | {"constant_baseline": baseline, "missing_tables": data.mask_hashes}
        write_json(folder / "metrics.json", result)
        log_result(loggers, config, result)
        write_classes(folder, module)
    return metrics


@rank_zero_only
def write_classes(folder: Path, module: MissingAwarePromptModule) -> None:
    """Write classes.csv, the scores of each class of the test split, and confusion.csv for one class per sample."""
    names, tables = module.task.class_names(module.model_config), {"classes.csv": class_scores}
    if not module.task.multilabel:
        tables["confusion.csv"] = confusion
    for name, table in tables.items():
        write_text(folder / name, table(module.task, *module.tested, names).to_csv(index=False))
    print(f"written: {display_path(folder)}/{', '.join(tables)}")


def sweep(config: Config) -> pd.DataFrame:
    """Score a grid of test types, rates and seeds; write a table, a figure and the predictions.

    Of several runs in ``load_path``, each is scored like this, then all are written in one table and figure.
    """
    if isinstance(config.load_path, list):
        if config.sweep.predictions:
            raise UserError(f"sweep.predictions={config.sweep.predictions} are those of one run; leave load_path= out")
        runs = [config.replace(load_path=path) for path in config.load_path]
        for run in runs:  # before the first is predicted
            build.load_checkpoint(run)
        results = pd.concat(map(sweep, runs))
        folder = make_version_dir(Path(config.log_dir) / f"{config.exp_name}_sweep_of_{len(runs)}")
        write_json(folder / "run.json", {"command": sys.argv, "config": config.model_dump()})
        return write_sweep(config, results, build.task_from_data(config)[0].headline, folder)
    if config.sweep.predictions:
        stored = predictions.CasePredictions.load(Path(config.sweep.predictions), config.task, "test")
        config = config.replace(prompt_type=stored.model_config["prompt_type"])
        check_compatible(build.task_from_data(config)[1], stored.model_config, config.sweep.predictions)
        data = build.build_data(config, resolve_task(config.task, stored.model_config), 1, tokenize=list)
        record = {"config": config.model_dump(), "model_config": stored.model_config}
    else:
        if not config.load_path:
            raise UserError("sweep needs load_path=, a checkpoint or the folder of a run")
        device = build.choose_single_device(config, "sweep")
        config, module, data = build.build_all(config, device)
        record = build.run_record(config, device, module, data)
        stored = predict_split(module, data, "test", device)
    folder = start_run(config, "sweep", record)
    stored.save(folder / "predictions.arrow")
    task = resolve_task(config.task, stored.model_config)
    seeds = config.sweep.seeds or [config.missing_seed]
    cases = itertools.product(config.sweep.types, map(float, config.sweep.ratios), seeds)
    masks = {case: data.draw("test", stored.observed, *case) for case in cases}
    results = predictions.score_grid(stored, task, masks)
    results.insert(0, "run", config.sweep.predictions or config.load_path)
    results.insert(1, "method", config.prompt_type)
    return write_sweep(config, results, task.headline, folder)


def write_sweep(config: Config, results: pd.DataFrame, metric: str, folder: Path) -> pd.DataFrame:
    """Write sweep.csv, robustness.csv, sweep.png and sweep.pdf, print one metric, and return the results."""
    write_text(folder / "sweep.csv", results.to_csv(index=False))
    robustness = report.robustness(results, metric)
    write_text(folder / "robustness.csv", robustness.to_csv(index=False))
    dataset = Path(config.data_root).resolve().name if config.task == "manifest" else report.title_of(config.task)
    figures.draw_sweep(results, metric, dataset, folder)
    columns = ["method", "missing_type", *robustness.columns[3:]]
    print(report.sweep_text(results, metric))
    print("share of the score at 0 % that is left, and mean over the rates (effective):")
    print(f"{robustness[columns].round(3).to_string(index=False)}\nwritten: {folder}")
    return results


def predict_split(
    module: MissingAwarePromptModule, data: MissingModalityDataModule, split: str, device: dict[str, Any]
) -> predictions.CasePredictions:
    """Run a model over one split in all three missing cases."""
    where = "cuda" if device["accelerator"] == "gpu" else "cpu"
    loader, dtype = data.loader(data.dataset(split)), DTYPES[device["precision"]]
    return predictions.predict_cases(module, loader, where, dtype, split)
