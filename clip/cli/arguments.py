"""The words of the command line, checked before Sacred, which answers some with a traceback."""

import ast
import difflib
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sacred import Experiment

from clip.utils.errors import UserError

LARGEST_SEED = 2**32 - 1
MOST_LISTED = 20  # words in one line
START = "task_finetune_mmimdb data_root=…"


def check_arguments(words: Sequence[str], ex: Experiment) -> None:
    """Refuse commands, presets and settings that do not exist, and seeds that cannot be.

    Args:
        words: the command line without the program.
        ex: knows them all.

    Raises:
        UserError: names the first such word and the nearest that exists.
    """
    _check_options(words, ex)
    if words and not words[0].startswith("-") and words[0] not in {"with", "help", *ex.commands}:
        if "=" in words[0] or words[0] in ex.named_configs:
            raise UserError(f"{words[0]!r} must stand behind with: python run.py with {words[0]}")
        raise UserError(f"{words[0]!r} is no command{_nearest(words[0], ex.commands)}; to train: "
                        f"python run.py with {START}")  # fmt: skip
    settings = words[list(words).index("with") + 1 :] if "with" in words else []
    defaults = ex.configurations[0]()
    defaults.pop("__doc__", None)
    for word in settings:
        key, equals, value = word.partition("=")
        if equals:
            check_key(key, defaults)
            _check_seed(key, value)
        elif word not in ex.named_configs and not Path(word).is_file() and word[0] != "-":
            raise UserError(f"{word!r} is no preset{_hint(word, ex.named_configs, defaults)}")


def _check_options(words: Sequence[str], ex: Experiment) -> None:
    """Refuse options that Sacred does not have: it answers with its usage, of many lines."""
    known = [flag for option in ex.all_cli_options for flag in option.get_flags()]
    for word in words:
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if word.startswith("-") and name not in known:
            raise UserError(f"{word!r} is no option; settings are words: python run.py with {START}")


def _hint(word: str, presets: Iterable[str], settings: Iterable[str]) -> str:
    """Say what a word that is no preset may have been meant as."""
    if word in settings:
        return f" but a setting; write {word}=…, without blanks around ="
    if set(word) & set("[]{},'\""):
        return ", perhaps a part of a value; put a value with blanks in quotes"
    return _nearest(word, presets)


def check_key(key: str, defaults: dict[str, Any]) -> None:
    """Refuse a setting, in the words of the command line, that does not exist.

    Raises:
        UserError: names the nearest that exists.
    """
    known = {*defaults, *(f"{name}.{inner}" for name, value in defaults.items()
                          if isinstance(value, dict) for inner in value)}  # fmt: skip
    if key not in known:
        raise UserError(f"{key!r} is no setting{_nearest(key, known)}; print_config lists them all")


def _check_seed(key: str, value: str) -> None:
    """Sacred seeds its own generators before any command can look at the settings."""
    try:
        seed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        seed = None
    if key == "seed" and (not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED):
        raise UserError(f"seed={value} is not valid; give a whole number from 0 to {LARGEST_SEED}")


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """Give settings the keys that a user types: {"a": {"b": 1}} becomes {"a.b": 1}."""
    return {
        name: value
        for key, inner in config.items()
        for name, value in (
            ((f"{key}.{k}", v) for k, v in inner.items()) if isinstance(inner, dict) and inner else [(key, inner)]
        )
    }


def typed(settings: dict[str, Any]) -> list[str]:
    """Write settings as words of the command line, so that Sacred reads the same values."""
    return [f"{key}={_word(value)}" for key, value in flat(settings).items()]


def _word(value: Any) -> str:
    if not isinstance(value, str):
        return repr(value)
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return repr(value)  # a folder called 2024 is no number


def command_of(settings: dict[str, Any], *command: str) -> str:
    """Write a command as one would type it in a shell."""
    return shlex.join(["python", "run.py", *command, "with", *typed(settings)])


def _nearest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f": {', '.join(sorted(known))}" if len(known) <= MOST_LISTED else ""
