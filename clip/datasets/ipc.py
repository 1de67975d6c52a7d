"""Whether an arrow file is packed, read from its bytes: pyarrow itself only says so by unpacking.

The offsets are those of Arrow's format files, Message.fbs and File.fbs. A leaf.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

TAIL = struct.calcsize("<i") + len(b"ARROW1")  # the length of the footer, and the last word
BLOCK = struct.Struct("<qi4xq")  # offset, bytes of the message, bytes of the buffers
PREFIX = 8  # bytes before a message
DICTIONARIES, BATCHES = 2, 3  # fields of a footer
HEADER_TYPE, HEADER = 1, 2  # fields of a message
OF_DICTIONARY, DATA = 2, 1  # such a header, and its field
COMPRESSION = 3  # field of a record batch

Bytes = mmap.mmap | bytes


def is_packed(path: Path) -> bool:
    """Tell whether any batch is compressed, without reading one.

    Raises:
        struct.error, ValueError: this is no arrow file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(_field(data, batch, COMPRESSION) for batch in _batches(data))


def _batches(data: Bytes) -> Iterator[int]:
    (length,) = struct.unpack_from("<i", data, len(data) - TAIL)
    footer = _follow(data, len(data) - TAIL - length)
    for kind in (DICTIONARIES, BATCHES):
        if not (field := _field(data, footer, kind)):
            continue
        vector = _follow(data, field)
        (count,) = struct.unpack_from("<I", data, vector)
        for number in range(count):
            offset, _, _ = BLOCK.unpack_from(data, vector + 4 + number * BLOCK.size)
            yield _record(data, _follow(data, offset + PREFIX))


def _record(data: Bytes, message: int) -> int:
    header = _follow(data, _field(data, message, HEADER))
    kind = _field(data, message, HEADER_TYPE)
    return _follow(data, _field(data, header, DATA)) if data[kind] == OF_DICTIONARY else header


def _follow(data: Bytes, place: int) -> int:
    return place + struct.unpack_from("<I", data, place)[0]


def _field(data: Bytes, table: int, number: int) -> int:
    """Give where a field of a flatbuffers table is; 0 if it is left out."""
    shape = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, shape)
    slot = 4 + 2 * number
    offset = struct.unpack_from("<H", data, shape + slot)[0] if slot < size else 0
    return table + offset if offset else 0
