"""Fetches the arrow files and missing tables of TreezzZ/MoRA-data: resumed, hashed, counted."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers
from tqdm import tqdm

from vilt.utils import arrow, write_food101, write_hatememes, write_mmimdb
from vilt.utils.raw import RawDataError, joined

REPO = "TreezzZ/MoRA-data"
SPLITS = ("train", "val", "test")  # its name for what is called dev elsewhere is val


@dataclass(frozen=True)
class Expected:
    """What the converted files of one data set must hold.

    Args:
        columns: Columns that every file must have.
        rows: Rows of train, val and test.
        tolerance: Share of rows that may be more or fewer.
    """

    columns: frozenset[str]
    rows: tuple[int, int, int]
    tolerance: float = 0.0


def _expected(writer: ModuleType, tolerance: float = 0.0) -> Expected:
    columns = frozenset(writer.SCHEMA.names) - {"image_id"}  # the released memes have none
    return Expected(columns, tuple(writer.PUBLISHED.values()), tolerance)


EXPECTED = {
    "mmimdb": _expected(write_mmimdb),
    # Names without text are dropped, and published train/val cuts differ by up to 0.7 %.
    "food101": _expected(write_food101, tolerance=0.01),
    "hateful_memes": _expected(write_hatememes),
}


def download(target: Path, datasets: Sequence[str]) -> str:
    """Fetches `target/{dataset}/{train,val,test}.arrow` and the missing tables beside them.

    Args:
        target: The folder to write to. A file gets its name there once it is whole and checked;
            a later run keeps such files and goes on with a broken-off one where it stopped.
        datasets: Keys of `EXPECTED`.

    Returns:
        The closing table.

    Raises:
        RawDataError: If the hub cannot be reached or a file is not what is expected.
    """
    try:
        commit, files = _listing(datasets)
        for place, file in tqdm(files.items(), desc=REPO, unit="file", disable=None):
            _fetch(target, place, file, commit)
    except (HTTPError, OSError) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RawDataError(
            f"cannot fetch {REPO} ({cause}); what has arrived is kept: run the same command again"
        ) from None
    return _table(target, files, datasets)


def _listing(datasets: Sequence[str]) -> tuple[str, dict[str, RepoFile]]:
    """Returns the commit and what to fetch from it: place below target → file."""
    api = HfApi()
    commit = api.dataset_info(REPO).sha
    tree = api.list_repo_tree(REPO, recursive=True, revision=commit, repo_type="dataset")
    files = {}
    for file in tree:
        folder, *rest = PurePosixPath(file.path).parts
        # The folder of Food-101 is called Food101 there.
        wanted = rest and folder.lower() in datasets and file.path.endswith((".arrow", ".pt"))
        if isinstance(file, RepoFile) and wanted:
            files["/".join([folder.lower(), *rest])] = file
    absent = [f"{d}/{s}.arrow" for d in datasets for s in SPLITS if f"{d}/{s}.arrow" not in files]
    if absent:
        raise RawDataError(f"{REPO} has no {', '.join(absent)} (any more), at commit {commit}")
    return commit, files


def _fetch(target: Path, place: str, file: RepoFile, commit: str) -> None:
    path = joined(target, place)
    if path is None:
        raise RawDataError(f"{REPO} lists {file.path}, which leads out of {target}")
    if not path.exists() or path.stat().st_size != file.size:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Named after the content: a file that has changed on the hub is never continued.
        part = path.with_name(f"{path.name}.{file.blob_id[:12]}.part")
        _transfer(part, file, commit)
        _check(part, place)
        part.replace(path)


def _transfer(part: Path, file: RepoFile, commit: str) -> None:
    """Appends what is missing to part and checks the hash.

    The client's own download functions throw a broken-off file away, some of 5 GB here.
    """
    url = hf_hub_url(REPO, file.path, repo_type="dataset", revision=commit)
    headers = build_hf_headers(headers={"Accept-Encoding": "model_config"})
    if part.exists() and part.stat().st_size > file.size:
        part.unlink()
    with part.open("ab") as sink:
        http_get(url, sink, resume_size=sink.tell(), headers=headers, expected_size=file.size)
        sink.flush()
        os.fsync(sink.fileno())
    if _digest(part, file) != (file.lfs.sha256 if file.lfs else file.blob_id):
        part.unlink()
        raise RawDataError(f"{file.path} was damaged on the way; the same command fetches it again")


def _digest(part: Path, file: RepoFile) -> str:
    """The hash the hub lists: of the content, or git's where the file is no large file."""
    start = hashlib.sha256() if file.lfs else hashlib.sha1(b"blob %d\0" % file.size)
    with part.open("rb") as content:
        return hashlib.file_digest(content, lambda: start).hexdigest()


def _check(path: Path, place: str) -> None:
    dataset, _, name = place.partition("/")
    if name in (f"{split}.arrow" for split in SPLITS):
        check_rows(path, dataset, name.removesuffix(".arrow"), EXPECTED)


def check_rows(path: Path, dataset: str, split: str, table: Mapping[str, Expected]) -> int:
    """Checks the columns and the number of rows of an arrow file and returns the number.

    Args:
        path: The file.
        dataset: Which row of the table.
        split: One of `SPLITS`.
        table: What is expected of each data set.

    Raises:
        RawDataError: If the file is not as expected; the message holds both numbers.
    """
    expected = table[dataset]
    rows, wanted = arrow.check_arrow(path, expected.columns), expected.rows[SPLITS.index(split)]
    if abs(rows - wanted) > expected.tolerance * wanted:
        raise RawDataError(
            f"{path} has {rows} rows, the published {dataset} {split} has {wanted}; "
            "not used: convert the raw data instead (--dataset, --root)"
        )
    return rows


def _table(target: Path, places: Iterable[str], datasets: Sequence[str]) -> str:
    lines = [f"{'file':28} {'rows':>8} {'published':>9}"]
    for dataset in datasets:
        for split, wanted in zip(SPLITS, EXPECTED[dataset].rows, strict=True):
            place = f"{dataset}/{split}.arrow"
            rows = check_rows(target / place, dataset, split, EXPECTED)
            lines.append(f"{place:28} {rows:8} {wanted:9}")
        masks = sum(p.startswith(f"{dataset}/") and p.endswith(".pt") for p in places)
        lines.append(f"{dataset + '/**/*.pt':28} {masks:8} files")
    lines.append("The licences of the data are yours to hold; DATA.md names the sources.")
    return "\n".join(lines)
