"""What goes into an arrow file: safe paths, images byte for byte, bounded batches, all splits or none."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clip.utils.errors import UserError
from tests.raw_data import draw
from vilt.utils import arrow
from vilt.utils.image_pool import ImagePool
from vilt.utils.raw import PendingRow, Row, Skip, read_row, resolve_inside

SCHEMA = arrow.schema(text=arrow.TEXTS, label=arrow.CLASS)
MEGABYTE = 1 << 20
ROWS = 100


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", "link/secret.png", "a/../../secret.png", "a\0b"])
def test_a_path_out_of_the_data_folder_is_never_read(tmp_path: Path, name: str) -> None:
    draw(tmp_path / "secret.png", 1)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/link").symlink_to(tmp_path)
    assert resolve_inside(tmp_path / "raw", name) is None
    assert isinstance(read_row(PendingRow(tmp_path / "raw", name, {}))[0], Skip)


def test_an_absolute_path_inside_the_folder_is_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1)
    name = str(tmp_path / "a.png")
    assert read_row(PendingRow(tmp_path, name, {}))[0]["image"] == (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize("mode", ["CMYK", "P", "I;16", "L", "RGBA", "1"])
def test_unusual_images_are_kept_byte_for_byte(tmp_path: Path, mode: str) -> None:
    draw(tmp_path / "a.tiff", 7, "L" if mode == "I;16" else mode, size=(1, 1))
    if mode == "I;16":
        Image.fromarray(np.array([[40000]], np.uint16)).save(tmp_path / "a.tiff")
    rows = read_row(PendingRow(tmp_path, "a.tiff", {"label": 1}))
    assert rows == [{"image": (tmp_path / "a.tiff").read_bytes(), "label": 1}]


def rows(image_bytes: int) -> Iterator[Row]:
    for number in range(ROWS):
        row = {"image": bytes([number]) * image_bytes, "text": ["t"], "label": number}
        yield row | {"image_id": str(number), "split": "train"}


def test_memory_and_record_batches_are_bounded(tmp_path: Path) -> None:
    path, held = tmp_path / "big.arrow", []

    def watched() -> Iterator[Row]:
        for row in rows(MEGABYTE):
            held.append(pa.total_allocated_bytes() + tracemalloc.get_traced_memory()[0])
            yield row

    tracemalloc.start()
    written = arrow.write_arrow(path, SCHEMA, watched())
    tracemalloc.stop()

    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    sizes = [reader.get_batch(i).nbytes for i in range(reader.num_record_batches)]
    assert written == ROWS
    assert max(sizes) <= arrow.BATCH_BYTES + MEGABYTE
    assert max(held) <= 4 * arrow.BATCH_BYTES < ROWS * MEGABYTE
    assert reader.read_all()["label"].to_pylist() == list(range(ROWS))


def test_an_image_larger_than_a_batch_fits(tmp_path: Path) -> None:
    row = next(rows(arrow.BATCH_BYTES + 1))
    assert arrow.write_arrow(tmp_path / "a.arrow", SCHEMA, [row, row]) == 2
    assert pa.ipc.open_file(tmp_path / "a.arrow").read_all().num_rows == 2


@pytest.mark.parametrize("failure", [OSError("the disk is gone"), Skip("no label", "b")])
def test_a_failure_in_any_split_keeps_all_earlier_files(tmp_path: Path, failure: OSError | Skip) -> None:
    """Otherwise a row that moved from test to train would be in both."""

    row = PendingRow(tmp_path, "", {"text": ["t"], "label": 0, "image_id": "1", "split": "s"})

    def pending_row(split: str, item: PendingRow | Skip | OSError) -> PendingRow | Skip:
        if isinstance(item, OSError):
            raise item
        return item

    def convert(second: object) -> None:
        splits = {"train": [row], "test": [second]}
        arrow.convert(tmp_path / "out", "", SCHEMA, splits, pending_row, {}, ImagePool())

    convert(row)
    earlier = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises((OSError, UserError)):
        convert(failure)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == earlier
    assert set(earlier) == {"train.arrow", "test.arrow"}
