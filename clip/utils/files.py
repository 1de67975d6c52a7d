"""Files that are there whole or not at all, and why one could not be written. A leaf."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PERMISSION = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a name to write to; when the block ends well, the file takes the place of ``path``.

    It lies in the same folder, since only within one file system is a rename one step. Several
    processes may write one file at once: the last wins. What a failure leaves is removed.

    Raises:
        OSError: with ``path`` as its filename, whatever part of the writing failed.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with named(path, partial):
            yield partial
            _to_disk(partial)
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):  # what failed before is the news
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path: Path, partial: Path) -> Iterator[None]:
    """Let errors of writing say which file it was: a full disk does not name it by itself."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, str(partial)):
            error.filename, error.filename2 = str(path), None
        raise


def _to_disk(path: Path) -> None:
    """Make a power cut unable to leave the name without the content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all, and give its path."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def describe_os_error(error: OSError) -> str:
    """Say in one line what the system refused, of which file, and what helps."""
    if error.errno in DISK_FULL:
        helps = "make room there and call it again; every file that was whole is still there"
    elif error.errno in NO_PERMISSION:
        helps = "give a place that can be written, or the right to write there"
    else:
        helps = "check the paths among the settings"
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{os.strerror(error.errno) if error.errno else error}; {helps}"
