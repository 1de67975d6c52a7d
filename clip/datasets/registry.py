"""Registry of the data sets: file names, text column, and the command that makes the files."""

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip.datasets.shards import find_shards, read_label_metadata
from clip.utils.errors import UserError


@dataclass(frozen=True)
class DatasetSpec:
    """One data set."""

    files: dict[str, str]  # split ("train", "val", "test") -> name of its arrow file, without suffix
    text_column: str  # column of the texts, a list of strings per row
    converter: str  # its name for make_arrow.py, and the sub-folder in which others publish its files

    def find(self, data_root: Path, split: str) -> list[Path]:
        """Find a split's arrow file, or all its shards, in ``data_root`` or its sub-folder."""
        for folder in (data_root, data_root / self.converter):
            for name in (self.files[split], split):
                if (folder / f"{name}.arrow").is_file():
                    return [folder / f"{name}.arrow"]
                if shards := find_shards(folder, name):
                    return shards
        if data_root.is_file():
            raise UserError(f"data_root={data_root} is a file; use the folder of the arrow files")
        raise UserError(
            f"data_root={data_root} has no {self.files[split]}.arrow; make it with "
            f"`python make_arrow.py --dataset {self.converter} --root RAW --target {shlex.quote(str(data_root))}`"
        )

    def available_splits(self, data_root: Path) -> list[str]:
        """Return the splits that have all their arrow files in ``data_root`` or its subfolder."""
        available = []
        for split in self.files:
            with suppress(UserError):
                self.find(data_root, split)
                available.append(split)
        return available

    def label_metadata(self, data_root: Path) -> dict[str, Any]:
        """Read the classes and the task type, as ``read_label_metadata``; the files of all splits must agree."""
        paths = [path for split in self.available_splits(data_root) for path in self.find(data_root, split)]
        first, *others = paths or self.find(data_root, "train")
        metadata = read_label_metadata(first)
        for path in others:
            if (other := read_label_metadata(path)) != metadata:
                classes = " and ".join(f"{each.get('class_names')!r:.120}" for each in (other, metadata))
                raise UserError(f"{path} has other classes than {first} ({classes}); make all splits from one data set")
        return metadata


DATASETS = {
    "mmimdb": DatasetSpec({"train": "mmimdb_train", "val": "mmimdb_dev", "test": "mmimdb_test"}, "plots", "mmimdb"),
    "food101": DatasetSpec({"train": "food101_train", "val": "food101_val", "test": "food101_test"}, "text", "food101"),
    "hatememes": DatasetSpec(
        {"train": "hatememes_train", "val": "hatememes_dev", "test": "hatememes_test"}, "text", "hateful_memes"
    ),
    "manifest": DatasetSpec({"train": "train", "val": "val", "test": "test"}, "text", "manifest"),
}
