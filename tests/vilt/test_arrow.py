"""What goes into an arrow file: safe paths, images as they are, bounded batches."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.raw_data import draw
from vilt.utils import arrow
from vilt.utils.raw import RawDataError, Row, Skipped, with_image

SCHEMA = arrow.schema(text=arrow.TEXTS, label=arrow.CLASS)
MEGABYTE = 1 << 20
ROWS = 100


@pytest.mark.parametrize("img", ["../secret.png", "/secret.png", "img\\..\\..\\secret.png"])
def test_a_path_out_of_the_data_is_never_read(tmp_path: Path, img: str) -> None:
    draw(tmp_path / "secret.png", 1)
    row = with_image(tmp_path / "raw", img, {})
    assert row == Skipped("path leads out of the data folder", img)


@pytest.mark.parametrize("mode", ["CMYK", "P", "I;16", "L", "RGBA", "1"])
def test_unusual_images_are_kept_byte_for_byte(tmp_path: Path, mode: str) -> None:
    draw(tmp_path / "a.tiff", 7, "L" if mode == "I;16" else mode, size=(1, 1))
    if mode == "I;16":
        Image.fromarray(np.array([[40000]], np.uint16)).save(tmp_path / "a.tiff")
    row = with_image(tmp_path, "a.tiff", {"label": 1})
    assert row == {"image": (tmp_path / "a.tiff").read_bytes(), "label": 1}


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
    counts = arrow.write_arrow(path, SCHEMA, watched())
    tracemalloc.stop()

    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    sizes = [reader.get_batch(i).nbytes for i in range(reader.num_record_batches)]
    assert counts.written == ROWS
    assert max(sizes) <= arrow.BATCH_BYTES + MEGABYTE
    assert max(held) <= 4 * arrow.BATCH_BYTES < ROWS * MEGABYTE
    assert reader.read_all()["label"].to_pylist() == list(range(ROWS))


def test_an_image_larger_than_a_batch_still_fits(tmp_path: Path) -> None:
    row = next(rows(arrow.BATCH_BYTES + 1))
    assert arrow.write_arrow(tmp_path / "a.arrow", SCHEMA, [row, row]).written == 2
    assert arrow.check_arrow(tmp_path / "a.arrow", SCHEMA.names) == 2


def test_an_exception_in_the_middle_keeps_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    arrow.write_arrow(path, SCHEMA, rows(1))
    earlier = path.read_bytes()

    def failing() -> Iterator[Row]:
        yield from rows(MEGABYTE)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        arrow.write_arrow(path, SCHEMA, failing())
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_cut_short_or_without_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    arrow.write_arrow(path, SCHEMA, rows(1))
    with pytest.raises(RawDataError, match="no column genres, plots"):
        arrow.check_arrow(path, ["image", "plots", "genres"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RawDataError, match="not an arrow file"):
        arrow.check_arrow(path, ["image"])
