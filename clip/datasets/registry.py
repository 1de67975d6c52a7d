"""What differs between the data sets: file names, text column, and the command that makes them."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip.datasets.shards import find_shards, read_facts
from clip.utils.errors import UserError


@dataclass(frozen=True)
class DatasetSpec:
    """One data set.

    Attributes:
        files: split ("train", "val", "test") -> what the name of its arrow file begins with.
        text_column: the column of texts, a list of strings a row.
        folder: sub-folder in which others publish its files.
        converter: its name for make_arrow.py.
    """

    files: dict[str, str]
    text_column: str
    folder: str
    converter: str

    def find(self, data_root: Path, split: str) -> list[Path]:
        """Find a split's arrow file, or all its shards, in ``data_root`` or its sub-folder.

        Raises:
            UserError: it is in none of these places, under neither name, or a shard is absent; the
                message has the command that makes it, or the shard.
        """
        names = (self.files[split], split)
        for folder in (data_root, data_root / self.folder):
            for name in names:
                if (folder / f"{name}.arrow").is_file():
                    return [folder / f"{name}.arrow"]
                if shards := find_shards(folder, name):
                    return shards
        if data_root.is_file():
            raise UserError(f"data_root={data_root} is a file; give the folder of the arrow files")
        raise UserError(
            f"data_root={data_root} has no {names[0]}.arrow; make it with "
            f"`python make_arrow.py --dataset {self.converter} --root RAW --target {data_root}`"
        )

    def available_splits(self, data_root: Path) -> list[str]:
        """Return the splits that have all their arrow files in ``data_root`` or its subfolder."""
        available = []
        for split in self.files:
            with suppress(UserError):
                self.find(data_root, split)
                available.append(split)
        return available

    def require_any(self, data_root: Path) -> None:
        """Check that a folder has at least one split, before minutes go into loading weights.

        Raises:
            UserError: as ``find`` for the training split.
        """
        if not self.available_splits(data_root):
            self.find(data_root, "train")

    def label_metadata(self, data_root: Path) -> dict[str, Any]:
        """Read what the files of a data set say of its labels, as ``shards.read_facts``.

        Nothing where there are no files yet: opening them has the message for that.

        Raises:
            UserError: two of the files say different things.
        """
        first: tuple[Path, dict[str, Any]] | None = None
        for split in self.files:
            try:
                paths = self.find(data_root, split)
            except UserError:
                continue
            for path in paths:
                said = read_facts(path)
                first = first or (path, said)
                if said != first[1]:
                    raise UserError(
                        f"{path} has other classes than {first[0]}; make all splits from one data "
                        f"set ({differing(said, first[1])})"
                    )
        return first[1] if first else {}


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Say how two files name their classes, shortly."""
    return " and ".join(f"{said.get('class_names')!r:.120}" for said in (ours, theirs))


DATASETS = {
    "mmimdb": DatasetSpec(
        {"train": "mmimdb_train", "val": "mmimdb_dev", "test": "mmimdb_test"},
        text_column="plots",
        folder="mmimdb",
        converter="mmimdb",
    ),
    "food101": DatasetSpec(
        {"train": "food101_train", "val": "food101_val", "test": "food101_test"},
        text_column="text",
        folder="food101",
        converter="food101",
    ),
    "hatememes": DatasetSpec(
        {"train": "hatememes_train", "val": "hatememes_dev", "test": "hatememes_test"},
        text_column="text",
        folder="hateful_memes",
        converter="hateful_memes",
    ),
    "manifest": DatasetSpec(
        {"train": "train", "val": "val", "test": "test"},
        text_column="text",
        folder="manifest",
        converter="manifest",
    ),
}
