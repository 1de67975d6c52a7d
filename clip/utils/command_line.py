"""Format settings and commands as they are typed on the command line."""

import ast
import difflib
import shlex
from collections.abc import Iterable
from typing import Any

from clip.utils.errors import UserError


def flatten(settings: dict[str, Any]) -> dict[str, Any]:
    """Flatten one level of nested settings: {"a": {"b": 1}} becomes {"a.b": 1}, as users type it."""
    flat = {}
    for key, value in settings.items():
        nested = value if isinstance(value, dict) else {}
        flat |= {f"{key}.{name}": inner for name, inner in nested.items()} or {key: value}
    return flat


def to_cli_args(settings: dict[str, Any]) -> list[str]:
    """Format settings as ``key=value`` words from which Sacred reads the same values."""
    return [f"{key}={_format(key, value)}" for key, value in flatten(settings).items()]


def _format(key: str, value: Any) -> str:
    # The folder "2024" must not become a number.
    return value if isinstance(value, str) and read_value(key, value) is value else repr(value)


def read_value(key: str, text: str) -> Any:
    """Return the value of ``key=text`` on the command line: a Python literal, or else the text itself, as in Sacred."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, OverflowError):  # TypeError: a set of lists
        return text
    except (MemoryError, RecursionError):
        raise UserError(f"{key}={text[:60]}... is nested too deeply; give a number, a string or a list") from None


def format_command(settings: dict[str, Any], *command: str) -> str:
    """Format a command of run.py as typed in a shell, with quotes where they are needed."""
    return shlex.join(["python", "run.py", *command, "with", *to_cli_args(settings)])


def suggest(word: str, known: Iterable[str]) -> str:
    """Return '; did you mean ...?' for the most similar known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
