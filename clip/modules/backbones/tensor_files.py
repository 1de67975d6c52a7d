"""Find, download and read weight files without executing code in them."""

import contextlib
import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HTTPError
from safetensors.torch import load_file
from torch import Tensor

from clip.utils.errors import UserError, first_line

# In a folder or repository, in order of preference:
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def find_folder(vit: str, files: Sequence[str], published: Mapping[str, str], weights: Sequence[str] = ()) -> Path:
    """Return the folder of a backbone, downloaded into the cache of the Hugging Face hub if it is not a local path.

    ``vit`` is a file, a folder, a key of ``published`` (name -> Hugging Face id) or a Hugging Face id. The small
    ``files`` are downloaded where they exist, and the first of the ``weights`` that exists.
    """
    path = Path(vit)
    if path.exists():
        return path.parent if path.is_file() else path
    repository = published.get(vit, vit)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository):
        names = ", ".join((*published, "a Hugging Face id"))
        raise UserError(f"vit={vit!r} is not a file, a folder or one of {names}; pass the folder of a backbone")
    try:
        for name in weights:
            with contextlib.suppress(EntryNotFoundError):  # in offline mode: not in the cache
                hf_hub_download(repository, name)
                break
        return Path(snapshot_download(repository, allow_patterns=[*files]))
    except (HTTPError, OSError, ValueError) as error:  # includes offline mode and invalid repository names
        raise UserError(
            f"vit={vit!r} is not a local path, and {repository} cannot be downloaded from Hugging Face "
            f"({first_line(error)}); connect to the network, or pass a local file or folder"
        ) from None


def find_weights(vit: str, files: Sequence[str], published: Mapping[str, str]) -> Path:
    """Return the weight file of a backbone; arguments as in ``find_folder``."""
    if (path := Path(vit)).is_file():
        return path
    folder = find_folder(vit, files, published, WEIGHT_FILES)
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).exists()), None)
    if found is None:
        raise UserError(f"vit={vit}: {folder} has none of {', '.join(WEIGHT_FILES)}; pass another folder")
    return found


def read_tensors(path: Path, convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Read and convert a state dict from a safetensors, ``torch.save`` or TorchScript file, or raise UserError."""
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # 8 bytes of header length, then the JSON header
        if is_safetensors or path.suffix == ".safetensors":
            content = load_file(path)
        elif (content := _read_torchscript(path)) is None:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's message recommends weights_only=False
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it refers to {asked[1]}" if asked else "torch.save did not write it"
        raise UserError(f"{path} is not a file of tensors only ({reason}); get another file") from None
    except Exception as error:  # noqa: BLE001  a crafted or damaged file can raise anything
        raise UserError(f"{path} cannot be read ({first_line(error)}); get the file again") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):  # a training checkpoint
        content = content["state_dict"]
    pairs = content.items() if isinstance(content, dict) else [("", None)]
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in pairs):
        raise UserError(f"{path} does not contain a state dict (tensors by name); pass another file")
    # Expanded tensors share storage, so that copying one could exhaust memory. Tied weights count twice.
    if (claimed := sum(tensor.nbytes for tensor in content.values())) > 2 * path.stat().st_size:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, but its tensors have {claimed:,}; get another file")
    if content and all(name.startswith("module.") for name in content):  # saved from DataParallel
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    try:
        return convert(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_inert(data: bytes) -> Any:
    """Load a ``torch.save`` file with every class replaced by an empty stub, so that no code in it is executed."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    # The functions of torch.jit._pickle (restore_type_tag, build_intlist and the like) return their first argument.
    functions = {name: lambda value, *_: value for name in names if name.startswith("torch.jit._pickle.")}
    with torch.serialization.safe_globals([(functions.get(name, type("Stub", (), {})), name) for name in names]):
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _read_torchscript(path: Path) -> dict[str, Tensor] | None:
    """Read the tensors of a TorchScript archive, OpenAI's format; return None for other files.

    ``torch.jit.load`` would execute its code. Without the code, it is a ``torch.save`` file of nested modules.
    """
    if not zipfile.is_zipfile(path):
        return None
    plain = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(plain, "w") as copy:
        if not any(re.fullmatch(r"[^/]+/constants\.pkl", name) for name in archive.namelist()):
            return None
        for name in archive.namelist():
            if re.fullmatch(r"[^/]+/(data\.pkl|data/\d+|(\.data/)?version|byteorder)", name):
                copy.writestr(name, archive.read(name))
    return dict(_named_tensors(load_inert(plain.getvalue())))


def _named_tensors(module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, part in vars(module).items():
        if isinstance(part, Tensor):
            yield prefix + name, part
        elif hasattr(part, "__dict__"):
            yield from _named_tensors(part, f"{prefix}{name}.")
