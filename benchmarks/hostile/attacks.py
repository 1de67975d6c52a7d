"""The classics that chance would not find: payloads, bombs, and sizes that are lies.

Where a file is an archive, an image, a table or a set of tensors, it gets those of its kind.
"""

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

BOMB = 2**28  # bytes that a packed entry of about 1 MB unfolds to
SIDE = 9400  # of the largest square image that is decoded
ARRAY = b"\x93NUMPY\x01\x00v\x00%s\n"  # a header of 118 bytes, then the numbers


class Payload:
    """A pickled object that makes a folder where it is loaded without a guard."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def attacks(name: str, data: bytes, marker: Path) -> Iterator[bytes]:
    """Yield the classics for a file.

    Args:
        name: of the file; its ending says of what kind it is.
        data: a good one.
        marker: what a payload that runs leaves behind.
    """
    yield b""
    yield b"\0" * 4096
    yield from (pickle.dumps(Payload(marker), protocol) for protocol in (0, 2, 4))
    yield b"[" * 150_000
    yield b"\xff\xfe" + data
    yield data * 50 if len(data) < 2**20 else data
    if zipfile.is_zipfile(io.BytesIO(data)):
        yield from packed(data, marker)
    yield from OF_KIND.get(Path(name).suffix, lambda: ())()


def packed(data: bytes, marker: Path) -> Iterator[bytes]:
    """Put a payload, and then a bomb, in the place of each entry of an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    payload = pickle.dumps(Payload(marker), 2)
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    objects = ARRAY % head.ljust(117) + payload
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }"
    huge = ARRAY % head.ljust(117) + b"\0" * 64
    for wanted in list(entries)[:8]:
        yield from (archived(entries | {wanted: each}) for each in (payload, objects, huge))
    for wanted in list(entries)[:2]:
        yield archived(entries | {wanted: entries[wanted] + b"\0" * BOMB})


def archived(entries: dict[str, bytes]) -> bytes:
    """Pack an archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


def largest_images() -> Iterator[bytes]:
    """Encode images that are just small enough to be decoded, and some that are not."""
    for mode, side in (("RGB", SIDE), ("I;16", SIDE), ("RGBA", SIDE), ("1", 13_000), ("1", 30_000)):
        out = io.BytesIO()
        Image.new(mode, (side, side)).save(out, "PNG", compress_level=1)
        yield out.getvalue()
    for size in ((SIDE**2, 1), (60_000, 1400)):
        out = io.BytesIO()
        Image.new("L", size).save(out, "PNG", compress_level=1)
        yield out.getvalue()


def endless_jpegs() -> Iterator[bytes]:
    """Repeat the last scan of a progressive JPEG; each takes as long as the whole image."""
    out = io.BytesIO()
    Image.new("L", (SIDE, SIDE)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    yield from (data[:-2] + scan * times + b"\xff\xd9" for times in (20, 80_000))


def odd_arrows() -> Iterator[bytes]:
    """Write arrow files with columns of other types, and compressed ones."""
    good = {"image": pa.array([b"a", b""], pa.binary()), "text": pa.array([["a"], [None]]),
            "label": pa.array([0, 1])}  # fmt: skip
    others = [pa.nulls(2), pa.array([1.5, float("nan")]), pa.array(["a", "b"]),
              pa.array([[1, 2], [3]]), pa.array([[[1]], []]), pa.array([True, False]),
              pa.array([{"a": 1}, None]), pa.array(["a", "b"]).dictionary_encode(),
              pa.array([2**63, 1], pa.uint64()), pa.array([-1, 10**9]),
              pa.array([[1, 0, 1]] * 2, pa.list_(pa.int64(), 3)),
              pa.array([b"a", None], pa.large_binary()), pa.array([["a"], None])]  # fmt: skip
    for column in good:
        yield from (arrow_bytes(good | {column: other}) for other in others)
    zeros = good | {"image": pa.array([bytes(BOMB), b""], pa.large_binary())}
    yield from (arrow_bytes(zeros, codec) for codec in ("lz4", "zstd"))


def arrow_bytes(columns: dict[str, Any], codec: str | None = None) -> bytes:
    """Write an arrow file."""
    table, out = pa.table(columns), io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(out, table.schema, options=options) as writer:
        writer.write_table(table)
    return out.getvalue()


def odd_parquets() -> Iterator[bytes]:
    """Write parquet files with columns of other types, and packed ones."""
    for other in ([1.5, None], [True, False], [b"a", b"\xff"], [[1], []], [{"a": 1}, None]):
        for column in ("image", "text", "label", "split"):
            yield parquet_bytes({"image": ["", ""], "text": ["a", "b"], "label": ["a", "b"],
                                 column: other})  # fmt: skip
    yield parquet_bytes({"text": ["a" * BOMB], "image": [""], "label": ["a"]}, compression="zstd")


def parquet_bytes(columns: dict[str, list], **settings: Any) -> bytes:
    """Write a parquet file."""
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **settings)
    return out.getvalue()


def odd_tensors() -> Iterator[bytes]:
    """Save tensors that claim more numbers than they have, and other things than tensors."""
    one = torch.zeros(1)
    wide = one.expand(10**6, 10**6)
    model_config = {"task": "food101", "prompt_length": 10**9, "class_names": [[]]}
    state = {"classifier.bias": wide}
    of_many = {f"a{i}": one.expand(10**4) for i in range(100)}
    for content in (wide, {"a": wide}, {"visual.conv1.weight": wide}, of_many, one.to_sparse(), [],
                    {"model_config": {}, "state_dict": state}, {"model_config": 1, "state_dict": []},
                    {"model_config": model_config, "state_dict": {}}, {"state_dict": {1: 2}},
                    {f"visual.transformer.resblocks.{10**8}.a": one}):  # fmt: skip
        out = io.BytesIO()
        torch.save(content, out)
        yield out.getvalue()


OF_KIND: dict[str, Callable[[], Iterator[bytes]]] = {
    ".png": largest_images,
    ".jpeg": endless_jpegs,
    ".arrow": odd_arrows,
    ".parquet": odd_parquets,
    ".pt": odd_tensors,
}
