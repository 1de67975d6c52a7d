"""Errors caused by user input, and escaping of untrusted text."""

import sys


def escape(text: str) -> str:
    r"""Escape control characters, line breaks and characters that stdout cannot encode, as in ``\x1b``.

    Names in data files and checkpoints are untrusted: an ANSI escape or U+202E must not reach a terminal.
    """
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class UserError(ValueError):
    """Error caused by user input; its one-line message names the value and the fix.

    The programs print the message without a traceback. Every other exception is a bug and keeps its traceback.
    """

    def __init__(self, message: str):
        # A DataLoader worker's error is re-raised with its traceback as the message; the last line is the original one.
        super().__init__(escape(message.rpartition(f"{__name__}.UserError: ")[2].strip()))
