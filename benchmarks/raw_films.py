"""Generates raw data of any size laid out as MM-IMDb, with posters of about 20 kB."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from vilt.utils.write_mmimdb import GENRES

POSTERS = 200  # encoded once; the files differ in a comment
WORDS = ["lonely", "hunter", "meets", "queen", "of", "winter", "and", "finds", "an", "old", "town"]


def posters(rng: np.random.Generator) -> list[bytes]:
    """Encode posters of 256 x 384 pixels in about 20 kB each."""
    encoded = []
    for _ in range(POSTERS):
        coarse = Image.fromarray(rng.integers(0, 256, (42, 28, 3), dtype=np.uint8))
        buffer = BytesIO()
        coarse.resize((256, 384), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
        encoded.append(buffer.getvalue())
    return encoded


def generate(root: Path, rows: int) -> None:
    """Write a raw data set; its training split has all but one in ten rows."""
    rng = np.random.default_rng(rows)
    names, images = [f"{row:07d}" for row in range(rows)], posters(rng)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for row, name in enumerate(names):
        image, comment = images[row % POSTERS], name.encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (root / "images" / f"{name}.jpeg").write_bytes(image[:2] + segment + image[2:])
        plot = " ".join(rng.choice(WORDS, 120))
        label = {"plot": [plot], "genres": [GENRES[row % len(GENRES)]]}
        (root / "labels" / f"{name}.json").write_text(json.dumps(label))
    dev, test = rows // 20, rows // 20
    cut = {"train": names[: rows - dev - test], "dev": names[rows - dev - test : rows - test]}
    (root / "split.json").write_text(json.dumps(cut | {"test": names[rows - test :]}))
