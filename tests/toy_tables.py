"""Shared by the tests of masks: a mask computed by hand, and helpers."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip.missing.masks import MissingConfig, draw_mask
from clip.utils.errors import UserError

ROOT = Path(__file__).parents[1]
# Rows by SHA-256 of "toy/train/7/<row>": 1 7 4 5 9 0 8 | 2 3 6; the cases alternate, text first.
TOY_MASK = [2, 1, 0, 0, 1, 2, 0, 2, 1, 1]


def toy_config(missing_type: str = "both", ratio: float = 0.7, both_ratio: float = 0.5, seed: int = 7) -> MissingConfig:
    """Return a config with one type and ratio for all splits."""
    splits = ("train", "val", "test")
    return MissingConfig(dict.fromkeys(splits, missing_type), dict.fromkeys(splits, ratio), both_ratio, seed)


def toy_mask(
    rows: int | bytes = 10, *case: Any, dataset: str = "toy", split: str = "train", seed: int = 7
) -> np.ndarray:
    """Draw a mask of complete rows, or of these observed cases, with (type, ratio, both_ratio)."""
    observed = np.frombuffer(bytes(rows), dtype=np.uint8)
    return draw_mask(dataset, split, observed, toy_config(*case, seed=seed))


def refusal(function: Callable, *args: Any) -> str:
    """Return the one-line message of the user error that a call raises."""
    with pytest.raises(UserError) as caught:
        function(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def python(code: str) -> str:
    """Return what Python prints for some code, run in the root of the repository."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def damages(content: bytes) -> Iterator[bytes]:
    """Yield a file with every cut and with every byte changed."""
    yield from (content[:length] for length in range(len(content)))
    yield from (content[:i] + bytes([content[i] ^ 0x5A]) + content[i + 1 :] for i in range(len(content)))
