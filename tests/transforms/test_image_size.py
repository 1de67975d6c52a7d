"""make_arrow.py --image_size: the stored pixels are those that the transform makes of the file."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip.datasets import DATASETS, ArrowDataset
from clip.transforms import ClipTransform
from tests import raw_data
from tests.converter import convert

SIZE = 24
SHAPES = {
    "RGB": (50, 37),
    "CMYK": (31, 44),
    "P": (40, 40),
    "I;16": (33, 29),
    "RGBA": (60, 20),
    "LA": (30, 30),
    "1": (26, 24),
    "L": (1, 1),
    "wide": (2000, 9),
    "tall": (9, 2000),
    "exact": (SIZE, SIZE),
}
FORMATS = {"CMYK": "JPEG", "RGB": "JPEG"}


def noise(mode: str, size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(len(mode) + size[0])
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, size[::-1], dtype=np.uint16))
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    return image.convert(mode if mode in Image.MODES else "RGB")


def tokenize(texts: list[str]) -> torch.Tensor:
    return torch.zeros(len(texts), 77, dtype=torch.long)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same images, one of each kind in the training split, as files and as pixels."""
    base = tmp_path_factory.mktemp("sizes")
    root = raw_data.mmimdb(base / "raw", {"train": len(SHAPES), "dev": 1, "test": 1})
    for number, (kind, size) in enumerate(SHAPES.items()):
        path = root / f"images/{number:07d}.jpeg"
        noise(kind, size).save(path, format=FORMATS.get(kind, "PNG"))
    convert("mmimdb", root, base / "files")
    convert("mmimdb", root, base / "pixels", "--image_size", SIZE)
    return base / "files", base / "pixels"


def train_split(folder: Path) -> ArrowDataset:
    return ArrowDataset(
        folder / "mmimdb_train.arrow",
        text_column=DATASETS["mmimdb"].text_column,
        num_classes=23,
        multilabel=True,
        transform=ClipTransform(SIZE),
        tokenize=tokenize,
    )


def test_samples_are_the_same_bit_for_bit(folders: tuple[Path, Path]) -> None:
    files, pixels = map(train_split, folders)
    assert len(files) == len(pixels) == len(SHAPES)
    for kind, one, other in zip(SHAPES, files, pixels, strict=True):
        assert one["image"].float().std() > 0 or SHAPES[kind] == (1, 1)
        for key in one:
            assert torch.equal(one[key], other[key]), (kind, key)


def test_what_is_stored_is_an_image_of_that_size_with_nothing_to_decode(
    folders: tuple[Path, Path],
) -> None:
    for data in train_split(folders[1]).table.column("image").to_pylist():
        with Image.open(BytesIO(data)) as image:
            assert (image.format, image.mode, image.size) == ("PPM", "RGB", (SIZE, SIZE))
            assert data.endswith(image.tobytes())
        assert len(data) - 3 * SIZE * SIZE == len(f"P6 {SIZE} {SIZE} 255 ")
