"""Plan the runs of an experiment from its spec and the user's settings: their settings, keys and folders."""

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from clip.cli import build, schema
from clip.cli.schema import Config
from clip.config import GROUPS
from clip.datasets import DATASETS
from clip.datasets.arrow_dataset import fingerprint
from clip.experiments.spec import Coordinate, Experiment, Run
from clip.missing import SPLITS
from clip.missing.masks import mask_hash
from clip.modules.backbones.registry import BACKBONES
from clip.modules.backbones.tensor_files import sha256_of
from clip.modules.factory import MODELS
from clip.modules.prompts import PROMPT_TYPES
from clip.utils.command_line import flatten, format_command
from clip.utils.errors import UserError
from clip.utils.settings import user_error

# A run of an experiment trains from scratch and is evaluated in every missing case.
NOT_ALLOWED = {"load_path", "resume_from", "test_only", "fast_dev_run", "test_type", "test_ratio"}
MASK_SETTINGS = {"missing_type", "missing_ratio", "both_ratio", "missing_draw", "missing_seed", "missing_table"}
# Settings that do not decide a run's numbers. Masks, weights and data enter the key by their content.
PATHS_AND_DEVICES = {"exp_name", "log_dir", "data_root", "vit", "plugins", "logger"}
PATHS_AND_DEVICES |= {"num_workers", "num_gpus", "num_nodes"}
NOT_IN_KEY = {"per_gpu_batchsize", *PATHS_AND_DEVICES, *MASK_SETTINGS, *NOT_ALLOWED, *GROUPS}

cached_sha256, cached_fingerprint = functools.cache(sha256_of), functools.cache(fingerprint)


@dataclass(frozen=True)
class PlannedRun:
    """A run with its seed and all its settings."""

    at: dict[str, Coordinate]
    label: str  # experiment, coordinates and seed
    config: Config
    key: str  # hash of everything that decides the run's numbers
    hashed: dict[str, Any]  # what ``key`` is a hash of
    folder: Path

    @property
    def command(self) -> str:
        """The command that trains the same model."""
        defaults = flatten(schema.Config().model_dump())
        settings = flatten(self.config.model_dump(exclude=set(GROUPS)))
        return format_command({key: value for key, value in settings.items() if value != defaults.get(key)})

    @property
    def finished(self) -> bool:
        """Whether the run is finished: its result is written last."""
        return (self.folder / "result.json").is_file()


def key_of(config: Config) -> tuple[str, dict[str, Any]]:
    """Return the key of a run and what it is a hash of: settings, masks, weights and data."""
    unused = (PROMPT_TYPES.keys() | MODELS.keys()) - {config.prompt_type, config.backbone}
    # With simulate_missing, the seed decides more than the masks.
    ignored = NOT_IN_KEY - ({"missing_seed"} if config.simulate_missing else set())
    data_root = Path(config.data_root)
    hashed = {
        "settings": config.model_dump(exclude=ignored | unused),
        "missing_tables": {split: mask_hash(mask) for split, mask in masks_of(config).items()},
        "backbone": cached_sha256(BACKBONES[config.backbone].find(config.vit)),
        "data": {split: cached_fingerprint(*DATASETS[config.task].find(data_root, split)) for split in SPLITS},
    }
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16], hashed


def masks_of(config: Config) -> dict[str, np.ndarray]:
    """Return the mask of every split of a run, (rows,) each."""
    return _masks(config.model_dump_json(include=MASK_SETTINGS | {"task", "data_root", "plots"}))


@functools.cache
def _masks(settings: str) -> dict[str, np.ndarray]:
    config = Config.model_validate_json(settings)
    data = build.build_data(config, build.task_from_data(config)[0], 1, tokenize=list)
    return {split: data.mask(split, data.dataset(split)) for split in SPLITS}


def user_settings(config: Config) -> dict[str, Any]:
    """Return the user's settings that apply to all runs of an experiment; check that a run of one can have them."""
    if "seed" in config.overrides:
        raise UserError(f"seed={config.seed} is for a single run; set reproduce.seeds=[{config.seed}]")
    if wrong := sorted(NOT_ALLOWED & config.overrides):
        raise UserError(f"{wrong[0]}={getattr(config, wrong[0])!r} cannot be set for an experiment; leave it out")
    values = config.model_dump(exclude={"exp_name", *GROUPS})
    values |= flatten(values)
    return {key: values[key] for key in sorted(config.overrides) if key in values}


def resolve(experiment: Experiment, run: Run | None, overrides: dict[str, Any], seed: int = 0) -> Config:
    """Merge the settings of the experiment, the user and the run's coordinates; later ones override earlier ones."""
    values: dict[str, Any] = {}
    for settings in (experiment.base, overrides, run.settings if run else {}, {"seed": seed}):
        for key, value in settings.items():
            outer, _, inner = key.partition(".")
            new, old = {inner: value} if inner else value, values.get(outer, {})
            if isinstance(new, dict):  # settings of a group that are not named keep their values
                new = (old if isinstance(old, dict) else dict.fromkeys(SPLITS, old)) | new
            values[outer] = new
    try:
        return schema.Config(**values)
    except ValidationError as error:
        raise user_error(error, f"{experiment.name} at {run or 'base'}: ") from None


def plan(
    experiment: Experiment, overrides: dict[str, Any], seeds: Sequence[int], only: Sequence[str]
) -> list[PlannedRun]:
    """Plan all runs with every seed; words "coordinate=value" in ``only`` are alternatives for that coordinate."""
    planned, restricted = [], {word.partition("=")[0] for word in only}
    for run, seed in itertools.product(experiment.runs, seeds):
        if any(name in restricted and f"{name}={value}" not in only for name, value in run.at.items()):
            continue
        config, label = resolve(experiment, run, overrides, seed), f"{experiment.name}: {run}, seed {seed}"
        task, _ = build.task_from_data(config)
        if (metric := experiment.read.metric_of(task)) not in task.metrics(task.num_classes):
            raise UserError(f"{label}: read.metric={metric} is not a metric of task={config.task}; correct it")
        key, hashed = key_of(config)
        planned.append(PlannedRun(run.at, label, config, key, hashed, Path(config.log_dir) / "runs" / key))
    return planned


def check_only(experiments: Sequence[Experiment], only: Sequence[str]) -> None:
    """Check that every word "coordinate=value" of a restriction is in some experiment."""
    runs = [run for experiment in experiments for run in experiment.runs]
    known = dict.fromkeys(f"{name}={value}" for run in runs for name, value in run.at.items())
    if wrong := [word for word in only if word not in known]:
        raise UserError(f"only={wrong[0]!r} is not in any run; choose from {', '.join(known)}")


def print_conflicts(experiment: Experiment, overrides: dict[str, Any]) -> None:
    """Print which of the user's settings have no effect, and which override the base of the file."""
    by_coordinate = {key for run in experiment.runs for key in run.settings}
    if unused := [f"{k}={v}" for k, v in overrides.items() if {k, k.partition(".")[0]} & by_coordinate]:
        print(f"{experiment.name}: no effect where a coordinate sets it: {', '.join(unused)}")
    base = flatten(resolve(experiment, None, {}).model_dump())
    ours = {key.partition(".")[0] for key in experiment.base}
    given = flatten(overrides).items()
    changed = [f"{k}={base[k]}" for k, v in given if k.partition(".")[0] in ours and base.get(k, v) != v]
    if changed:
        published = ", to which the published values belong" if experiment.published else ""
        print(f"{experiment.name}: the command line or its preset overrides {', '.join(changed)}{published}")
