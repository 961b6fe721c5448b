"""Pages cut out of a TIFF are those that OpenCV decodes from the whole."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet.media import ImageError, read_pages, tiff_directories
from ismallnet.streams.stack import Stack, cut_out
from videos import cut, scenes, write_stack


def pages_of(path: Path) -> list[np.ndarray | str]:
    return [page for _, page in Stack(path).read()]


@pytest.mark.parametrize("compression", [1, 5, 8], ids=["none", "lzw", "deflate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_pages_are_those_of_the_whole_file(tmp_path: Path, dtype: type, compression: int) -> None:
    path = write_stack(tmp_path / "x.tif", scenes(4, dtype=dtype), cv2.IMWRITE_TIFF_COMPRESSION, compression)
    for page, expected in zip(pages_of(path), read_pages(path), strict=True):
        np.testing.assert_array_equal(page, expected, strict=True)


LAYOUTS = ({"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16)}, {"rowsperstrip": 5})


@pytest.mark.parametrize("options", LAYOUTS)
def test_big_and_tiled_files_of_either_byte_order_are_cut(tmp_path: Path, options: dict[str, object]) -> None:
    tifffile = pytest.importorskip("tifffile")
    pages = scenes(3)
    with tifffile.TiffWriter(
        tmp_path / "x.tif",
        **{key: value for key, value in options.items() if key in ("bigtiff", "byteorder")},
    ) as file:
        layout = {key: value for key, value in options.items() if key not in ("bigtiff", "byteorder")}
        for page in pages:
            file.write(page, contiguous=False, description="long enough to be outside of the field", **layout)
    for page, expected in zip(pages_of(tmp_path / "x.tif"), pages, strict=True):
        np.testing.assert_array_equal(page, expected, strict=True)


def test_pages_of_other_sizes_and_colours_are_read(tmp_path: Path) -> None:
    pages = [np.full((4, 6), 7, np.uint8), np.full((8, 3, 3), 90, np.uint8)]
    first, second = pages_of(write_stack(tmp_path / "x.tif", pages))
    assert (first.tolist(), second.tolist()) == ([[7] * 6] * 4, [[90] * 3] * 8)  # type: ignore[union-attr]


def test_the_pages_before_a_truncation_are_read_and_the_others_named(tmp_path: Path) -> None:
    scene = scenes(4, dtype=np.uint8)
    path = write_stack(tmp_path / "x.tif", scene, cv2.IMWRITE_TIFF_COMPRESSION, 1)
    got = pages_of(cut(path, 0.6))
    assert [isinstance(page, str) for page in got][:2] == [False, False]
    np.testing.assert_array_equal(got[0], scene[0])
    assert "truncated" in str(got[-1])


def test_a_damaged_page_in_the_middle_leaves_the_others(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "x.tif", scenes(5), cv2.IMWRITE_TIFF_COMPRESSION, 8)
    data = bytearray(path.read_bytes())
    whole = io.BytesIO(data)
    start = tiff_directories(whole)[2]
    (count,) = struct.unpack_from("<H", data, start)
    entries = [struct.unpack_from("<HHII", data, start + 2 + 12 * n) for n in range(count)]
    offset = next(value for tag, _, _, value in entries if tag == 273)
    place = struct.unpack_from("<I", data, offset)[0] if {e[0]: e[2] for e in entries}[273] > 1 else offset
    data[place : place + 40] = b"\xff" * 40
    path.write_bytes(data)
    assert [isinstance(page, str) for page in pages_of(path)] == [False, False, True, False, False]


def test_a_directory_that_announces_more_than_the_file_is_refused(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "x.tif", scenes(2))
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        start = tiff_directories(file)[0]
    struct.pack_into("<I", data, start + 2 + 4, 2**31)  # of the first field
    struct.pack_into("<H", data, start + 2 + 2, 12)
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(ImageError, match="truncated"):
        cut_out(file, start)
