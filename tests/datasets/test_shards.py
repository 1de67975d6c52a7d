"""A split in shards: refused unless whole, and then the same samples and tables as one file."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch.utils.data import default_collate

from clip.datamodules import MissingModalityDataModule, MissingPlan
from clip.datasets import DATASETS
from clip.datasets.shards import open_table
from clip.transforms import ClipTransform
from clip.utils.errors import UserError
from tests.datasets.test_arrow_dataset import SIZE, jpeg, letters, open_dataset, write

ROWS, CUTS = 11, (0, 4, 5, 5, 11)  # one shard of one row, one of none
NAME = "mmimdb_train-{:05d}-of-{:05d}.arrow"
PLOTS = [[f"plot {i}", f"another plot of {i}"][: 1 + i % 2] for i in range(ROWS)]
LABELS = [[i % 2, i // 2 % 2, 1] for i in range(ROWS)]


def write_whole(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    images = [jpeg(20 * i) for i in range(ROWS)]
    ids = [f"{i:03d}" for i in range(ROWS)]
    return write(folder / "mmimdb_train.arrow", PLOTS, LABELS, images, image_id=ids)


def write_shards(folder: Path, whole: Path) -> list[Path]:
    folder.mkdir()
    table, count = open_table(whole), len(CUTS) - 1
    paths = [folder / NAME.format(number, count) for number in range(count)]
    for path, start, stop in zip(paths, CUTS, CUTS[1:], strict=False):
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table.slice(start, stop - start))
    return paths


@pytest.fixture
def cut(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with the whole file and one with its shards."""
    write_shards(tmp_path / "shards", write_whole(tmp_path / "whole"))
    return tmp_path / "whole", tmp_path / "shards"


def module(folder: Path, draw: str) -> MissingModalityDataModule:
    both = dict.fromkeys(("train", "val", "test"), "both")
    plan = MissingPlan(types=both, ratios=dict.fromkeys(both, 0.7), draw=draw)
    return MissingModalityDataModule(
        dataset="mmimdb",
        data_root=str(folder),
        num_classes=3,
        transform=ClipTransform(SIZE),
        tokenize=letters,
        collate=default_collate,
        plan=plan,
        plots="all",
        batch_size=4,
        num_workers=0,
        seed=0,
    )


@pytest.mark.parametrize("draw", ["nested", "stream"])
def test_shards_give_the_samples_and_missing_tables_of_the_whole(cut: tuple[Path, Path], draw: str) -> None:
    for folder in cut:  # the stream of "val" depends on the rows of "train"
        write(folder / "mmimdb_dev.arrow", PLOTS, LABELS)
    whole, shards = (module(folder, draw) for folder in cut)
    for data in (whole, shards):
        data.setup("validate")
        data.setup("fit")
    assert whole.table_hashes == shards.table_hashes
    one, other = whole.datasets["train"], shards.datasets["train"]
    assert {0, 1, 2} == set(one.missing.tolist())
    assert one.row_ids() == other.row_ids() == [f"{i:03d}" for i in range(ROWS)]
    assert len(one) == len(other) == sum(map(len, PLOTS))
    for first, second in zip(one, other, strict=True):
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_shards_are_joined_without_a_copy(cut: tuple[Path, Path]) -> None:
    before = pa.total_allocated_bytes()
    table = open_table(*DATASETS["mmimdb"].find(cut[1], "train"))
    assert table.num_rows == ROWS
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


@pytest.mark.parametrize("absent", [0, 2, 3])
def test_an_absent_shard_is_named(cut: tuple[Path, Path], absent: int) -> None:
    (cut[1] / NAME.format(absent, 4)).unlink()
    with pytest.raises(UserError, match=f"lacks {NAME.format(absent, 4)}"):
        DATASETS["mmimdb"].find(cut[1], "train")


@pytest.mark.parametrize(
    ("more", "message"),
    [((4, 4), "00004-of-00004.arrow is no shard of 4"), ((0, 5), "in 00004 and in 00005 shards")],
)
def test_shards_of_no_one_set_are_refused(cut: tuple[Path, Path], more: tuple[int, int], message: str) -> None:
    (cut[1] / NAME.format(*more)).touch()
    with pytest.raises(UserError, match=message):
        DATASETS["mmimdb"].find(cut[1], "train")


def test_shards_with_different_columns_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.arrow")
    second = write(tmp_path / "b.arrow", labels=[1, 2, 0, 0])
    with pytest.raises(UserError, match=r"b\.arrow has other columns.*label int64.*label list"):
        open_dataset(first, second)


def test_messages_name_the_first_shard(cut: tuple[Path, Path]) -> None:
    paths = DATASETS["mmimdb"].find(cut[1], "train")
    with pytest.raises(UserError, match=r"00000-of-00004\.arrow \(and 3 more shards\): labels of 3"):
        open_dataset(*paths, num_classes=2)
