"""What a run is known by: its key, a hash over everything that decides its numbers.

Settings come in by exclusion, so that a new one counts until somebody says that it does not.
"""

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clip.cli import build as assembly
from clip.cli.arguments import flat
from clip.datasets import DATASETS
from clip.datasets.arrow_dataset import fingerprint
from clip.missing import SPLITS
from clip.missing.masks import mask_hash
from clip.modules.backbones.registry import BACKBONES
from clip.modules.backbones.tensor_files import sha256_of
from clip.modules.factory import MODELS
from clip.modules.prompts import PROMPT_TYPES

PACKAGE = Path(__file__).resolve().parents[1]
KEY_LENGTH = 16
# Where and how fast a run is done, and what other commands read. Masks, weights and data are in
# the key by their content, whatever they are called here.
NO_NUMBERS = {
    "exp_name", "log_dir", "data_root", "num_workers", "per_gpu_batchsize", "num_gpus",
    "num_nodes", "vit", "load_path", "resume_from", "test_only", "fast_dev_run", "test_type",
    "test_ratio", "missing_type", "missing_ratio", "both_ratio", "missing_draw", "missing_seed",
    "missing_table", "sweep_types", "sweep_ratios", "sweep_seeds",
    "predictions", "image", "text", "input", "output", "host", "port", "experiment", "seeds",
    "only", "launcher", "jobs", "slurm", "pretrain", "export",
}  # fmt: skip
MASKS = ("task", "data_root", "plots", "missing_type", "missing_ratio", "both_ratio",
         "missing_draw", "missing_seed", "missing_table")  # fmt: skip
# Make no numbers, but experiments/once.py.
SHOWN = ("evaluation/report.py", "evaluation/costs.py", "demo/", "experiments/",
         "inference/", "inspection/")  # fmt: skip
BUT = "experiments/once.py"
Tables = dict[str, np.ndarray]  # split -> mask


def key_of(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name a run by a hash of what decides its numbers, and give what was hashed.

    Args:
        config: checked settings.

    Raises:
        UserError: there is no such backbone or data.
    """
    used = {config["prompt_type"], config["backbone"]}  # only their own settings are read
    others = (PROMPT_TYPES.keys() | MODELS.keys()) - used
    settings = {key: value for key, value in config.items() if key not in NO_NUMBERS | others}
    if config["simulate_missing"]:
        settings["missing_seed"] = config["missing_seed"]  # draws anew in each epoch
    facts = {
        "settings": settings,
        "missing_tables": {split: mask_hash(mask) for split, mask in tables(config).items()},
        "backbone": _weights(config["backbone"], config["vit"]),
        "data": _data(config["task"], config["data_root"]),
        "code": code_version(),
    }
    text = json.dumps({name: _even(value) for name, value in flat(facts).items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH], facts


def _even(value: Any) -> Any:
    """Write 1 and 1.0 in one way, wherever they stand."""
    if isinstance(value, dict):
        return {key: _even(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_even(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def tables(config: dict[str, Any]) -> Tables:
    """Return the mask of every split."""
    return _tables(json.dumps({key: config[key] for key in MASKS}))


@functools.cache
def _tables(masks: str) -> Tables:
    rest = {"simulate_missing": False, "per_gpu_batchsize": 1, "num_workers": 0, "seed": 0,
            "backbone": "clip"}  # fmt: skip  # whose does not matter: nothing is decoded
    data = assembly.data_from_config(json.loads(masks) | rest, 1, tokenize=list)
    return {split: data.mask(split, data.dataset(split)) for split in SPLITS}


@functools.cache
def _weights(backbone: str, vit: str) -> str:
    return sha256_of(BACKBONES[backbone].find(vit))


@functools.cache
def _data(task: str, data_root: str) -> dict[str, str]:
    find = DATASETS[task].find
    return {split: fingerprint(*find(Path(data_root), split)) for split in SPLITS}


@functools.cache
def code_version() -> str:
    """Hash the files of this package that decide numbers, with their names."""
    digest = hashlib.sha256()
    for name, path in _deciding():
        digest.update(f"{name}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _deciding() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name == BUT or not name.startswith(SHOWN):
            yield name, path
