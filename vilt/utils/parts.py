"""Files that get their names together when all are whole, also beside other conversions."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PART = re.compile(r"\.\d+\.new\.part")  # behind the name of a file; the number is a process


@contextmanager
def together(*paths: Path) -> Iterator[dict[Path, Path]]:
    """Gives each file a part to write to; all get their names at the end, or none does.

    Conversions into one folder at once: the last one's files stand there, and no mixture. One that
    is killed leaves parts, which the next one removes.
    """
    parts = {path: path.with_name(f"{path.name}.{os.getpid()}.new.part") for path in paths}
    folders = {path.parent for path in paths}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            with _alone(folders):
                for path, part in parts.items():
                    _remove_left(path)
                    with named(path):
                        _lock(held.enter_context(part.open("wb")).fileno())
            yield parts
            with _alone(folders):
                # First all away: killed between two of the names, a run leaves too few files,
                # which whoever reads them says, and not new ones beside old ones.
                for path in paths:
                    path.unlink(missing_ok=True)
                for path, part in parts.items():
                    part.replace(path)
        finally:
            for part in parts.values():
                with suppress(OSError):  # what failed before is the news
                    part.unlink(missing_ok=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Lets errors of writing say which file it was: a full disk does not name it by itself."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or PART.search(str(error.filename))):
            error.filename = str(path)
        raise


@contextmanager
def _alone(folders: set[Path]) -> Iterator[None]:
    """Keeps other conversions from giving or taking names meanwhile."""
    with ExitStack() as stack:
        for folder in sorted(folders):
            number = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, number)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(number, fcntl.LOCK_EX)
        yield


def _lock(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody has it, or a file system without locks
        return False
    return True


def _remove_left(path: Path) -> None:
    """Removes the parts of a file whose process has ended, which the system has unlocked."""
    for part in path.parent.glob(f"{path.name}.*.part"):
        if PART.fullmatch(part.name.removeprefix(path.name)):
            with part.open("rb") as file:
                if _lock(file.fileno()):
                    part.unlink(missing_ok=True)
