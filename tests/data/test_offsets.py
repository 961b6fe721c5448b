from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet.config import MaskOffset
from ismallnet.data.check import check
from ismallnet.data.offsets import TURNS, medians, offsets, turned
from ismallnet.types import Sample


def spot(x: float, y: float, *, contrast: float = 80, side: int = 24) -> np.ndarray:
    """A round Gaussian spot on a level of 100."""
    ys, xs = np.mgrid[:side, :side]
    return (100 + contrast * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 4)).astype(np.float32)


def square(x0: int, y0: int, *, width: int = 4, side: int = 24) -> np.ndarray:
    mask = np.zeros((side, side), np.bool_)
    mask[y0 : y0 + width, x0 : x0 + width] = True
    return mask


@pytest.mark.parametrize("contrast", [80, -80])
@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (-0.5, -0.5), (0.5, 0), (0, 1)])
def test_the_offset_of_a_mask_is_that_from_its_light(dx: float, dy: float, contrast: float) -> None:
    (found,) = offsets(spot(11.5 - dx, 11.5 - dy, contrast=contrast), square(10, 10))
    assert found.area == 16
    assert (found.dx, found.dy) == pytest.approx((dx, dy), abs=0.1)


def test_a_slope_of_the_background_does_not_count_as_an_offset() -> None:
    slope = np.linspace(0, 20, 24, dtype=np.float32)[None]
    (found,) = offsets(spot(11.5, 11.5) + slope, square(10, 10))
    assert (found.dx, found.dy) == pytest.approx((0, 0), abs=0.1)


def test_targets_at_the_border_or_without_contrast_are_left_out() -> None:
    assert offsets(spot(3.5, 11.5), square(2, 10)) == []
    assert offsets(np.full((24, 24), 9, np.uint8), square(10, 10)) == []
    assert offsets(spot(11, 11), np.zeros((24, 24), np.bool_)) == []


def test_medians_are_by_size() -> None:
    small, large = offsets(spot(12, 12), square(10, 10)), offsets(spot(11.5, 11.5), square(8, 8, width=8))
    table = medians([*small, *large])
    assert list(table) == [(10, 25), (26, 64)]
    assert table[10, 25] == (1, pytest.approx(-0.5, abs=0.1), pytest.approx(-0.5, abs=0.1))
    assert table[26, 64][1:] == pytest.approx((0, 0), abs=0.1)


@pytest.mark.parametrize(("shift", "level"), [(0.5, "note"), (0.0, "ok")])
def test_the_check_of_a_data_set_says_where_masks_lie_beside_their_targets(
    tmp_path: Path, shift: float, level: str
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(30):
        image = spot(11.5 + shift, 11.5 + shift) + number
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), image.astype(np.uint8))
        cv2.imwrite(str(tmp_path / f"masks/{number}.png"), square(10, 10).astype(np.uint8) * 255)
    row = next(row for row in check(tmp_path).rows if row.what == "masks that lie beside their targets")
    assert row.level == level
    if level == "note":
        assert row.count == 30
        assert row.detail.startswith("10 to 25 pixels: 0.5")
        assert all(word in row.detail for word in ("left", "up", "mask_offset"))


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize(("dx", "dy"), [(-0.5, -0.5), (0.5, 0.5), (1, 0)])
def test_a_turned_mask_is_as_far_beside_its_target_as_before(turn: int, dx: float, dy: float) -> None:
    sample = Sample("a", spot(11.5 - dx, 9.5 - dy), square(10, 8))
    off = MaskOffset(least=10, most=20, dx=dx, dy=dy)
    (found,) = offsets(*turned(sample, turn, off)[1:])
    assert (found.dx, found.dy) == pytest.approx((dx, dy), abs=0.15)


def test_turns_are_all_eight_and_the_first_is_none() -> None:
    sample = Sample(
        "a", np.random.default_rng(0).integers(0, 9, (5, 7), np.uint8), np.zeros((5, 7), np.bool_)
    )
    off = MaskOffset(least=1, most=1, dx=0, dy=0)
    seen = [turned(sample, turn, off).image for turn in range(TURNS)]
    assert np.array_equal(seen[0], sample.image)
    wanted = [np.rot90(side, k) for side in (sample.image, sample.image.T) for k in range(4)]
    assert {(i.shape, i.tobytes()) for i in seen} == {(i.shape, i.tobytes()) for i in wanted}


def test_masks_of_other_sizes_turn_with_their_image() -> None:
    sample = Sample("a", spot(11, 11), square(10, 10))
    result = turned(sample, 3, MaskOffset(least=17, most=20, dx=-0.5, dy=-0.5))
    assert np.array_equal(result.mask, sample.mask[::-1, ::-1])


def test_a_mask_moved_beyond_the_border_is_cut() -> None:
    sample = Sample("a", spot(22, 11), square(20, 10))
    moved = turned(sample, 1, MaskOffset(least=10, most=20, dx=-0.5, dy=0)).mask
    assert moved.sum() == 12


def test_the_masks_of_small_nudt_targets_lie_half_a_pixel_up_and_left(data_root: Path) -> None:
    from ismallnet import data

    table = {
        name: medians(o for s in data.load(name, data_root, "train") for o in offsets(s.image, s.mask))
        for name in ("NUDT-SIRST", "NUAA-SIRST")
    }
    assert table["NUDT-SIRST"][10, 25][1:] == pytest.approx((-0.5, -0.5), abs=0.05)
    assert table["NUDT-SIRST"][1, 9][1:] == pytest.approx((0, 0), abs=0.05)
    assert table["NUAA-SIRST"][10, 25][1:] == pytest.approx((0, 0), abs=0.1)
