"""Hostile versions of good files: a seeded mutator that knows what a file is made of.

Each kind of file has mutations of its own, which keep its outer form and lie inside it; those of
plain bytes go over all.
"""

import copy
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

WORDS = ["", " ", "\0", "a\0b", "../../secret.png", "/etc/passwd", "C:\\x", "a:b.jpg", "NaN",
         "x" * 70_000, "\ufeff", "\ud83d", "|", "a|b", "é" * 300, "img/\n", "٣",
         "1" * 5000]  # fmt: skip
NUMBERS = [0, -1, 1, 255, 2**31, 2**63, 10**400, 1e308, float("inf"), float("nan"), 0.5, -0.0]
INTS = [0, 1, -1, 127, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**62]
BYTES = [b"\0", b"\0" * 300, b"\xef\xbb\xbf", b"\xff\xfe", b"\xff", b"\xed\xa0\xbd", b'"', b",",
         b"\n", b"\r", b"[" * 3000, b"{" * 900, b"9" * 5000, b"A" * 40_000, b"\\ud83d"]  # fmt: skip


def mutated(name: str, data: bytes, others: list[bytes], rng: Random) -> bytes:
    """Spoil a file.

    Args:
        name: its name; the ending says what it is made of.
        data: a good file.
        others: more of the kind, to splice with.
        rng: all chance comes from here.
    """
    own = KINDS.get(Path(name).suffix)
    if own and rng.random() < 0.7:
        try:
            data = own(data, rng)
        except (ValueError, KeyError, IndexError, struct.error, zipfile.BadZipFile):
            return spoiled(data, others, rng)
        if rng.random() < 0.7:
            return data
    return spoiled(data, others, rng)


def spoiled(data: bytes, others: list[bytes], rng: Random) -> bytes:
    """Spoil bytes of no known meaning, in a few places."""
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data = rng.choice(SPOILERS)(data, others, rng)
    return data


def _flip(data: bytes, _: list[bytes], rng: Random) -> bytes:
    out = bytearray(data or b"\0")
    out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(data: bytes, _: list[bytes], rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(data: bytes, _: list[bytes], rng: Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randrange(1, 64) :]


def _splice(data: bytes, others: list[bytes], rng: Random) -> bytes:
    other = rng.choice(others or [data])
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _insert(data: bytes, _: list[bytes], rng: Random) -> bytes:
    where = rng.choice((0, len(data), rng.randrange(len(data) + 1)))
    return data[:where] + rng.choice(BYTES) + data[where:]


def _number(data: bytes, _: list[bytes], rng: Random) -> bytes:
    form = rng.choice(("<i", ">i", "<q", ">q", "<h", ">h"))
    size = struct.calcsize(form)
    if len(data) < size:
        return data
    where = rng.randrange(len(data) - size + 1)
    value = rng.choice(INTS) & (2 ** (8 * size) - 1)
    return data[:where] + struct.pack(form.upper(), value) + data[where + size :]


def _encoding(data: bytes, _: list[bytes], rng: Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-32", "latin-1", "utf-8-sig", "cp037")), "replace")


SPOILERS: list[Callable[[bytes, list[bytes], Random], bytes]] = [
    _flip, _flip, _cut, _drop, _splice, _insert, _number, _number, _encoding]  # fmt: skip


def odd(rng: Random) -> Any:
    """Draw a value that a file of JSON rarely holds."""
    deep: Any = []
    if rng.random() < 0.1:
        for _ in range(rng.choice((50, 500))):
            deep = [deep]
    return rng.choice([None, True, False, deep, {}, {"a": {}}, [None], [["a"]], [1, "a"],
                       rng.choice(NUMBERS), rng.choice(NUMBERS), rng.choice(WORDS),
                       rng.choice(WORDS), rng.choice(WORDS)])  # fmt: skip


def odd_inside(content: Any, rng: Random) -> Any:
    """Replace, drop, repeat or rename one part of a JSON value."""
    content = copy.deepcopy(content)
    place, key = None, None
    node = content
    while isinstance(node, dict | list) and node and (place is None or rng.random() < 0.8):
        place, key = node, rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = node[key]
    if place is None or rng.random() < 0.05:
        return odd(rng)
    kind = rng.randrange(5)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[rng.choice(WORDS)] = place.pop(key)
    elif kind == 1:
        place.insert(key, copy.deepcopy(place[key]))
    else:
        place[key] = odd(rng)
    return content


def _json(data: bytes, rng: Random) -> bytes:
    return _dumped(odd_inside(json.loads(data), rng), rng)


def _dumped(content: Any, rng: Random) -> bytes:
    return json.dumps(content, ensure_ascii=rng.random() < 0.7).encode("utf-8", "surrogatepass")


def _jsonl(data: bytes, rng: Random) -> bytes:
    lines = data.splitlines()
    where = rng.randrange(len(lines))
    lines[where] = _json(lines[where], rng)
    return rng.choice((b"\n", b"\n", b"\r\n", b"\n\n")).join(lines)


def _csv(data: bytes, rng: Random) -> bytes:
    rows = [line.split(b",") for line in data.split(b"\n")]
    row = rng.choice(rows)
    where = rng.randrange(len(row))
    cell = str(odd(rng)).encode("utf-8", "surrogatepass")
    kind = rng.randrange(4)
    if kind == 0:
        del row[where]
    elif kind == 1:
        row.insert(where, rng.choice(row))
    else:
        row[where] = b'"' + cell.replace(b'"', b'""') + b'"' if kind == 2 else cell
    return b"\n".join(b",".join(row) for row in rows)


def _zip(data: bytes, rng: Random) -> bytes:
    """Write an archive again with one entry spoiled, or one size in its directory a lie."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    chosen = rng.randrange(len(entries))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as new:
        for number, (entry, content) in enumerate(entries):
            name = entry.filename
            if number == chosen:
                content = spoiled(content, [], rng)
                name = name if rng.random() < 0.8 else rng.choice(("../" + name, name + "x", "/a"))
            new.writestr(name, content)
    if rng.random() < 0.3:
        return _declared(out.getvalue(), rng)
    return out.getvalue()


def _declared(data: bytes, rng: Random) -> bytes:
    head = data.find(b"PK\x01\x02")  # of the directory: packed size at 20, unpacked at 24
    size = struct.pack("<I", rng.choice((0, 1, 2**31, 2**32 - 2)))
    where = head + rng.choice((20, 24))
    return data[:where] + size + data[where + 4 :]


def _safetensors(data: bytes, rng: Random) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    head = _dumped(odd_inside(json.loads(data[8 : 8 + length]), rng), rng)
    said = len(head) if rng.random() < 0.8 else rng.choice((0, 2**63, 10**8, len(data)))
    return struct.pack("<Q", said) + head + data[8 + length :]


def _numbers(data: bytes, rng: Random) -> bytes:
    for _ in range(rng.choice((1, 2, 8))):
        data = _number(data, [], rng)
    return data


SIDES = (0, 1, 30_000, 65_535, 2**31 - 1, 2**32 - 1)


def _png(data: bytes, rng: Random) -> bytes:
    head = bytearray(data[12:29])  # IHDR and its 13 bytes
    head[4:12] = struct.pack(">II", rng.choice(SIDES), rng.choice(SIDES))
    if rng.random() < 0.5:
        head[12 + rng.randrange(5)] = rng.randrange(256)
    return data[:12] + bytes(head) + struct.pack(">I", zlib.crc32(head)) + data[33:]


def _jpeg(data: bytes, rng: Random) -> bytes:
    frame = next(i for i in range(len(data)) if data[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    sides = struct.pack(">HH", *(rng.choice(SIDES[:4]) for _ in range(2)))
    return data[: frame + 5] + sides + data[frame + 9 :]


def _gif(data: bytes, rng: Random) -> bytes:
    sides = struct.pack("<HH", *(rng.choice(SIDES[:4]) for _ in range(2)))
    return data[:6] + sides + data[10:]


def _bmp(data: bytes, rng: Random) -> bytes:
    return data[:18] + struct.pack("<II", rng.choice(SIDES), rng.choice(SIDES)) + data[26:]


def _ppm(data: bytes, rng: Random) -> bytes:
    sides = rng.choice(SIDES), rng.choice((*SIDES, 10**30))
    return b"P%d %d %d %d\n" % (rng.randrange(1, 8), *sides, rng.choice((0, 1, 255, 65_535)))


KINDS: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".npz": _zip, ".pt": _zip,
    ".safetensors": _safetensors, ".arrow": _numbers, ".parquet": _numbers, ".png": _png,
    ".jpeg": _jpeg, ".gif": _gif, ".bmp": _bmp, ".ppm": _ppm, ".tiff": _numbers, ".webp": _numbers,
}  # fmt: skip
