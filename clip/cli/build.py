"""Build the model, the LightningModule and the data module from the settings and a checkpoint."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from clip.cli.schema import Config, make_config
from clip.datamodules import MissingModalityDataModule
from clip.datasets import DATASETS
from clip.engine import run_folder
from clip.engine.checkpoints import BEST, COMPARED_IF_STATED, check_compatible, find_checkpoint, read_checkpoint
from clip.engine.trainer import choose_micro_batch, world_size
from clip.modules.backbones import Backbone
from clip.modules.backbones.registry import BACKBONES
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from clip.modules.factory import MODELS, build_model
from clip.modules.objectives import Task, resolve_task
from clip.modules.prompted_model import PromptedModel
from clip.modules.prompts import named_settings
from clip.modules.released import check_backbone
from clip.transforms import TRANSFORMS
from clip.utils.errors import UserError

TRAINING_KEYS = (  # with the masks and data files, these must not change when a run is resumed
    "seed",
    "plots",
    "simulate_missing",
    "limit_train",
    "limit_val",
    "class_weights",
    "batch_size",
    "optim_type",
    "learning_rate",
    "weight_decay",
    "schedule_length",
    "lr_mult",
    "warmup_steps",
    "decay_power",
    "end_lr",
)
MODEL_KEYS = ("backbone", "prompt_type", "prompt_length", "prompt_depth", "unfreeze")


class LoadedCheckpoint(NamedTuple):
    """A checkpoint that a run starts from."""

    path: Path
    content: dict[str, Any]


class Built(NamedTuple):
    """A model with its backbone, task and configuration.

    Attributes:
        model: the model, with the checkpoint's tensors if there is one.
        backbone: its frozen backbone.
        task: its classification task.
        model_config: configuration stored in checkpoints; a checkpoint to be loaded must match it.
    """

    model: PromptedModel
    backbone: Backbone
    task: Task
    model_config: dict[str, Any]


def load_checkpoint(config: Config, *inherited: str) -> tuple[Config, LoadedCheckpoint | None]:
    """Read ``load_path`` if it is set and fill unset model settings from it, validated like user input.

    ``inherited`` names further settings to take from the checkpoint.
    """
    if not config.load_path:
        return config, None
    path = find_checkpoint(config.load_path, BEST)
    checkpoint = LoadedCheckpoint(path, read_checkpoint(path, config.seed))
    stored, values = checkpoint.content["model_config"], config.model_dump()
    for key in {"vit", "activation", *MODEL_KEYS, *inherited} & stored.keys() - config.overrides:
        values[key] = stored[key]
    for key, value in stored.items():
        owner, _, name = key.partition(".")
        if name and owner in (values["prompt_type"], values["backbone"]) and key not in config.overrides:
            values.setdefault(owner, {})[name] = value
    try:
        return make_config(values, config.overrides), checkpoint
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def build(
    config: Config, task: Task, label_metadata: dict[str, Any], checkpoint: LoadedCheckpoint | None = None
) -> Built:
    """Build the model and load the checkpoint, if any, into it; no data set is needed.

    Raises:
        UserError: the checkpoint's task, backbone or model settings differ from those of the config.
    """
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
    model_config |= {
        "unfreeze": list(model.unfreeze),
        "backbone_sha256": backbone.sha256,
        "activation": backbone.activation,
    }
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


def task_from_checkpoint(config: Config, checkpoint: LoadedCheckpoint) -> tuple[Task, dict[str, Any]]:
    """Return the task of a checkpoint and its label metadata."""
    return stated_task(config.task, checkpoint.content["model_config"])


def stated_task(name: str, model_config: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
    """Return the task of this name and the label metadata in ``model_config``."""
    label_metadata = {key: model_config[key] for key in COMPARED_IF_STATED if key in model_config}
    return resolve_task(name, label_metadata), label_metadata


def build_data(config: Config, task: Task, image_size: int, tokenize: Any) -> MissingModalityDataModule:
    """Return the data module of the task with the backbone's transform at its image size."""
    return MissingModalityDataModule.from_config(
        config,
        task=task,
        transform=TRANSFORMS[config.backbone](image_size),
        tokenize=tokenize,
        collate=MODELS[config.backbone].collate,
    )


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
    data = build_data(config, task, built.backbone.sizes.image_size, built.backbone.tokenizer)
    if config.compile:
        compiler = os.environ.get("CXX", "g++")  # on a GPU, torch brings Triton
        if device["accelerator"] == "cpu" and not shutil.which(compiler):
            raise UserError(f"compile=True needs the C++ compiler {compiler}; install it or set CXX")
        built.model.compile_towers()
    module = MissingAwarePromptModule(built.model, task, config, data.transform.normalize, built.model_config)
    return config, module, data


def training_config(config: Config, data: MissingModalityDataModule) -> dict[str, Any]:
    """Return what must be equal for a run to be resumed; the data module must be set up."""
    files = {f"arrow_files.{split}": fingerprint for split, fingerprint in data.fingerprints.items()}
    return {key: getattr(config, key) for key in TRAINING_KEYS} | {"missing_tables": dict(data.mask_hashes)} | files


def run_record(config: Config, module: MissingAwarePromptModule, data: MissingModalityDataModule) -> dict[str, Any]:
    """Return the record of a run (settings, model, trainable parameters, masks, data) and print the counts."""
    sizes = {name: parameter.numel() for name, parameter in module.model.named_parameters()}
    trainable = {name: sizes[name] for name in module.model.trainable_names()}
    count, total = sum(trainable.values()), sum(sizes.values())
    print(f"{count:,} of {total:,} parameters train ({100 * count / total:.2f} %)")
    return {
        "git_commit": run_folder.git_commit(),
        "config": config.model_dump(),
        "model_config": module.model_config,
        "trainable": trainable,
        "total_parameters": total,
        "missing_tables": data.mask_hashes,
        "arrow_files": data.fingerprints,
    }
