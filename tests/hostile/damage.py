"""Hypothesis strategies that damage a valid file, at random or inside its structure."""

import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

WORDS = ["", "\0", "../../secret.png", "/etc/passwd", "NaN", "\ud83d", "a|b", "\x1b[2J", "9" * 5000, "x" * 70_000]
NUMBERS = [0, -1, 1, 255, 2**31, 2**63, 10**400, 1e308, float("inf"), float("nan"), 0.5]
VALUES = st.sampled_from([None, True, {}, [], {"a": {}}, [None], [["a"]], *WORDS, *NUMBERS])
PATCHES = [b"", b"\0" * 300, b"\xef\xbb\xbf", b"\xff\xfe", b'"', b",", b"\n", b"[" * 3000, b"9" * 5000, b"\\ud83d"]
PATCHES += [struct.pack(form, n) for form in ("<i", ">i", "<q") for n in (0, 1, -1, 2**15, 2**31 - 1, -(2**31))]


@st.composite
def damaged(draw: st.DrawFn, suffix: str, data: bytes) -> bytes:
    """Draw a damaged version of a valid file of this kind."""
    if suffix in STRUCTURED and draw(st.booleans()):
        return STRUCTURED[suffix](draw, data)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.sampled_from([start, start + 1, start + 4, start + 8, start + 64, len(data)]))
        data = data[:start] + draw(st.sampled_from(PATCHES) | st.binary(max_size=4)) + data[stop:]
    return data


def change_value(draw: st.DrawFn, content: Any) -> Any:
    """Replace, remove or rename one part of a nested value."""
    part = root = {"root": copy.deepcopy(content)}
    while True:
        key = draw(st.sampled_from(list(part) if isinstance(part, dict) else range(len(part))))
        if not isinstance(part[key], dict | list) or not part[key] or draw(st.integers(0, 4)) == 0:
            break
        part = part[key]
    change = "replace" if part is root else draw(st.sampled_from(["replace", "remove", "rename"]))
    if change == "replace":
        part[key] = draw(VALUES)
    elif change == "rename" and isinstance(part, dict):
        part[draw(st.sampled_from(WORDS))] = part.pop(key)
    else:
        del part[key]
    return root["root"]


def change_json(draw: st.DrawFn, data: bytes) -> bytes:
    text = json.dumps(change_value(draw, json.loads(data)), ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


def change_jsonl(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    return b"\n".join([*lines[:at], change_json(draw, lines[at]), *lines[at + 1 :]])


def rewrite_zip(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """Change the entries of an archive and write valid checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()


def change_zip(draw: st.DrawFn, data: bytes) -> bytes:
    return rewrite_zip(data, lambda _, content: draw(st.just(content) | damaged("", content)))


STRUCTURED = {".json": change_json, ".yaml": change_json, ".jsonl": change_jsonl, ".pt": change_zip, ".npz": change_zip}
