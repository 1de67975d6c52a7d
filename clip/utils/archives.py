"""Archives and tensors that claim more than their file holds: refused before they are unpacked.

A leaf but for the error class.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clip.utils.errors import UserError

TIES = 2  # tensors of one file may share their numbers: all hold at most twice its size


def unpacked_sizes(path: Path) -> dict[str, tuple[int, bool]]:
    """List the entries of an archive: name -> bytes once unpacked, and whether they are packed.

    Nothing for a file that is no archive. No more than the said bytes are ever unpacked.
    """
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: (entry.file_size, entry.compress_type != zipfile.ZIP_STORED)
                for entry in archive.infolist()}  # fmt: skip


def refuse_bombs(path: Path, most: int | None = None) -> None:
    """Refuse an archive that unpacks to far more than its size.

    Args:
        path: the file; one that is no archive passes.
        most: bytes in all that a packed archive may unpack to; None where no entry is packed by
            whoever writes such files, as ``torch.save`` and ``numpy.savez`` do.

    Raises:
        UserError: names the entry, or the bytes.
        zipfile.BadZipFile: the archive is damaged.
    """
    sizes = unpacked_sizes(path)
    total = sum(size for size, _ in sizes.values())
    packed = next((name for name, (_, is_packed) in sizes.items() if is_packed), None)
    if most is None and packed is not None:
        raise UserError(f"{path} holds a packed entry {packed[:60]}; save the file again unpacked")
    if total > (path.stat().st_size if most is None else most):
        raise UserError(f"{path} unpacks to {total:,} bytes, which no such file needs; get another")


def refuse_larger(path: Path, tensors: Iterable[Any]) -> None:
    """Refuse tensors that repeat a few numbers so often that copies would fill the memory.

    Raises:
        UserError: with both sizes.
    """
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if claimed > TIES * (size := path.stat().st_size):
        raise UserError(f"{path} has {size:,} bytes and tensors of {claimed:,}; get another file")
