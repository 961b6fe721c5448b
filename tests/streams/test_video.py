"""Videos: depth kept, damage named, truncation noticed; by PyAV and by OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ismallnet.media import ImageError
from ismallnet.streams.video import DeepVideo, PlainVideo
from videos import cut, damage_packet, scenes, write_video

pytest.importorskip("av", reason="PyAV, the extra 'video', is not installed")
EACH = pytest.mark.parametrize("reader", [DeepVideo, PlainVideo])


def reasons(reader: Any, path: Path) -> dict[int, str]:
    return {number: page for number, page in reader(path).read() if isinstance(page, str)}


@pytest.mark.parametrize(("pixels", "top"), [("gray16le", 65535), ("gray12le", 4095), ("gray10le", 1023)])
def test_deep_grey_keeps_every_bit(tmp_path: Path, pixels: str, top: int) -> None:
    pages = [np.random.default_rng(n).integers(0, top + 1, (10, 14), np.uint16) for n in range(3)]
    video = DeepVideo(write_video(tmp_path / "x.mkv", pages, pixels=pixels))
    for (_, page), expected in zip(video.read(), pages, strict=True):
        np.testing.assert_array_equal(page, expected, strict=True)


@EACH
def test_8_bit_grey_without_loss_is_unchanged(tmp_path: Path, reader: Any) -> None:
    pages = scenes(3, dtype=np.uint8)
    path = write_video(tmp_path / "x.avi", pages, pixels="gray")
    for (_, page), expected in zip(reader(path).read(), pages, strict=True):
        np.testing.assert_array_equal(page, expected, strict=True)


@EACH
def test_limited_luma_becomes_the_whole_range(tmp_path: Path, reader: Any) -> None:
    """Luma 16 to 235 of BT.601 is black to white."""
    pages = [np.full((32, 32), level, np.uint8) for level in (0, 128, 255)]
    path = write_video(tmp_path / "x.mp4", pages, codec="libx264", pixels="yuv420p")
    got = [page.mean() for _, page in reader(path).read()]
    assert got == pytest.approx([0, 128, 255], abs=3)


@EACH
def test_count_and_rate_are_those_of_the_file(tmp_path: Path, reader: Any) -> None:
    video = reader(write_video(tmp_path / "x.mkv", scenes(7), rate=30))
    assert (video.count, video.rate) == (7, 30)


@EACH
@pytest.mark.parametrize("codec", ["ffv1", "mjpeg"])
def test_a_damaged_frame_is_named_and_passed_over(tmp_path: Path, reader: Any, codec: str) -> None:
    pixels = {"ffv1": "gray", "mjpeg": "yuvj420p"}[codec]
    path = write_video(tmp_path / "x.avi", scenes(20, dtype=np.uint8), codec=codec, pixels=pixels)
    assert list(reasons(reader, damage_packet(path, 11))) == [11]
    assert len(list(reader(path).read())) == 20


@EACH
def test_a_truncated_video_gives_what_is_before_the_end_and_says_so(tmp_path: Path, reader: Any) -> None:
    path = cut(write_video(tmp_path / "x.mkv", scenes(40)), 0.5)
    *_, (number, last) = reader(path).read()
    assert 15 <= number <= 20
    assert "truncated" in str(last)
    assert list(reasons(reader, path)) == [number]


def test_a_whole_video_coded_out_of_order_is_not_called_truncated(tmp_path: Path) -> None:
    for name, codec in (("x.mp4", "libx264"), ("x.mkv", "libx264"), ("x.ts", "libx264"), ("y.mp4", "mpeg4")):
        path = write_video(tmp_path / name, scenes(30, dtype=np.uint8), codec=codec, pixels="yuv420p")
        assert reasons(DeepVideo, path) == {}
        assert len(list(DeepVideo(path).read())) == 30


@EACH
@pytest.mark.parametrize("content", [b"no video at all", None], ids=["text", "no index"])
def test_an_unreadable_video_is_named(tmp_path: Path, reader: Any, content: bytes | None, capfd: Any) -> None:
    path = write_video(tmp_path / "x.mp4", scenes(9, dtype=np.uint8), codec="mpeg4", pixels="yuv420p")
    path.write_bytes(content) if content else cut(path, 0.5)
    with pytest.raises(ImageError, match=r"x\.mp4.*no video"):
        reader(path)
    assert capfd.readouterr().err == ""


def test_opencv_says_where_it_may_lose_bits(tmp_path: Path) -> None:
    assert "ismallnet[video]" in PlainVideo(write_video(tmp_path / "x.mkv", scenes(2))).note
    plain = write_video(tmp_path / "y.avi", scenes(2, dtype=np.uint8), codec="mjpeg", pixels="yuvj420p")
    assert PlainVideo(plain).note == ""
