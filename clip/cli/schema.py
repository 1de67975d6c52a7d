"""What each setting may be. Sacred refuses unknown keys but only warns of a changed type."""

import copy
import math
from collections.abc import Callable
from typing import Any

from clip.cli.arguments import LARGEST_SEED, flat
from clip.datasets import PLOT_POLICIES
from clip.engine.loss_guard import ACTIONS
from clip.engine.micro_batch import AUTO
from clip.missing.masks import DRAWS, MISSING_TYPES
from clip.modules.factory import MODELS, read_backbone_settings
from clip.modules.layers import ACTIVATIONS
from clip.modules.objectives import TASKS
from clip.modules.optim import OPTIMIZERS, SCHEDULE_LENGTHS
from clip.modules.prompts import PROMPT_TYPES, read_settings
from clip.utils.errors import UserError

SPLITS = ("train", "val", "test")
PER_SPLIT = ("missing_type", "missing_ratio", "missing_table")  # one value serves all splits
LAUNCHERS = ("local", "slurm")
PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true"}

LONGEST_PROMPT = 10_000  # a checkpoint of a stranger must not ask for all memory
LARGEST_PORT = 65535
LONGEST_NAME = 100  # the folder's name adds to it, and file systems end at 255
Rule = tuple[Callable[[Any], bool], str]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def whole(least: int, most: float = math.inf) -> Rule:
    """Accept whole numbers from ``least`` on."""
    bound = f", at most {most}" * (most < math.inf)
    return (
        lambda value: _whole(value) and least <= value <= most,
        f"a whole number, at least {least}{bound}",
    )


def number(least: float, most: float = math.inf, above: bool = False) -> Rule:
    """Accept numbers in a range; ``above`` leaves out its lower end."""
    bound = ("above" if above else "from") + f" {least}" + (f" to {most}" * (most < math.inf))
    return (
        lambda value: _number(value) and (value > least if above else value >= least)
        and value <= most, f"a number {bound}",
    )  # fmt: skip


def choice(*options: Any) -> Rule:
    """Accept one of some values."""
    return lambda value: value in options, f"one of {', '.join(map(str, options))}"


def optional(rule: Rule) -> Rule:
    """Accept None too."""
    return lambda value: value is None or rule[0](value), f"None or {rule[1]}"


def each(rule: Rule) -> Rule:
    """Accept a list of values that pass a rule."""
    return (
        lambda value: isinstance(value, list | tuple) and all(map(rule[0], value)),
        f"a list, each {rule[1]}",
    )


def several(rule: Rule) -> Rule:
    """Accept a list with at least one value, each of which passes a rule."""
    accepts, allowed = each(rule)
    return lambda value: accepts(value) and len(value) > 0, f"{allowed}, at least one"


TEXT: Rule = (lambda value: isinstance(value, str), "a string")
NAME: Rule = (
    lambda value: isinstance(value, str) and bool(value) and value.strip(". ") != ""
    and len(value) <= LONGEST_NAME and not set(value) & set('/\\:*?"<>|\0'),
    f"a string of 1 to {LONGEST_NAME} letters without slashes",
)  # fmt: skip
SEED: Rule = (
    lambda value: _whole(value) and 0 <= value <= LARGEST_SEED,
    f"a whole number from 0 to {LARGEST_SEED}",
)
WORD: Rule = (
    lambda value: isinstance(value, str) and all(value.partition("=")),
    'a string such as "task=mmimdb"',
)
SWITCH: Rule = (lambda value: isinstance(value, bool), "True or False")
SHARE = number(0, 1)
SOURCE: Rule = (
    lambda value: (
        isinstance(value, str)
        and value.partition(":")[0] in TASKS
        and (":" not in value or value.partition(":")[2].isdigit())
    ),
    f"a task ({', '.join(TASKS)}) or task:label",
)

RULES: dict[str, Rule] = {
    "task": choice(*TASKS),
    "exp_name": NAME,
    "log_dir": TEXT,
    "seed": SEED,
    "data_root": TEXT,
    "plots": choice(*PLOT_POLICIES),
    "num_workers": optional(whole(0)),
    "missing_type.*": choice(*MISSING_TYPES),
    "missing_ratio.*": SHARE,
    "both_ratio": SHARE,
    "missing_draw": choice(*DRAWS),
    "missing_seed": whole(0),
    "missing_table_root": optional(TEXT),
    "missing_table.*": TEXT,
    "simulate_missing": SWITCH,
    "test_type": optional(choice(*MISSING_TYPES)),
    "test_ratio": optional(SHARE),
    "backbone": choice(*MODELS),
    "vit": TEXT,
    "activation": optional(choice(*ACTIVATIONS)),
    "prompt_type": choice(*PROMPT_TYPES),
    "prompt_length": whole(1, LONGEST_PROMPT),
    "prompt_depth": whole(1),
    "unfreeze": optional(each(TEXT)),
    "batch_size": whole(1),
    "per_gpu_batchsize": (
        lambda value: value == AUTO or (_whole(value) and value >= 1),
        f"{AUTO} or a whole number, at least 1",
    ),
    "compile": SWITCH,
    "optim_type": choice(*OPTIMIZERS),
    "learning_rate": number(0, above=True),
    "weight_decay": number(0),
    "lr_mult": number(0, above=True),
    "schedule_length": choice(*SCHEDULE_LENGTHS),
    "warmup_steps": number(0),
    "decay_power": number(0, above=True),
    "end_lr": number(0),
    "max_epoch": whole(1),
    "max_steps": optional(whole(1)),
    "val_check_interval": number(0, 1, above=True),
    "nonfinite_loss": choice(*ACTIONS),
    "num_gpus": whole(0),
    "num_nodes": whole(1),
    "precision": (lambda value: str(value) in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    "fast_dev_run": SWITCH,
    "test_only": SWITCH,
    "load_path": TEXT,
    "resume_from": TEXT,
    "sweep_types": several(choice(*MISSING_TYPES)),
    "sweep_ratios": several(SHARE),
    "sweep_seeds": optional(several(whole(0))),
    "predictions": TEXT,
    "image": TEXT,
    "text": (
        lambda value: isinstance(value, str),
        "a string; what reads as a number, in two kinds of quotes: text=\"'2001'\"",
    ),
    "input": TEXT,
    "output": TEXT,
    "host": TEXT,
    "port": (
        lambda value: _whole(value) and 0 <= value <= LARGEST_PORT,
        f"a whole number from 0 to {LARGEST_PORT}",
    ),
    "experiment": (
        lambda value: value is None or several(TEXT)[0]([value] if isinstance(value, str) else value),
        "a name in experiments/ or a yaml file, or a list of them",
    ),
    "seeds": several(SEED),
    "only": each(WORD),
    "launcher": choice(*LAUNCHERS),
    "jobs": whole(1),
    "slurm": each(WORD),
    "pretrain.target": TEXT,
    "pretrain.vocabulary": whole(514),  # letters and control tokens, which need no merge
    "pretrain.learning_rate": number(0, above=True),
    "pretrain.sources": each(SOURCE),
    "pretrain.*": whole(1),
}


def validate(config: dict[str, Any]) -> dict[str, Any]:
    """Check all settings and resolve the shorthands.

    Args:
        config: as Sacred gives it; not changed.

    Returns:
        A copy with one value per split in ``missing_*``, and ``test_ratio`` and ``test_type`` in
        the values of the test split.

    Raises:
        UserError: names the first wrong setting, its value and what is allowed.
    """
    config = copy.deepcopy(config)
    config.pop("__doc__", None)  # Sacred keeps the preset's docstring among the settings
    for key in PER_SPLIT:
        if not isinstance(config[key], dict):
            config[key] = dict.fromkeys(SPLITS, config[key])
        if unknown := sorted(config[key].keys() - set(SPLITS)):
            raise UserError(f"{key}.{unknown[0]} is unknown; the splits are {', '.join(SPLITS)}")
    methods, backbones = PROMPT_TYPES.keys() & config, MODELS.keys() & config
    for names, read in ((methods, read_settings), (backbones, read_backbone_settings)):
        for name in sorted(names):  # all of them, whichever is selected
            read(name, config[name])
    rest = config.keys() - methods - backbones
    for key, value in flat({key: config[key] for key in config if key in rest}).items():
        accepts, allowed = RULES.get(key) or RULES[key.split(".")[0] + ".*"]
        if not accepts(value):
            raise UserError(f"{key}={value!r} is not valid; give {allowed}")
    for short, key in (("test_type", "missing_type"), ("test_ratio", "missing_ratio")):
        if config[short] is not None:
            config[key]["test"] = config[short]
    _check_combinations(config)
    return config


def _check_combinations(config: dict[str, Any]) -> None:
    if config["end_lr"] >= config["learning_rate"]:
        raise UserError(f"end_lr={config['end_lr']} must be below learning_rate={config['learning_rate']}")
    if config["test_only"] and not config["load_path"]:
        raise UserError("test_only=True needs load_path=, a checkpoint or the folder of a run")
    if config["load_path"] and config["resume_from"]:
        raise UserError(
            f"load_path={config['load_path']} starts anew and resume_from={config['resume_from']} "
            "goes on; give one of them"
        )
