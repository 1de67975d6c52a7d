"""Download the arrow files and missing tables published by the authors of MoRA."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError

from clip.utils.errors import UserError
from vilt.utils import write_food101, write_hatememes, write_mmimdb

REPOSITORY = "TreezzZ/MoRA-data"
SPLITS = ("train", "val", "test")
FOLDERS = {"mmimdb": "mmimdb", "food101": "Food101", "hateful_memes": "hateful_memes"}
CONVERTERS = {"mmimdb": write_mmimdb, "food101": write_food101, "hateful_memes": write_hatememes}
TOLERANCE = {"food101": 0.01}  # names without text are dropped, and published train/val cuts differ by up to 0.7 %


def download(target: Path, datasets: Sequence[str]) -> str:
    """Download ``target/{dataset}/{train,val,test}.arrow`` with missing tables and return the summary table."""
    patterns = [f"{FOLDERS[dataset]}/*.{ending}" for dataset in datasets for ending in ("arrow", "pt")]
    try:
        snapshot_download(REPOSITORY, repo_type="dataset", local_dir=target, allow_patterns=patterns)
    except (HTTPError, OSError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"cannot download {REPOSITORY} ({reason}); run the same command again to continue") from None
    lines = [f"{'file':28} {'rows':>8} {'published':>9}"]
    for dataset in datasets:
        if not (target / dataset).exists() and (target / FOLDERS[dataset]).exists():
            (target / dataset).symlink_to(FOLDERS[dataset])  # not renamed: the next run would download it again
        for split, published in zip(SPLITS, CONVERTERS[dataset].PUBLISHED.values(), strict=True):
            path = target / dataset / f"{split}.arrow"
            try:
                with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                    rows = reader.count_rows()
            except (pa.ArrowException, OSError, ValueError) as error:
                raise UserError(f"{path} is not an arrow file ({error}); delete it and download it again") from None
            if abs(rows - published) > TOLERANCE.get(dataset, 0) * published:
                raise UserError(f"{path} has {rows} rows instead of {published}; convert the raw data instead (--root)")
            lines.append(f"{f'{dataset}/{split}.arrow':28} {rows:8} {published:9}")
    return "\n".join([*lines, "You are responsible for the licences of the data; DATA.md names the sources."])
