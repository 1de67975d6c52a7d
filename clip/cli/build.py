"""Settings and checkpoints to a model with its data: the one place that joins the parts."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from clip.cli.schema import RULES
from clip.datamodules import MissingModalityDataModule
from clip.datasets import DATASETS
from clip.engine import micro_batch, run_folder
from clip.engine import trainer as runs
from clip.engine.checkpoints import IF_BOTH_SAY, check_compatible, load_adapter
from clip.engine.loss_guard import LossGuard
from clip.modules.backbones import Backbone
from clip.modules.backbones.registry import BACKBONES
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from clip.modules.factory import MODELS, build_model, read_backbone_settings
from clip.modules.objectives import FROM_FILES, TASKS, Task, resolve_task
from clip.modules.optim import OptimSettings
from clip.modules.prompted_model import PromptedModel
from clip.modules.prompts import named_settings, read_settings
from clip.modules.released import check_backbone
from clip.transforms import TRANSFORMS
from clip.utils.errors import UserError

PROTOCOL_KEYS = (  # with the masks: what must not change when an interrupted run goes on
    "seed", "plots", "simulate_missing", "batch_size", "optim_type", "learning_rate",
    "weight_decay", "schedule_length", "lr_mult", "warmup_steps", "decay_power", "end_lr",
)  # fmt: skip
MODEL_KEYS = ("backbone", "prompt_type", "prompt_length", "prompt_depth", "unfreeze")


class Built(NamedTuple):
    """A model and what it was built from.

    Attributes:
        model: with the checkpoint's tensors, if there is one.
        frozen: its backbone.
        task: what it predicts.
        model_config: what its checkpoints must agree with.
        path: of the checkpoint.
        written: the model_config that stands in the checkpoint; empty without one.
    """

    model: PromptedModel
    frozen: Backbone
    task: Task
    model_config: dict[str, Any]
    path: Path | None
    written: dict[str, Any]


def from_config(
    config: dict[str, Any], given: set[str], device: dict[str, Any]
) -> tuple[MissingAwarePromptModule, MissingModalityDataModule]:
    """Build the model, load ``load_path`` into it if there is one, and make its data module.

    Args:
        config: checked settings, changed as ``build`` says.
        given: names of the settings that the user gave, nested ones as "dcp.formulas".
        device: of ``runs.devices``; it decides ``per_gpu_batchsize``, which is set here, if that
            is "auto".

    Raises:
        UserError: the checkpoint is of another task or backbone, or another model is asked for.
    """
    DATASETS[config["task"]].require_any(Path(config["data_root"]))
    built = build(config, given)
    if built.path:
        print(f"loaded {built.path}")
    config["per_gpu_batchsize"] = micro_batch_of(config, built, device)
    model, frozen = built.model, built.frozen
    data = data_from_config(config, frozen.sizes.image_size, frozen.tokenizer)
    if config["compile"]:
        check_compiler(device)
        model.compile_towers()
    optim, normalize = OptimSettings.from_config(config), data.transform.normalize
    guard = LossGuard(config["nonfinite_loss"])
    return MissingAwarePromptModule(model, built.task, optim, normalize, built.model_config, guard), data


def build(config: dict[str, Any], given: set[str], adopt: Iterable[str] = ()) -> Built:
    """Build the model and load ``load_path`` into it if there is one; no data is needed.

    Args:
        config: checked settings; those of the model that the user did not give are taken from the
            checkpoint, and set here.
        given: names of the settings that the user gave, nested ones as "dcp.formulas".
        adopt: further settings to take from the checkpoint.

    Raises:
        UserError: the checkpoint is of another task or backbone, or another model is asked for.
    """
    path = runs.find_checkpoint(config["load_path"], runs.BEST) if config["load_path"] else None
    checkpoint = runs.read_checkpoint(path, config["seed"]) if path else None
    if checkpoint:
        _adopt(config, checkpoint["model_config"], given, adopt, path)
    prompt_type = config["prompt_type"]
    settings = read_settings(prompt_type, config.get(prompt_type, {}))
    written = checkpoint["model_config"] if checkpoint else {}
    # Whoever adopts has no data at hand: the checkpoint says what it predicts.
    task, label_metadata = told_by(config["task"], written) if adopt else task_of(config)
    backbone, own = config["backbone"], backbone_settings(config)
    frozen = BACKBONES[backbone].load(config["vit"], config["activation"], own, config["task"])
    model = build_model(
        frozen.state,
        prompt_type,
        task.num_classes,
        config["prompt_length"],
        config["prompt_depth"],
        backbone=backbone,
        backbone_settings=asdict(frozen.settings),
        unfreeze=config["unfreeze"],
        activation=frozen.activation,
        seed=config["seed"],
        **asdict(settings),
    )
    model_config = {key: config[key] for key in ("task", "vit", *MODEL_KEYS)}
    model_config |= named_settings(prompt_type, settings) | named_settings(backbone, frozen.settings)
    model_config |= label_metadata
    model_config |= {"unfreeze": list(model.unfreeze), "backbone_sha256": frozen.sha256,
                 "activation": frozen.activation}  # fmt: skip
    if checkpoint:
        _load(model, frozen, model_config, checkpoint, path)
    return Built(model, frozen, task, model_config, path, written)


def backbone_settings(config: dict[str, Any]) -> Any:
    """Read the settings of the run's backbone."""
    return read_backbone_settings(config["backbone"], config.get(config["backbone"], {}))


def _load(
    model: PromptedModel,
    frozen: Backbone,
    model_config: dict[str, Any],
    checkpoint: dict[str, Any],
    path: Path,
) -> None:
    if "released" in checkpoint:  # released code keeps its backbone, ours keeps its SHA-256
        check_backbone(model, checkpoint["released"], path)
        checkpoint["model_config"]["backbone_sha256"] = frozen.sha256
    check_compatible(model_config, checkpoint["model_config"], path)
    load_adapter(model, checkpoint["state_dict"], path)


def micro_batch_of(config: dict[str, Any], built: Built, device: dict[str, Any]) -> int:
    """Resolve ``per_gpu_batchsize`` for a model that is still on the CPU."""
    if config["per_gpu_batchsize"] != micro_batch.AUTO:
        return config["per_gpu_batchsize"]
    world, on_gpu = runs.world(config, device), device["accelerator"] == "gpu"
    return micro_batch.choose(built.model, built.frozen.sizes, config["batch_size"], world, on_gpu)


def _adopt(
    config: dict[str, Any],
    model_config: dict[str, Any],
    given: set[str],
    more: Iterable[str],
    path: Path,
) -> None:
    """Take from a checkpoint what the user did not say about the model, as strictly as from him."""
    for key in sorted({"vit", "activation", *MODEL_KEYS, *more} & model_config.keys() - given):
        accepts, allowed = RULES[key]
        if not accepts(model_config[key]):
            raise UserError(f"{path} was made with {key}={model_config[key]!r:.60}; known: {allowed}")
        config[key] = model_config[key]
    for key, value in model_config.items():
        owner, dot, own = key.partition(".")
        if dot and owner in (config["prompt_type"], config["backbone"]) and key not in given:
            # A method that is unknown here has no settings; it is refused when they are read.
            config.setdefault(owner, {})[own] = value


def task_of(config: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
    """Give the task of a run, and what its arrow files say of their labels.

    Raises:
        UserError: the task is what the files say, and they are absent or do not say it.
    """
    name, root = config["task"], Path(config["data_root"])
    label_metadata = DATASETS[name].label_metadata(root)
    if not label_metadata and TASKS[name] is FROM_FILES:
        DATASETS[name].find(root, "train")  # says which file is absent
    return resolve_task(name, label_metadata), label_metadata


def told_by(name: str, model_config: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
    """Give a task by name, and what a checkpoint's model_config says of its labels."""
    label_metadata = {key: model_config[key] for key in IF_BOTH_SAY if key in model_config}
    return resolve_task(name, label_metadata), label_metadata


def data_from_config(config: dict[str, Any], image_size: int, tokenize: Any) -> MissingModalityDataModule:
    """Make the data module of the task, with the backbone's transform at its image size."""
    backbone, classes = config["backbone"], task_of(config)[0].num_classes
    transform, collate = TRANSFORMS[backbone](image_size), MODELS[backbone].collate
    return MissingModalityDataModule.from_config(config, classes, transform, tokenize, collate)


def check_compiler(device: dict[str, Any]) -> None:
    """Refuse to compile for a CPU where nothing can; a GPU's compiler comes with torch.

    Raises:
        UserError: no C++ compiler.
    """
    name = os.environ.get("CXX", "g++")
    if device["accelerator"] == "cpu" and not shutil.which(name):
        raise UserError(f"compile=True needs the C++ compiler {name}; install it or set CXX")


def training_config(config: dict[str, Any], data: MissingModalityDataModule) -> dict[str, Any]:
    """Give what makes a run the same experiment after an interruption.

    Args:
        config: checked settings.
        data: whose splits are open.
    """
    files = {f"arrow_files.{split}": text for split, text in data.fingerprints.items()}
    kept = {key: config[key] for key in PROTOCOL_KEYS}
    return kept | {"missing_tables": dict(data.table_hashes)} | files


def data_record(data: MissingModalityDataModule) -> dict[str, Any]:
    """Describe what a run reads: its masks and what its arrow files hold."""
    return {"missing_tables": data.table_hashes, "arrow_files": data.fingerprints}


def run_record(module: MissingAwarePromptModule, config: dict[str, Any]) -> dict[str, Any]:
    """Describe a run: its settings, its model, and what trains, with counts."""
    sizes = {name: p.numel() for name, p in module.model.named_parameters()}
    trainable = {name: sizes[name] for name in module.model.trainable_names()}
    count, total = sum(trainable.values()), sum(sizes.values())
    print(f"{count:,} of {total:,} parameters train ({100 * count / total:.2f} %)")
    return {"git_commit": run_folder.git_commit(), "config": config, "model_config": module.model_config,
            "trainable": trainable, "total_parameters": total}  # fmt: skip
