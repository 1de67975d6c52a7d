"""Reads the tensors of a weight file, whatever its format. Nothing in a file is ever run.

A TorchScript archive, OpenAI's own format, holds code beside its tensors; ``torch.jit.load`` would
run it. We only read the attributes of its modules.
"""

import hashlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from clip.utils.archives import refuse_bombs, refuse_larger
from clip.utils.errors import UserError

STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
}
WRAPPER = "state_dict"  # training programs keep the tensors under this key
PREFIX = "module."  # what data-parallel training puts in front of every name


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors without running anything in it.

    Raises:
        UserError: the file is damaged or holds something else than named tensors.
    """
    try:
        read = next(read for recognises, read in FORMATS if recognises(path))
        content = read(path)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is not a file of tensors alone ({error}); get another") from None
    except Exception as error:  # noqa: BLE001  a crafted or damaged file can raise anything
        raise UserError(f"{path} cannot be read ({first_line(error)}); get it again") from None
    if isinstance(content, dict) and isinstance(content.get(WRAPPER), dict):
        content = content[WRAPPER]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise UserError(f"{path} holds no state dict, that is names with a tensor each")
    refuse_larger(path, content.values())
    if content and all(name.startswith(PREFIX) for name in content):
        content = {name.removeprefix(PREFIX): tensor for name, tensor in content.items()}
    return content


def sha256_of(path: Path) -> str:
    """Hash a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: BaseException) -> str:
    """Shorten an error to one line for a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class _ScriptReader(pickle.Unpickler):
    """Rebuilds the module tree of a TorchScript archive as bare holders of tensors.

    ``find_class`` and ``persistent_load`` are all that a pickle can reach outside itself. The
    holder is made anew for each file, so that no file can leave anything behind on it.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(BytesIO(_stored(archive, f"{root}/data.pkl")))
        self.archive, self.root = archive, root
        self.holder = type("Holder", (), {})

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return self.holder
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle":  # restore_type_tag, build_intlist and the like
            return lambda value, *_: value
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: storage.as_strided(size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: tuple) -> Tensor:
        _, dtype, key, _, _ = pid  # the device it was saved on does not matter
        data = _stored(self.archive, f"{self.root}/data/{key}")
        return torch.frombuffer(bytearray(data), dtype=dtype)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read an entry that is not packed, as torch writes all but code; a bomb is packed."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise UserError(f"{archive.filename} holds a packed entry {name[:60]}; get it again")
    return archive.read(name)


def _read_script(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        reader = _ScriptReader(archive, _script_root(path))
        return dict(_named_tensors(reader.load(), reader.holder))


def _named_tensors(module: Any, holder: type, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, part in vars(module).items():
        if isinstance(part, Tensor):
            yield prefix + name, part
        elif isinstance(part, holder):
            yield from _named_tensors(part, holder, f"{prefix}{name}.")


def _script_root(path: Path) -> str | None:
    """Give the folder inside a TorchScript archive; None if the file is not one."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [name.split("/") for name in archive.namelist()]
    return next((n[0] for n in names if len(n) == 2 and n[1] == "constants.pkl"), None)


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:  # the length of a table in JSON, then the table
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_saved(path: Path) -> Any:
    refuse_bombs(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its advice, to load without a guard, is not ours
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else "torch.save does not write such a file"
        raise pickle.UnpicklingError(reason) from None


FORMATS: tuple[tuple[Callable[[Path], Any], Callable[[Path], Any]], ...] = (
    (_is_safetensors, load_file),
    (_script_root, _read_script),
    (lambda path: True, _read_saved),  # torch.save
)
