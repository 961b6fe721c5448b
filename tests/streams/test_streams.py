"""Streams: one window, damage in its place, constant memory; a stack, a video and an array agree."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet.media import ImageError, RangeWarning, normalise, read_image
from ismallnet.streams import Damage, DamageWarning, Stream, frames
from peak import PEAK_KB, measures_memory
from videos import cut, damage_packet, scenes, write_stack, write_video


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, np.int16])
def test_a_stack_has_the_window_of_its_pages_side_by_side(tmp_path: Path, dtype: type) -> None:
    """`normalise` of one tall image is the reference."""
    pages = scenes(5, dtype=dtype)
    whole = normalise(np.concatenate(pages))
    got = list(frames(write_stack(tmp_path / "x.tif", pages)))
    np.testing.assert_array_equal(np.concatenate([image.pixels for image in got]), whole.pixels)
    assert {(image.low, image.high, image.rule) for image in got} == {(whole.low, whole.high, "percentile")}
    assert [image.frame for image in got] == [0, 1, 2, 3, 4]


def test_a_stack_has_one_range_for_all_its_pages(tmp_path: Path) -> None:
    (scene,) = scenes(1)
    pages = [scene + np.uint16(1000), scene + np.uint16(3000)]
    first, second = frames(write_stack(tmp_path / "x.tif", pages))
    assert (first.low, first.high) == (second.low, second.high)
    assert first.low == np.percentile(pages, 0.1, method="lower")
    assert second.pixels.mean() - first.pixels.mean() == pytest.approx(
        2000 / (first.high - first.low),
        rel=1e-3,  # one in a thousand is clipped
    )


def test_a_video_has_the_pixels_of_a_stack_of_its_frames(tmp_path: Path) -> None:
    pages = scenes(5)
    video = frames(write_video(tmp_path / "x.mkv", pages))
    for image, page in zip(video, frames(write_stack(tmp_path / "x.tif", pages)), strict=True):
        np.testing.assert_array_equal(image.pixels, page.pixels)
        assert (image.low, image.high, image.frame) == (page.low, page.high, page.frame)


def test_the_noise_of_flat_frames_is_not_stretched(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pages = [np.round(random.normal(8000, 12, (60, 60))).astype(np.uint16) for _ in range(3)]
    with pytest.warns(RangeWarning, match="widened") as caught:
        first, *_ = frames(write_stack(tmp_path / "x.tif", pages))
    assert len(caught) == 1
    assert first.high - first.low == pytest.approx(64 * 12, rel=0.05)


def test_8_bit_stacks_and_videos_are_divided_by_255(tmp_path: Path) -> None:
    pages = scenes(2, dtype=np.uint8)
    for path in (
        write_stack(tmp_path / "x.tif", pages),
        write_video(tmp_path / "x.avi", pages, pixels="gray"),
    ):
        for image, page in zip(frames(path), pages, strict=True):
            np.testing.assert_array_equal(image.pixels, (page / 255).astype(np.float32))
            assert image.rule == "8-bit"


def test_a_stack_of_8_and_16_bits_has_one_range(tmp_path: Path) -> None:
    small, large = scenes(1, dtype=np.uint8)[0], scenes(1)[0]
    first, second = frames(write_stack(tmp_path / "x.tif", [small, large]))
    assert (first.rule, first.low, first.high) == ("percentile", second.low, second.high)
    assert (first.dtype, second.dtype) == ("uint8", "uint16")


def test_a_file_of_one_page_is_a_stack_of_one(tmp_path: Path) -> None:
    for name in ("x.png", "x.tif"):
        cv2.imwrite(str(tmp_path / name), scenes(1)[0])
        (only,) = frames(tmp_path / name)
        np.testing.assert_array_equal(only.pixels, read_image(tmp_path / name).pixels)


def test_damage_is_in_its_place_and_frames_warn_of_it(tmp_path: Path) -> None:
    path = damage_packet(write_video(tmp_path / "x.mkv", scenes(8)), 3)
    items = list(Stream(path))
    assert [n for n, item in enumerate(items) if isinstance(item, Damage)] == [3]
    with pytest.warns(DamageWarning, match=r"x\.mkv: frame 3: damaged"):
        assert [image.frame for image in frames(path)] == [0, 1, 2, 4, 5, 6, 7]


def test_a_page_of_nan_is_damage(tmp_path: Path) -> None:
    pages = scenes(3, dtype=np.float32)
    pages[1][:] = np.nan
    items = list(Stream(write_stack(tmp_path / "x.tif", pages)))
    assert [isinstance(item, Damage) for item in items] == [False, True, False]


def test_a_stream_of_which_nothing_can_be_read_is_named(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "x.tif", [np.full((4, 4), np.nan, np.float32)] * 2)
    with pytest.raises(ImageError, match=r"x\.tif: none of its frames.*finite"):
        list(frames(path))


def test_a_wrong_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lower first"):
        next(frames(write_stack(tmp_path / "x.tif", scenes(2)), range=(3, 3)))


def test_a_given_range_takes_one_pass(tmp_path: Path) -> None:
    """A second pass would find the file cut."""
    path = write_stack(tmp_path / "x.tif", scenes(6), cv2.IMWRITE_TIFF_COMPRESSION, 1)
    images = iter(Stream(path, range=(0, 10000)))
    assert next(images).low == 0  # type: ignore[union-attr]
    cut(path, 0.4)
    assert any(isinstance(item, Damage) for item in images)


def test_no_warning_where_nothing_is_doubtful(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mkv", scenes(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(frames(path))) == 3


PEAK = (
    PEAK_KB
    + """
import sys
from ismallnet.streams import Stream
assert sum(1 for _ in Stream(sys.argv[1], range=(0, 10_000))) == int(sys.argv[2])
print(peak_kb())
"""
)


@measures_memory
@pytest.mark.parametrize("kind", ["x.tif", "x.mkv"])
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path, kind: str) -> None:
    """120 frames of 256 × 320 take 20 MB decoded; 20 take 3."""

    def peak_kb(count: int) -> int:
        path = tmp_path / f"{count}{kind}"
        pages = scenes(10, size=(256, 320))
        many = [pages[n % 10] for n in range(count)]
        write_stack(path, many) if kind == "x.tif" else write_video(path, many)
        command = [sys.executable, "-c", PEAK, str(path), str(count)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert peak_kb(120) - peak_kb(20) < 6_000
