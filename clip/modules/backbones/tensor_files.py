"""Find, download and read files of tensors. Nothing in a file is ever executed."""

import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HTTPError
from safetensors.torch import load_file
from torch import Tensor

from clip.utils.errors import UserError

WEIGHT_FILES = (  # in a folder or repository, in order of preference
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/name on the Hugging Face hub
STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
}


def find_folder(
    vit: str, files: Sequence[str], published: Mapping[str, str] = MappingProxyType({}), weights: Sequence[str] = ()
) -> Path:
    """Return the folder of a backbone, downloaded into the cache of the Hugging Face hub if it is not a local path.

    Args:
        vit: file, folder, key of ``published`` or Hugging Face id.
        files: small files to download where they exist.
        published: name -> Hugging Face id.
        weights: weight files of which the first that exists is downloaded.

    Raises:
        UserError: there is no such path or repository, or the hub cannot be reached.
    """
    path = Path(vit).expanduser()
    if path.exists():
        return path.parent if path.is_file() else path
    repository = published.get(vit, vit)
    if not REPOSITORY.fullmatch(repository):
        names = ", ".join((*published, "a Hugging Face id"))
        raise UserError(f"vit={vit!r} is not a file, a folder or one of {names}; pass the folder of a backbone")
    try:
        for name in weights:
            try:
                hf_hub_download(repository, name)
                break
            except EntryNotFoundError:  # offline also: not in the cache
                continue
        return Path(snapshot_download(repository, allow_patterns=[*files]))
    except (HTTPError, OSError, ValueError) as error:  # offline mode and refused names included
        raise UserError(
            f"vit={vit!r} is not a local path, and {repository} cannot be downloaded from Hugging Face "
            f"({first_line(error)}); connect to the network, or pass a local file or folder"
        ) from None


def find_weights(vit: str, files: Sequence[str], published: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Return the weight file of a backbone; arguments and errors as in ``find_folder``."""
    if (path := Path(vit).expanduser()).is_file():
        return path
    folder = find_folder(vit, files, published, WEIGHT_FILES)
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).exists()), None)
    if found is None:
        raise UserError(f"vit={vit}: {folder} has none of {', '.join(WEIGHT_FILES)}; pass another folder")
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors, ``torch.save`` or TorchScript file.

    Raises:
        UserError: the file is damaged or holds anything but named tensors.
    """
    try:
        if path.suffix == ".safetensors" or _starts_like_safetensors(path):
            content = load_file(path)
        elif root := _torchscript_root(path):
            content = _read_torchscript(path, root)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own message advises to load without a guard
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it refers to {asked[1]}" if asked else "torch.save did not write it"
        raise UserError(f"{path} is not a file of tensors only ({reason}); get another file") from None
    except Exception as error:  # noqa: BLE001  a crafted or damaged file can raise anything
        raise UserError(f"{path} cannot be read ({first_line(error)}); get the file again") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):  # of a training program
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise UserError(f"{path} does not hold a state dict (tensors by name); pass another file")
    # Expanded tensors repeat few numbers; a copy of one could fill the memory. Tied weights count twice.
    if (claimed := sum(tensor.nbytes for tensor in content.values())) > 2 * path.stat().st_size:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, but tensors of {claimed:,}; get another file")
    if content and all(name.startswith("module.") for name in content):  # data-parallel training
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return content


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type, for use in a one-line message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class _TorchScriptUnpickler(pickle.Unpickler):
    """Rebuilds the module tree of a TorchScript archive as plain objects that hold tensors.

    ``torch.jit.load`` would run the code of OpenAI's archives. ``find_class`` and ``persistent_load`` are all that a
    pickle can reach outside itself. The module class is made anew for each file, so no file can leave anything on it.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root
        self.module_class = type("Module", (), {})

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return self.module_class
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle":  # restore_type_tag, build_intlist and the like
            return lambda value, *_: value
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: storage.as_strided(size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, pid: tuple) -> Tensor:
        _, dtype, key, _, _ = pid  # the device it was saved on does not matter
        return torch.frombuffer(bytearray(self.archive.read(f"{self.root}/data/{key}")), dtype=dtype)


def _read_torchscript(path: Path, root: str) -> dict[str, Tensor]:
    def tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
        for name, part in vars(module).items():
            if isinstance(part, Tensor):
                yield prefix + name, part
            elif isinstance(part, reader.module_class):
                yield from tensors(part, f"{prefix}{name}.")

    with zipfile.ZipFile(path) as archive:
        reader = _TorchScriptUnpickler(archive, root)
        return dict(tensors(reader.load(), ""))


def _torchscript_root(path: Path) -> str | None:
    """Return the folder inside a TorchScript archive, or None for other files."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [name.split("/") for name in archive.namelist()]
    return next((name[0] for name in names if name[1:] == ["constants.pkl"]), None)


def _starts_like_safetensors(path: Path) -> bool:
    with path.open("rb") as file:  # 8 bytes with the length of a JSON header, then the header
        return file.read(9)[8:] == b"{"
