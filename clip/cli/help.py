"""Help texts: `python run.py --help`, `python run.py COMMAND --help` and `python run.py print_config`."""

import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from clip.config import GROUPS, SECTIONS, BaseConfig
from clip.utils.settings import Settings

TITLE = "Deep correlated prompting and related methods for image-text classification with missing modalities."
USAGE = "Usage: python run.py [COMMAND] with [PRESET ...] [SETTING=VALUE ...] [FILE.yaml or FILE.json]"
EXAMPLES = """\
  python run.py with task_finetune_mmimdb data_root=datasets
  python run.py with task_finetune_mmimdb load_path=result/RUN test_only=True test_type=image test_ratio=0.9
  python run.py predict with load_path=result/RUN predict.image=poster.jpg"""
SACRED = "Sacred's options: -F FOLDER stores the run there, -p prints the settings, -u stores nothing, -d debugs."
WIDTH = 110


def overview(commands: Mapping[str, Callable], presets: Mapping[str, Callable]) -> str:
    """Return what the program does, its commands, presets and three examples."""
    rows = {"(none)": "Train; with test_only=True evaluate load_path on the test split."}
    rows |= {name: _first_line(function) for name, function in commands.items()}
    commands_table = ["Commands (python run.py COMMAND --help explains one):", *_table(rows)]
    presets_table = ["Presets:", *_table({name: _first_line(preset) for name, preset in presets.items()})]
    examples = ["Examples:", EXAMPLES]
    return "\n".join([TITLE, "", USAGE, "", *commands_table, "", *presets_table, "", *examples, "", SACRED])


def command_help(name: str, function: Callable) -> str:
    """Return what a command does and its settings."""
    lines = [f"python run.py {name} with [SETTING=VALUE ...]", "", inspect.cleandoc(function.__doc__)]
    if name in GROUPS:
        lines += ["", "Settings:", *_settings(BaseConfig(), GROUPS[name], f"{name}.")]
    return "\n".join([*lines, "", "python run.py print_config lists the settings of data, model and training."])


def config_text(config: BaseConfig) -> str:
    """Return the training settings in the order of config.py; a star marks what the user or a preset set."""
    lines = []
    for section in SECTIONS:
        lines += [f"{section.__doc__.rstrip('.')}:", *_settings(config, section), ""]
    methods = [name for name in type(config).model_fields if name not in BaseConfig.model_fields]  # and backbones
    for name in methods:
        lines += [f"Settings of {name}:", *_settings(config, type(getattr(config, name)), f"{name}."), ""]
    return "\n".join([*lines, "* was set; python run.py COMMAND --help shows the settings of another command."])


def _settings(config: BaseConfig, section: type[Settings], prefix: str = "") -> list[str]:
    owner = getattr(config, prefix.rstrip(".")) if prefix else config
    rows = {}
    for name, field in section.model_fields.items():
        key = prefix + name
        star = "*" * any(override == key or override.startswith(f"{key}.") for override in config.overrides)
        value = getattr(owner, name)
        if isinstance(value, dict) and len({*map(str, value.values())}) == 1:
            value = next(iter(value.values()))  # one value for all splits
        rows[f"{star}{key} = {value!r}"] = field.description or ""
    return _table(rows)


def _table(rows: Mapping[str, Any]) -> list[str]:
    left = min(44, max(map(len, rows)))
    lines = []
    for name, text in rows.items():
        wrapped = textwrap.wrap(text, WIDTH - left) or [""]
        if len(name) > left:
            lines.append(f"  {name}")
            name = ""
        lines += [f"  {name:<{left}}  {wrapped[0]}", *(f"  {'':<{left}}  {line}" for line in wrapped[1:])]
    return [line.rstrip() for line in lines]


def _first_line(function: Callable) -> str:
    return inspect.cleandoc(function.__doc__).splitlines()[0]
