"""What make_arrow.py does with raw data that are wrong."""

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from clip import pixels
from tests import raw_data
from tests.converter import BUILD, ROOT, convert, refuse
from tests.raw_data import draw, write_json, write_lines
from vilt.utils import raw


def test_a_strange_label_is_named_by_its_line(tmp_path: Path) -> None:
    root = raw_data.hateful_memes(tmp_path / "raw")
    meme = {"img": "img/00000.png", "text": "", "label": 2}
    write_lines(root / "dev.jsonl", [meme | {"label": 1}, meme])
    assert "dev.jsonl line 2 has the label 2" in refuse("hateful_memes", root, tmp_path)


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
        "image is unreadable: 2 (0000000.jpeg, 0000003.jpeg)",
        "image is empty: 1 (0000001.jpeg)",
        "image is absent: 1 (0000002.jpeg)",
        "pixels: 1 (0000004.jpeg)",
        "label file is absent: 3 (0000005, ../outside, /etc/passwd)",
        "no plot: 1 (0000006)",
    ):
        assert reason in report


def test_a_kind_of_image_that_nobody_asked_for_is_not_opened() -> None:
    """Pillow has decoders that start other programs; this one only stands for them."""
    buffer = BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "TGA")
    with pytest.raises(raw.BadImage):
        raw.stored(buffer.getvalue(), None)
    assert raw.FORMATS == pixels.FORMATS


def drop_label_key(root: Path) -> None:
    write_json(root / "labels/0000004.json", {"genres": ["Drama"]})


def break_label(root: Path) -> None:
    (root / "labels/0000004.json").write_text('{"plot": ')


def break_split(root: Path) -> None:
    (root / "split.json").write_text("[")


def drop_split(root: Path) -> None:
    write_json(root / "split.json", {"train": [], "test": []})


def drop_images(root: Path) -> None:
    (root / "images").rename(root / "posters")


def empty_dev_images(root: Path) -> None:
    for name in ("0000004", "0000005"):
        (root / "images" / f"{name}.jpeg").write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (drop_label_key, "0000004.json has no text or list of texts under 'plot'"),
        (break_label, "0000004.json is not valid JSON"),
        (break_split, "split.json is not valid JSON"),
        (drop_split, "no list of names under 'dev'"),
        (drop_images, "has no images; see DATA.md"),
        (empty_dev_images, "mmimdb_dev.arrow: image is empty: 2"),
    ],
)
def test_a_failing_run_leaves_the_earlier_file_alone(
    tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    root, target = raw_data.mmimdb(tmp_path / "raw"), tmp_path / "out"
    target.mkdir()
    (target / "mmimdb_dev.arrow").write_bytes(b"the earlier file")
    harm(root)
    assert message in refuse("mmimdb", root, target)
    assert (target / "mmimdb_dev.arrow").read_bytes() == b"the earlier file"


@pytest.mark.parametrize("dataset", BUILD)
def test_an_empty_folder_is_refused(tmp_path: Path, dataset: str) -> None:
    assert "see DATA.md" in refuse(dataset, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--dataset", "flowers", "--root", "r"], ", ".join(BUILD)),
        (["--dataset", "mmimdb"], "--dataset and --root are required"),
        (["--download", "--root", "r"], "leave --root and --image_size out"),
        (["--download", "--image_size", "8"], "leave --root and --image_size out"),
        (["--download", "--dataset", "manifest"], "for manifest give --root"),
        (["--dataset", "mmimdb", "--root", "r", "--seed", "1"], "--seed are for manifest"),
        (["--dataset", "manifest", "--root", "r", "--shares", "1", "2"], "expected 3 arguments"),
        (["--dataset", "manifest", "--root", "r", "--shares", ".5", ".5", ".5"], "sum to 1.5"),
        (["--dataset", "manifest", "--root", "r", "--shares", "1", "0", "0"], "between 0 and 1"),
        (["--image_size", "0"], "0: give a whole number from 1 on"),
        (["--num_workers", "-1"], "-1: give a whole number from 0 on"),
    ],
)
def test_a_wrong_command_line_says_what_is_right(args: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "make_arrow.py", "--target", "t", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert message in done.stderr.replace("'", "")
