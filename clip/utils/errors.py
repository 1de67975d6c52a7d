"""Errors caused by user input, and escaping of untrusted text."""

import multiprocessing
import re
import sys


def escape(text: str) -> str:
    r"""Escape control characters, line breaks and characters that stdout cannot encode, as in ``\x1b``.

    Names in data files and checkpoints are untrusted: an ANSI escape or U+202E must not reach a terminal.
    """
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type, for use in a one-line message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class UserError(ValueError):
    """Error caused by user input; its one-line message names the value and the fix.

    The programs print the message without a traceback. Every other exception is a bug and keeps its traceback.
    """

    def __init__(self, message: str):
        # A DataLoader worker's error is re-raised with its traceback as the message; the last line is the original one.
        super().__init__(escape(message.rpartition(f"{__name__}.UserError: ")[2].strip()))


def loader_error(error: BaseException | None) -> UserError | None:
    """Return the error of a DataLoader worker that was killed or had no shared memory, None for any other error.

    The remaining workers are killed: they ignore SIGTERM, and one that waits for the lock of a killed one never ends.
    """
    # "No space" at the end: the error of a file ends in its name.
    signs = r"DataLoader worker \(pid|shared memory|</torch_|No space left on device$"
    while error and not re.search(signs, str(error)):
        error = error.__context__  # Lightning's teardown after the error may raise another
    if not error:
        return None
    for worker in multiprocessing.active_children():
        worker.kill()
    return UserError(
        "a loader worker was killed, mostly because the memory or the shared memory (/dev/shm) is full; "
        "set num_workers=0 or a smaller number, or give more memory (docker run --shm-size=8g)"
    )
