"""A split in shards: found complete and in order, and joined without a copy."""

from pathlib import Path

import pyarrow as pa
import pytest

from clip.datasets import DATASETS
from clip.datasets.shards import open_table
from clip.utils.errors import UserError
from tests.datasets.test_arrow_dataset import open_dataset, write

NAME = "mmimdb_train-{:05d}-of-{:05d}.arrow"
CUTS = (0, 40, 50, 50, 110)  # one shard of no row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with four shards."""
    for number, (start, stop) in enumerate(zip(CUTS, CUTS[1:], strict=False)):
        table = pa.table(
            {"image": [b"i" * 100] * 110, "plots": [["p"]] * 110, "label": [[i % 2, 1] for i in range(110)]}
        )
        with pa.ipc.new_file(tmp_path / NAME.format(number, 4), table.schema) as writer:
            writer.write_table(table.slice(start, stop - start))
    return tmp_path


def test_shards_are_joined_without_a_copy(folder: Path) -> None:
    before = pa.total_allocated_bytes()
    table = open_table(*DATASETS["mmimdb"].find(folder, "train"))
    assert table.num_rows == 110
    assert pa.total_allocated_bytes() - before < 1000 < table.nbytes


def test_shards_are_found_in_order_under_either_name(tmp_path: Path) -> None:
    for place in ("mmimdb_train", "mmimdb/val"):
        paths = [tmp_path / f"{place}-{i:05d}-of-00012.arrow" for i in range(12)]
        for path in reversed(paths):
            path.parent.mkdir(exist_ok=True)
            path.touch()
        split = place.rpartition("_")[2].rpartition("/")[2]
        assert DATASETS["mmimdb"].find(tmp_path, split) == paths
    (tmp_path / "mmimdb_train.arrow").touch()
    assert DATASETS["mmimdb"].find(tmp_path, "train") == [tmp_path / "mmimdb_train.arrow"]


@pytest.mark.parametrize("missing", [0, 2, 3])
def test_a_missing_shard_is_named(folder: Path, missing: int) -> None:
    (folder / NAME.format(missing, 4)).unlink()
    with pytest.raises(UserError, match=NAME.format(missing, 4)):
        DATASETS["mmimdb"].find(folder, "train")


@pytest.mark.parametrize(("more", "word"), [((4, 4), "00004-of-00004.arrow"), ((0, 5), "00005")])
def test_shards_of_two_sets_are_refused(folder: Path, more: tuple[int, int], word: str) -> None:
    (folder / NAME.format(*more)).touch()
    with pytest.raises(UserError, match=word):
        DATASETS["mmimdb"].find(folder, "train")


def test_shards_with_other_columns_and_labels_are_named(tmp_path: Path, folder: Path) -> None:
    first, second = write(tmp_path / "a.arrow"), write(tmp_path / "b.arrow", labels=[1, 2, 0, 0])
    with pytest.raises(UserError, match=r"b\.arrow .*label int64.*label list"):
        open_dataset(first, second)
    paths = DATASETS["mmimdb"].find(folder, "train")
    with pytest.raises(UserError, match=r"00000-of-00004\.arrow \(and 3 more shards\)"):
        open_dataset(*paths)


def test_a_folder_without_files_names_the_command_and_other_classes_both_files(tmp_path: Path) -> None:
    spec = DATASETS["hatememes"]
    for call in (lambda: spec.find(tmp_path, "val"), lambda: spec.label_metadata(tmp_path)):
        with pytest.raises(UserError, match=r"make_arrow\.py --dataset hateful_memes"):
            call()
    schema = pa.table({"label": [0]}).schema
    for split, classes in (("train", '["a", "b"]'), ("test", '["a", "c"]')):
        metadata = {"class_names": classes, "task_type": "binary"}
        with pa.ipc.new_file(tmp_path / f"{split}.arrow", schema.with_metadata(metadata)):
            pass
        if split == "train":
            assert spec.label_metadata(tmp_path) == {"class_names": ["a", "b"], "task_type": "binary"}
    with pytest.raises(UserError, match=r"test\.arrow .*train\.arrow"):
        spec.label_metadata(tmp_path)
