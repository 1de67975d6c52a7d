"""Fetches files from the Hugging Face hub into its cache: resumed, checked, once a node.

The cache is the hub's own (HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE), where large files lie under
their SHA-256. Its client throws a broken-off file away, so weights are transferred here, under the
client's lock; everything else is left to the client.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download
from huggingface_hub.errors import HTTPError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import WeakFileLock, build_hf_headers

from clip.modules.backbones.tensor_files import first_line, sha256_of
from clip.utils.errors import UserError

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/name
FAILURES = (HTTPError, OSError, ValueError)  # offline and refused names among them


def download(repository: str, files: Sequence[str], weights: Sequence[str] = ()) -> Path:
    """Fetch files of a repository, or find them in the cache.

    Args:
        repository: owner/name.
        files: small files, each taken where it exists.
        weights: names of which the first that exists is taken; a broken-off transfer goes on
            where it stopped.

    Returns:
        The folder that holds them.

    Raises:
        UserError: the hub cannot be reached and the cache lacks the files, or what came is damaged.
    """
    wanted = list(files)
    try:
        if weights and (found := _find(repository, weights)):
            wanted.append(found.rfilename)
            _transfer(repository, found)
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except UserError:
        raise
    except FAILURES as error:
        raise UserError(
            f"cannot download {repository} from Hugging Face ({first_line(error)}); what has "
            "arrived is kept: run it again, or give a local file or folder"
        ) from None


def check_cached(path: Path, sha256: str) -> None:
    """Refuse a file of the hub's cache whose content is not what its name there says.

    Raises:
        UserError: it is damaged; it is taken out of the cache.
    """
    blob = path.parent / path.readlink() if path.is_symlink() else path
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name) and (
        sha256 != blob.name
    ):  # fmt: skip
        blob.unlink(missing_ok=True)
        raise UserError(f"{path} was damaged, its SHA-256 {sha256}; run it again to fetch it anew")


def _find(repository: str, weights: Sequence[str]) -> RepoSibling | None:
    """Find the weight file to fetch; None without a network, when the cache must do."""
    try:
        info = HfApi().model_info(repository, files_metadata=True)
    except FAILURES:
        return None
    present = {file.rfilename: file for file in info.siblings if file.lfs}
    return next((present[name] for name in weights if name in present), None)


def _transfer(repository: str, file: RepoSibling) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    blob = cache / folder / "blobs" / file.lfs.sha256
    lock = cache / ".locks" / folder / f"{blob.name}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):  # the other processes of this node wait, then find the file
        if blob.exists():
            return
        part = blob.with_name(f"{blob.name}.part")
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        headers = build_hf_headers(headers={"Accept-Encoding": "model_config"})
        with part.open("ab") as sink:
            http_get(hf_hub_url(repository, file.rfilename), sink, resume_size=sink.tell(),
                     headers=headers, expected_size=file.size)  # fmt: skip
            sink.flush()
            os.fsync(sink.fileno())
        if sha256_of(part) != blob.name:
            part.unlink()
            raise UserError(f"{repository}/{file.rfilename} was damaged on the way; run it again")
        part.replace(blob)
