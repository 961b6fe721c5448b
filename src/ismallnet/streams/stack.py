"""The pages of a TIFF, one by one: each is cut out of the file as a TIFF of its own, and decoded as one.

So memory holds one page, each is found at once (OpenCV walks from the first), and a page that the file's end
cuts off is known by its offsets. Tags and offsets: TIFF 6.0, section 2, and the BigTIFF design.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from ismallnet.media import ImageError, decode, tiff_directories

if TYPE_CHECKING:
    from ismallnet.media import Pixels

_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1)) | {16: 8, 17: 8, 18: 8}
"""Bytes of one value by the type of the field."""
_CODES = {3: "H", 4: "I", 16: "Q"}
"""The unsigned types that offsets and lengths come in."""
_PIECES = {273: 279, 324: 325}
"""The tags with the offsets of strips and of tiles, and those with their lengths."""
_ELSEWHERE = (330, 34665, 34853)
"""Tags that point to further directories: not needed to decode a page."""


class _Field(NamedTuple):
    """One field of a page's directory."""

    kind: int
    length: int
    data: bytes


class Stack:
    """A TIFF of several pages.

    Attributes:
        starts: Where the directory of each page is in the file.
    """

    rate, uniform, note = None, False, ""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self.starts = tiff_directories(file)
        self.count = len(self.starts)

    def read(self) -> Iterator[tuple[int, Pixels | str]]:
        """Give the pages."""
        with self._path.open("rb") as file:
            for number, start in enumerate(self.starts):
                try:
                    yield number, decode(cut_out(file, start), "the page")[0]
                except ImageError as error:
                    yield number, str(error).removeprefix("the page: ")


def cut_out(file: BinaryIO, start: int) -> bytes:
    """Return one page of a TIFF as a TIFF of one page, its pixels untouched.

    Args:
        file: The TIFF.
        start: Where the page's directory is.

    Raises:
        ImageError: The file ends before the page does, or its directory makes no sense.
    """
    head = _read(file, 0, 4)
    order, big = "<" if head[:2] == b"II" else ">", b"+" in head
    fields = _fields(file, start, order, big)
    pieces: list[bytes] = []
    for tag, lengths in _PIECES.items():
        if tag in fields and lengths in fields:
            places = zip(_numbers(fields[tag], order), _numbers(fields[lengths], order), strict=False)
            pieces = [_read(file, place, length) for place, length in places]
    return _assemble(head, order, big, fields, pieces)


def _fields(file: BinaryIO, start: int, order: str, big: bool) -> dict[int, _Field]:
    """Read a directory with the values that its fields point to."""
    number, entry, room = ("Q", "HHQ8s", 8) if big else ("H", "HHI4s", 4)
    width = struct.calcsize(order + entry)
    (length,) = struct.unpack(order + number, _read(file, start, struct.calcsize(number)))
    table = _read(file, start + struct.calcsize(number), length * width)
    fields = {}
    for tag, kind, count, inline in struct.iter_unpack(order + entry, table):
        size = _BYTES.get(kind, 0) * count
        if size and tag not in _ELSEWHERE:
            place = struct.unpack(order + ("Q" if big else "I"), inline)[0]
            fields[tag] = _Field(kind, count, inline[:size] if size <= room else _read(file, place, size))
    return fields


def _assemble(head: bytes, order: str, big: bool, fields: dict[int, _Field], pieces: list[bytes]) -> bytes:
    """Write a TIFF: header, values that are too long for the directory, pixels, directory."""
    number, word, room = ("Q", "Q", 8) if big else ("H", "I", 4)
    body = bytearray(head + (struct.pack(order + "HHQ", 8, 0, 0) if big else bytes(4)))

    def place(data: bytes) -> int:
        body.extend(bytes(-len(body) % 8))
        body.extend(data)
        return len(body) - len(data)

    offsets = struct.pack(order + word * len(pieces), *map(place, pieces))
    table = b""
    for tag in sorted(fields):
        kind, count, data = fields[tag]
        if tag in _PIECES:
            kind, count, data = (16 if big else 4), len(pieces), offsets
        inline = data if len(data) <= room else struct.pack(order + word, place(data))
        table += struct.pack(order + "HH" + word, tag, kind, count) + inline.ljust(room, b"\0")
    start = place(struct.pack(order + number, len(fields)) + table + bytes(room))
    struct.pack_into(order + word, body, 8 if big else 4, start)
    return bytes(body)


def _numbers(field: _Field, order: str) -> tuple[int, ...]:
    if field.kind not in _CODES:
        raise ImageError(f"damaged: offsets of the TIFF type {field.kind}")
    return struct.unpack(f"{order}{field.length}{_CODES[field.kind]}", field.data)


def _read(file: BinaryIO, place: int, length: int) -> bytes:
    """Read exactly so many bytes."""
    size = os.fstat(file.fileno()).st_size
    if place + length > size:
        raise ImageError(f"truncated: needs bytes up to {place + length:,} of a file of {size:,}")
    file.seek(place)
    return file.read(length)
