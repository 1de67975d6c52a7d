"""What the tests of missing tables share: a table computed by hand and ways to provoke refusals."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clip.missing.masks import MissingSettings
from clip.utils.errors import UserError

ROOT = Path(__file__).parents[1]
TOY = MissingSettings("toy", "train", 10, "both", 0.7, 0.5, 7)
# Rows by SHA-256 of "toy/train/7/<row>": 1 7 4 5 9 0 8 | 2 3 6; the states alternate, text first.
TOY_TABLE = [2, 1, 0, 0, 1, 2, 0, 2, 1, 1]


def toy(
    size: int = 10,
    missing_type: str = "both",
    ratio: float = 0.7,
    both_ratio: float = 0.5,
    **names: Any,
) -> MissingSettings:
    """Return the toy settings with some of them changed."""
    shares = {"missing_type": missing_type, "ratio": ratio, "both_ratio": both_ratio}
    return replace(TOY, size=size, **shares, **names)


def refusal(function: Callable, *args: Any) -> str:
    """Return the message, one line, with which a call is refused."""
    with pytest.raises(UserError) as caught:
        function(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def python(code: str, *args: Any, **environment: str) -> subprocess.Popen:
    """Start Python on some code in the root of the repository."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def damages(whole: bytes) -> Iterator[bytes]:
    """Yield a file with every cut and with every byte changed."""
    yield from (whole[:length] for length in range(len(whole)))
    yield from (whole[:i] + bytes([whole[i] ^ 0x5A]) + whole[i + 1 :] for i in range(len(whole)))
