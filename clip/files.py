"""Files that are there whole or not at all. A leaf."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a name to write to; when the block ends well, the file takes the place of ``path``.

    It lies in the same folder, since only within one file system is a rename one step. Several
    processes may write one file at once: the last wins. What a failure leaves is removed.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all, and give its path."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path
