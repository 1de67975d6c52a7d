"""CLIP's transform against OpenAI's own result, and images that others forget."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip.transforms import ClipTransform

DATA = Path(__file__).parents[1] / "data"
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def test_equals_openais_preprocessing():
    """The stored result is OpenAI's tensor brought back to bytes, which loses nothing."""
    stored = np.asarray(Image.open(DATA / "franz-kafka-224.png"))
    wanted = (torch.from_numpy(stored.copy()).permute(2, 0, 1).float() / 255 - MEAN) / STD
    transform = ClipTransform(224)
    found = transform.normalize(transform(Image.open(DATA / "franz-kafka.jpg")))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("size", [(1, 1), (9, 4), (4, 9), (5, 2000)])
def test_any_mode_and_shape_gives_an_image(mode, size):
    found = ClipTransform(32)(Image.new(mode, size, 60))
    assert found.shape == (3, 32, 32)
    assert found.dtype == torch.uint8
    assert ClipTransform.normalize(found).isfinite().all()


def test_sixteen_bits_keep_their_brightness():
    bright = Image.fromarray(np.full((8, 8), 65535, dtype=np.uint16))
    half = Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16))
    assert ClipTransform(8).pixels(bright).min() == 255
    assert 126 <= ClipTransform(8).pixels(half).min() <= 129
