"""What make_arrow.py does with raw data that are wrong."""

from pathlib import Path

import pyarrow as pa
from PIL import Image

from tests import raw_data
from tests.converter import convert
from tests.raw_data import draw, write_json


def test_bad_images_are_skipped_counted_and_named(tmp_path: Path) -> None:
    root = raw_data.mmimdb(tmp_path / "raw", {"train": 9, "dev": 1, "test": 1})
    images = root / "images"
    draw(images / "0000000.jpeg", 0, size=(300, 300))
    whole = (images / "0000000.jpeg").read_bytes()
    (images / "0000000.jpeg").write_bytes(whole[: len(whole) // 2])
    (images / "0000001.jpeg").write_bytes(b"")
    (images / "0000002.jpeg").unlink()
    (images / "0000003.jpeg").write_bytes(b"no image at all")
    Image.new("1", (9500, 9500)).save(images / "0000004.jpeg", format="PNG")
    (root / "labels/0000005.json").unlink()
    write_json(root / "labels/0000006.json", {"plot": [" "], "genres": []})
    draw(root / "outside.jpeg", 0)
    names = [f"{number:07d}" for number in range(9)] + ["../outside", "/etc/passwd"]
    write_json(root / "split.json", {"train": names, "dev": ["0000009"], "test": ["0000010"]})
    write_json(root / "outside.json", {"plot": ["x"], "genres": ["Drama"]})

    report = convert("mmimdb", root, tmp_path)

    assert pa.ipc.open_file(tmp_path / "mmimdb_train.arrow").read_all()["image_id"].to_pylist() == [
        "0000007",
        "0000008",
    ]
    assert report.splitlines()[1].split()[:4] == ["train", "2", "15552", "9"]
    for reason in (
        "image cannot be decoded: 2 (0000000.jpeg, 0000003.jpeg)",
        "image is empty: 1 (0000001.jpeg)",
        "image does not exist: 1 (0000002.jpeg)",
        "pixels: 1 (0000004.jpeg)",
        "no label file: 3 (0000005, ../outside, /etc/passwd)",
        "no plot: 1 (0000006)",
    ):
        assert reason in report
