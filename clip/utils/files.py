"""Atomic file writes, JSON objects, YAML, and readable OS errors."""

import contextlib
import errno
import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from clip.utils.errors import UserError

ADVICE = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some space or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "choose a folder on a disk that can be written to",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "check the permissions of the file and its folders"),
    errno.ENOENT: "check the path",
}
UMASK = os.umask(0o077)  # can only be read by setting it, which is not thread-safe later
os.umask(UMASK)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block succeeds, the file written there replaces ``path``.

    The temporary file is in the same folder, because a rename is atomic only within one file system. When several
    processes write the same file, the last one wins. A failed block leaves nothing; its `OSError` names ``path``.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with named(path, partial):
            yield partial
            _flush(partial)
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):  # do not hide the first error
            partial.unlink(missing_ok=True)


def _flush(partial: Path) -> None:
    """Write a file to disk, so that a power cut cannot leave the name without the content."""
    os.chmod(partial, 0o666 & ~UMASK)  # some libraries create their files with mode 0600
    with partial.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def named(path: Path, partial: Path) -> Iterator[None]:
    """Set ``path`` as the filename of OS errors that name no file, as of a full disk, or the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, str(partial)):
            error.filename, error.filename2 = str(path), None
        raise


@contextlib.contextmanager
def atomic_write_all(*paths: Path) -> Iterator[dict[Path, Path]]:
    """Yield a temporary path for each file of a folder; when the block succeeds, all get their names together.

    When several processes write the same files, the last one wins and the files are never mixed.
    """
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        descriptor = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, descriptor)  # ends the lock, after the renames
        partials = {path: stack.enter_context(atomic_write(path)) for path in paths}
        yield partials
        for path, partial in partials.items():
            with named(path, partial):
                _flush(partial)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Remove all old files first: a process that is killed between two renames leaves too few files, which
        # readers notice, and not a mixture of new and old ones.
        for path in paths:
            path.unlink(missing_ok=True)


def expand_home(path: str) -> str:
    """Replace ~ or ~user at the start of a path by the home folder; raise ValueError if the user is unknown."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError("the user after ~ is unknown; give a full path")
    return expanded


def display_path(path: str | Path) -> str:
    """Return a path as messages show it: relative to the working directory if it lies below it."""
    absolute = Path(path).absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path)


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 text file atomically and return its path."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def parse_object(data: bytes, place: str) -> dict[str, Any]:
    """Parse a JSON object in UTF-8; the `UserError` if it is not valid names ``place``, a file or a line of it."""
    try:
        content = json.loads(data.decode("utf-8-sig"))
        if b"\\u" in data:  # JSON can escape one half of a surrogate pair, which no file can store
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not valid JSON ({error}); correct it, or download the file again") from None
    if not isinstance(content, dict):
        raise UserError(f"{place} is not a JSON object; write one in braces")
    return content


class _YAMLLoader(yaml.SafeLoader):
    """Safe loader without duplicate keys and aliases, which can expand to more than the memory."""

    def compose_node(self, parent: yaml.Node, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.YAMLError(f"duplicate key in the mapping at line {node.start_mark.line + 1}")
        return mapping


_YAMLLoader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)
# A float of YAML 1.2, such as 1e-3, which is a string in YAML 1.1
_YAMLLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("+-.0123456789")
)


def parse_yaml(text: str) -> Any:
    """Parse a YAML document of plain data; raise ValueError if it is not valid or has aliases or duplicate keys."""
    try:
        return yaml.load(text, _YAMLLoader)  # noqa: S506  a safe loader
    except (yaml.YAMLError, LookupError, AttributeError, ArithmeticError) as error:  # such as "!!bool maybe"
        raise ValueError(f"it is not valid YAML: {' '.join(str(error).split())}") from None


def describe_os_error(error: OSError) -> str:
    """Return the file, the reason and, where one is known, the remedy of an OS error in one line."""
    place = f"{error.filename}: " if error.filename is not None else ""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{place}{reason}" + (f"; {ADVICE[error.errno]}" if error.errno in ADVICE else "")
