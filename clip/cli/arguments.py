"""Validate the command line before Sacred parses it, since Sacred prints tracebacks for user errors.

Settings files after ``with`` are read here as plain data; Sacred would unpickle them.
"""

import json
import math
from collections.abc import Container
from pathlib import Path
from typing import Any

from clip.config import as_list
from clip.missing import SPLITS
from clip.utils.command_line import flatten, read_value, suggest, to_cli_args
from clip.utils.errors import UserError, first_line
from clip.utils.files import parse_yaml

EXAMPLE = "python run.py with task_finetune_mmimdb data_root=datasets"
SACRED_OPTIONS = ("-F", "--file_storage", "-p", "--print-config", "-u", "--unobserved", "-d", "--debug")
SETTINGS_FILES = (".yaml", ".yml", ".json")
LARGEST_INT = 2**63


def expand_files(words: list[str]) -> list[str]:
    """Replace the settings files of a command line by ``key=value`` words, without their plugins, which are code."""
    start = words.index("with") + 1 if "with" in words else len(words)
    expanded = words[:start]
    for word in words[start:]:
        if "=" in word or Path(word).suffix not in SETTINGS_FILES:
            expanded.append(word)
            continue
        settings = _read_settings_file(Path(word))
        if settings.pop("plugins", None) and not any(other.startswith("plugins=") for other in words):
            raise UserError(f"{word} names plugins, whose code would run; give plugins= on the command line too")
        expanded += to_cli_args(settings)
    return expanded


def plugin_names(words: list[str]) -> list[str]:
    """Return the modules that the setting ``plugins`` names; whatever else it holds is reported later."""
    names: Any = []
    for word in words:
        if word.startswith("plugins="):
            names = read_value("plugins", word.partition("=")[2])
    names = as_list(names)
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def check_arguments(
    words: list[str], commands: Container[str], presets: Container[str], defaults: dict[str, Any]
) -> list[str]:
    """Return the words for Sacred; raise UserError if one is not a command, option, preset or setting.

    ``words`` are ``sys.argv[1:]``, expanded by ``expand_files``, and ``defaults`` the nested settings.
    """
    start = words.index("with") if "with" in words else len(words)
    _check_command(words[:start], commands, presets)
    known = {*defaults, *flatten(defaults)}
    checked = words[: start + 1]
    for word in words[start + 1 :]:
        if "=" in word:
            key, _, text = word.partition("=")
            checked += _check_setting(key, read_value(key, text), known)
        elif word in presets:
            checked.append(word)
        else:
            hint = f"; write {word}=VALUE without spaces" if word in known else suggest(word, presets)
            raise UserError(f"{word!r} is not a preset, a setting or a .yaml or .json file{hint}")
    return checked


def _check_command(words: list[str], commands: Container[str], presets: Container[str]) -> None:
    """Check the words before ``with``: at most one command, and options of Sacred."""
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in SACRED_OPTIONS:
            raise UserError(f"{word!r} is not an option; settings are words: {EXAMPLE}")
    if {"-F", "--file_storage"} & set(words):  # one of the words is its folder
        return
    given = [word for word in words if not word.startswith("-")]
    for word in given:
        if "=" in word or word in presets:
            raise UserError(f"{word!r} must follow 'with': {EXAMPLE}")
        if word not in commands:
            raise UserError(f"{word!r} is not a command{suggest(word, commands)}; to train: {EXAMPLE}")
    if given[1:]:
        raise UserError(f"{given[0]!r} and {given[1]!r} are two commands; give one")


def _check_setting(key: str, value: Any, known: set[str]) -> list[str]:
    """Return the words for Sacred: one for each entry of a dictionary, and for each split of a value for all splits."""
    if key not in known:
        raise UserError(f"{key!r} is not a setting{suggest(key, known)}; print_config lists all settings")
    if any(name.startswith(f"{key}.") for name in known):
        if f"{key}.{SPLITS[0]}" in known and not isinstance(value, dict):
            value = dict.fromkeys(SPLITS, value)  # a later word may change one of them
        if not isinstance(value, dict):
            raise UserError(f"{key}={value!r:.100} is not valid; {key} is a group of settings: give {key}.NAME=VALUE")
        return [word for name, inner in value.items() for word in _check_setting(f"{key}.{name}", inner, known)]
    if not _is_plain(value):
        raise UserError(f"{key}={value!r:.100} is not valid; give a number, a string or a list")
    if key == "seed" and not (type(value) is int and 0 <= value < 2**32):  # Sacred seeds before the schema validates
        raise UserError(f"seed={value!r:.100} is not valid; it must be an integer from 0 to {2**32 - 1}")
    return [f"{key}={value!r}"]  # a literal: of a plain string, Sacred strips spaces and parses what is left


def _is_plain(value: Any) -> bool:
    """Return whether a value consists of types that a setting can have.

    Dictionaries are not among them: Sacred decodes values with jsonpickle, which runs what is under a key such as
    "py/reduce".
    """
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < LARGEST_INT
    return value is None or isinstance(value, str)


def _read_settings_file(path: Path) -> dict[str, Any]:
    """Read settings from a YAML or JSON file, or the settings of a run from its run.json."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else parse_yaml(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as settings ({first_line(error)})") from None
    if isinstance(content, dict) and isinstance(content.get("config"), dict):
        content = content["config"]
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path} does not contain settings; write lines such as 'batch_size: 64'")
    return content
