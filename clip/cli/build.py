"""Build the model, the LightningModule and the data module from the settings and a checkpoint."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from clip.cli.schema import Config, make_config
from clip.config import GROUPS, DeviceSettings
from clip.datamodules import MissingModalityDataModule
from clip.datasets import DATASETS
from clip.engine import run_folder
from clip.engine.checkpoints import (
    BEST,
    CHECKPOINTS,
    LABEL_METADATA,
    LAST,
    check_compatible,
    find_checkpoint,
    read_checkpoint,
)
from clip.engine.trainer import DTYPES, choose_device, choose_micro_batch, world_size
from clip.modules.backbones import Backbone
from clip.modules.backbones.registry import BACKBONES
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from clip.modules.factory import MODELS, build_model
from clip.modules.objectives import Task, resolve_task
from clip.modules.prompted_model import PromptedModel
from clip.modules.prompts import named_settings
from clip.modules.released import check_backbone
from clip.transforms import TRANSFORMS
from clip.utils.command_line import flatten
from clip.utils.errors import UserError

PATH_KEYS = ("data_root", "vit")
# These may change when a run is resumed; data, masks and weights are compared by their hashes.
MAY_CHANGE = {*PATH_KEYS, *DeviceSettings.model_fields, "missing_table", "log_dir", "logger", "num_workers", "compile"}
MAY_CHANGE |= {"per_gpu_batchsize", "max_epoch", "max_steps"}
SET_BY_PRESETS = {"exp_name", "val_check_interval"}  # a resumed run keeps its own
MODEL_KEYS = ("backbone", "prompt_type", "prompt_length", "prompt_depth", "unfreeze")


class LoadedCheckpoint(NamedTuple):
    """A checkpoint that a run starts from."""

    path: Path
    content: dict[str, Any]


class Built(NamedTuple):
    """A model with its backbone, task and configuration."""

    model: PromptedModel  # with the checkpoint's tensors if there is one
    backbone: Backbone  # frozen
    task: Task
    model_config: dict[str, Any]  # stored in checkpoints; a checkpoint to be loaded must match it


def load_checkpoint(config: Config, *inherited: str) -> tuple[Config, LoadedCheckpoint | None]:
    """Read ``load_path`` if it is set and fill unset model settings from it, validated like user input.

    ``inherited`` names further settings to take from the checkpoint.
    """
    if not config.load_path:
        return config, None
    if isinstance(config.load_path, list):
        raise UserError(f"load_path={config.load_path} are several runs, which only sweep compares; give one")
    path = find_checkpoint(config.load_path, BEST)
    checkpoint = LoadedCheckpoint(path, read_checkpoint(path, config.seed))
    stored, values = checkpoint.content["model_config"], config.model_dump()
    for key in {"activation", *MODEL_KEYS, *inherited} & stored.keys() - config.overrides:
        values[key] = stored[key]
    check_plugins(path, stored.get("plugins", []), config)
    for key, value in stored.items():
        owner, _, name = key.partition(".")
        if name and owner in (values["prompt_type"], values["backbone"]) and key not in config.overrides:
            values.setdefault(owner, {})[name] = value
    if "vit" not in config.overrides:  # None: the published weights of the checkpoint's backbone
        values["vit"] = stored_path("vit", stored["vit"], checkpoint) if "vit" in stored else None
    try:
        return make_config(values, config.overrides), checkpoint
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def output_folder(config: Config) -> Path:
    """Return the folder for the results of a command: that of the run in ``load_path``, or ``log_dir`` if set."""
    if config.load_path and "log_dir" not in config.overrides:
        path = find_checkpoint(config.load_path, BEST)
        if path.parent.name == CHECKPOINTS:
            return path.parents[1]
    return Path(config.log_dir)


def check_plugins(path: Path, names: list[str], config: Config) -> None:
    """Check that the user names the plugins of a checkpoint: a file must not decide which code is imported."""
    if absent := set(names) - set(config.plugins):
        raise UserError(f"{path} was trained with plugins={','.join(sorted(absent))}; name them in plugins= as well")


def resume_settings(config: Config) -> Config:
    """Return the settings of the run that ``resume_from`` continues.

    Settings in ``MAY_CHANGE`` are taken from ``config`` where the user set them; all others must be those of the run.
    """
    path = find_checkpoint(config.resume_from, LAST).resolve()
    content = read_checkpoint(path)
    if not {"optimizer_states", "training_config", "run"} <= content.keys():
        raise UserError(f"{path} has no optimiser state and settings; give the run's epoch-*-{LAST}.pt")
    check_plugins(path, content["run"]["settings"].get("plugins", []), config)
    try:
        values = make_config(content["run"]["settings"]).model_dump()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for key in PATH_KEYS:
        if key not in config.overrides:
            values[key] = stored_path(key, values[key], LoadedCheckpoint(path, content))
    if path.parent.name == CHECKPOINTS:
        values["log_dir"] = str(path.parents[3])  # beside the interrupted run, wherever that has been moved
    stored = flatten(values)
    for key, value in _overridden(config).items():
        owner, _, name = key.partition(".")
        if owner in MAY_CHANGE:
            (values[owner] if name else values)[name or key] = value
        elif value != stored.get(key) and owner not in {"resume_from", *SET_BY_PRESETS, *GROUPS}:
            raise UserError(
                f"{path} has {key}={stored.get(key)}, but this run has {key}={value}; leave {key} out to resume"
            )
    return make_config(values | {"load_path": "", "resume_from": str(path)}, config.overrides)


def _overridden(config: Config) -> dict[str, Any]:
    """Return the flat settings that the user or a preset set, alone or with all others of their group."""
    whole = config.overrides - {key.partition(".")[0] for key in config.overrides if "." in key}
    flat = flatten(config.model_dump())
    return {key: flat[key] for key in flat if key in config.overrides or key.partition(".")[0] in whole}


def finished_result(config: Config) -> dict[str, Any] | None:
    """Return the metrics.json of the run that ``resume_from`` continues, or None if steps are left to be made."""
    path = Path(config.resume_from)
    record, content = path.parents[1] / "metrics.json", read_checkpoint(path)
    epochs, steps = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"], content["global_step"]
    if path.parent.name != CHECKPOINTS or not record.is_file():  # without it, the end of the run is made again
        return None
    result = json.loads(record.read_text(encoding="utf-8"))
    if epochs < config.max_epoch and steps < (config.max_steps or math.inf) and not result.get("stopped_early"):
        return None
    advice = f"to train it further, raise max_epoch={config.max_epoch} or max_steps={config.max_steps}"
    reason = "it stopped early" if result.get("stopped_early") else advice
    print(f"{path.parents[1]} has finished with {steps} steps in {epochs} epochs; {reason}")
    return result


def stored_path(key: str, path: str, checkpoint: LoadedCheckpoint) -> str:
    """Return the path of a checkpoint's weights or data as it was given, or absolute if only that exists."""
    absolute = checkpoint.content.get("run", {}).get("paths", {}).get(key)
    if absolute is None or Path(path).exists():
        return path
    if Path(absolute).exists():
        return absolute
    raise UserError(
        f"{checkpoint.path} was trained with {key}={path} ({absolute}), which no longer exists; give {key}="
    )


def build(
    config: Config, task: Task, label_metadata: dict[str, Any], checkpoint: LoadedCheckpoint | None = None
) -> Built:
    """Build the model and load the checkpoint, which must fit the config, into it; no data set is needed."""
    backbone = BACKBONES[config.backbone].load(config.vit, config.activation, config.backbone_settings, config.task)
    model = build_model(
        backbone.state,
        config.prompt_type,
        task.num_classes,
        config.prompt_length,
        config.prompt_depth,
        backbone=config.backbone,
        backbone_settings=backbone.settings.model_dump(),
        unfreeze=None if config.unfreeze is None else tuple(config.unfreeze),
        activation=backbone.activation,
        seed=config.seed,
        **config.method_settings.model_dump(),
    )
    model_config = {key: getattr(config, key) for key in ("task", "vit", *MODEL_KEYS)} | label_metadata
    model_config |= named_settings(config.prompt_type, config.method_settings)
    model_config |= named_settings(config.backbone, backbone.settings)
    model_config |= {"plugins": config.plugins} if config.plugins else {}
    model_config |= {"unfreeze": list(model.unfreeze), "activation": backbone.activation}
    model_config |= {"backbone_sha256": backbone.sha256}
    if checkpoint:
        path, content = checkpoint
        if "released" in content:  # released code stores its backbone, this project its SHA-256
            check_backbone(model, content["released"], path)
            content["model_config"]["backbone_sha256"] = backbone.sha256
        check_compatible(model_config, content["model_config"], path)
        model.load_adapter(content["state_dict"], path)
    return Built(model, backbone, task, model_config)


def task_from_data(config: Config) -> tuple[Task, dict[str, Any]]:
    """Return the task of a run and the label metadata of its arrow files."""
    label_metadata = DATASETS[config.task].label_metadata(Path(config.data_root))
    return resolve_task(config.task, label_metadata), label_metadata


def stated_task(name: str, model_config: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
    """Return the task of this name and the label metadata in ``model_config``."""
    label_metadata = {key: model_config[key] for key in LABEL_METADATA if key in model_config}
    return resolve_task(name, label_metadata), label_metadata


def choose_single_device(config: Config, command: str) -> dict[str, Any]:
    """Return the device of a command; raise UserError if it was started in several processes or on several GPUs."""
    device = choose_device(config.num_gpus, 1, config.precision)
    if world_size(device) * config.num_nodes > 1:
        raise UserError(f"{command} runs in one process; give num_gpus=1 num_nodes=1 and start it without torchrun")
    return device


def build_data(config: Config, task: Task, image_size: int, tokenize: Any) -> MissingModalityDataModule:
    """Return the data module of the task with the backbone's transform at its image size."""
    transform, collate = TRANSFORMS[config.backbone](image_size), MODELS[config.backbone].collate
    return MissingModalityDataModule(config, task, transform, tokenize, collate)


def build_all(
    config: Config, device: dict[str, Any]
) -> tuple[Config, MissingAwarePromptModule, MissingModalityDataModule]:
    """Return the resolved settings (checkpoint, micro-batch size), the module and the data module."""
    task, label_metadata = task_from_data(config)  # first, so that missing data fails before the weights are read
    config, checkpoint = load_checkpoint(config)
    built = build(config, task, label_metadata, checkpoint)
    if checkpoint:
        print(f"loaded {checkpoint.path}")
    if config.per_gpu_batchsize == "auto":
        on_gpu = device["accelerator"] == "gpu"
        size = choose_micro_batch(built.model, built.backbone.sizes, config.batch_size, world_size(device), on_gpu)
        config = config.replace(per_gpu_batchsize=size)
    built.model.cast_frozen(DTYPES[device["precision"]])
    data = build_data(config, task, built.backbone.sizes.image_size, built.backbone.tokenizer)
    if config.compile:
        compiler = os.environ.get("CXX", "g++")  # on a GPU, torch brings Triton
        if device["accelerator"] == "cpu" and not shutil.which(compiler):
            raise UserError(f"compile=True needs the C++ compiler {compiler}; install it or set CXX")
        built.model.compile_towers()
    module = MissingAwarePromptModule(built.model, task, config, data.transform.normalize, built.model_config)
    paths = {key: Path(getattr(config, key)) for key in PATH_KEYS}
    paths = {key: str(path.resolve()) for key, path in paths.items() if path.exists()}  # vit can also be a name
    module.run = {"settings": config.model_dump(), "paths": paths}
    return config, module, data


def run_record(
    config: Config, device: dict[str, Any], module: MissingAwarePromptModule, data: MissingModalityDataModule
) -> dict[str, Any]:
    """Return the record of a run (settings, device, model, trainable parameters, masks, data) and print the counts."""
    sizes = {name: parameter.numel() for name, parameter in module.model.named_parameters()}
    trainable = {name: sizes[name] for name in module.model.trainable_names()}
    count, total = sum(trainable.values()), sum(sizes.values())
    print(f"{count:,} of {total:,} parameters train ({100 * count / total:.2f} %)")
    return {
        "git_commit": run_folder.git_commit(),
        "config": config.model_dump(),
        "device": device,
        "model_config": module.model_config,
        "trainable": trainable,
        "total_parameters": total,
        "missing_tables": data.mask_hashes,
        "arrow_files": data.fingerprints,
        "subsets": data.subsets,
    }
