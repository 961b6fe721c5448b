"""Label decoupling; the literals of the official recipe come from the authors' code, OpenCV 4.10 and 5.0."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from ismallnet.labels import RECIPES, decouple, write_label_pictures

Mask = NDArray[np.bool_]
EVERY_RECIPE = pytest.mark.parametrize("recipe", RECIPES)


def square(side: int, *, frame: int = 19) -> Mask:
    """A side×side target in the middle of a frame×frame mask."""
    mask = np.zeros((frame, frame), bool)
    start = (frame - side) // 2
    mask[start : start + side, start : start + side] = True
    return mask


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    cells = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.array(cells, bool).reshape(height, width)


# --- official -----------------------------------------------------------------------------------------


def test_official_interior_of_one_pixel_is_the_literal() -> None:
    assert decouple(square(1)).interior[7:12, 7:12].tolist() == [
        [147, 147, 147, 147, 147],
        [147, 208, 208, 208, 147],
        [147, 208, 255, 208, 147],
        [147, 208, 208, 208, 147],
        [147, 147, 147, 147, 147],
    ]


@pytest.mark.parametrize(
    ("side", "interior", "boundary"),
    [
        (3, [127, 180, 220, 255], [0, 0, 35, 0]),
        (5, [114, 161, 197, 228, 255], [0, 0, 58, 27, 0]),
        (9, [96, 136, 166, 192, 215, 236, 255], [0, 0, 89, 63, 40, 19, 0]),
    ],
)
def test_official_rings_from_outside_to_the_centre_are_the_literals(
    side: int, interior: list[int], boundary: list[int]
) -> None:
    labels = decouple(square(side))
    rings = slice(9 - side // 2 - 2, 10)
    assert labels.interior[9, rings].tolist() == interior
    assert labels.boundary[9, rings].tolist() == boundary


@pytest.mark.parametrize("side", [1, 2])
def test_official_boundary_of_the_smallest_targets_is_empty(side: int) -> None:
    assert not decouple(square(side)).boundary.any()


def test_official_sums_over_the_427_nuaa_masks_are_the_checksums(data_root: Path) -> None:
    files = sorted((data_root / "NUAA-SIRST" / "masks").glob("*.png"))
    labels = [decouple(np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))) for file in files]
    assert len(files) == 427
    assert sum(int(each.interior.sum()) for each in labels) == 8_497_110
    assert sum(int(each.boundary.sum()) for each in labels) == 781_065


# --- ldf ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(masks())
def test_ldf_interior_and_boundary_add_up_to_the_mask_exactly(mask: Mask) -> None:
    labels = decouple(mask, recipe="ldf")
    assert (labels.interior.astype(int) + labels.boundary == 255 * mask).all()


def test_ldf_is_the_distance_to_the_background_over_its_maximum() -> None:
    labels = decouple(square(5), recipe="ldf")
    assert labels.interior[9, 6:13].tolist() == [0, 85, 170, 255, 170, 85, 0]
    assert labels.boundary[9, 6:13].tolist() == [0, 170, 85, 0, 85, 170, 0]


# --- target -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(masks().filter(lambda mask: not mask.all()))
def test_target_maps_fill_the_mask_and_stay_inside_it(mask: Mask) -> None:
    labels = decouple(mask, recipe="target")
    assert ((labels.interior > 0) == mask).all()
    assert ((labels.boundary > 0) == mask).all()


@settings(deadline=None)
@given(masks().filter(lambda mask: not mask.all()))
def test_target_outline_pixels_have_the_full_boundary(mask: Mask) -> None:
    """Outline: a target pixel with background on one of its four sides, beyond the frame being none."""
    background = np.pad(~mask, 1)
    beside = background[:-2, 1:-1] | background[2:, 1:-1] | background[1:-1, :-2] | background[1:-1, 2:]
    assert (decouple(mask, recipe="target").boundary[mask & beside] == 255).all()


@settings(deadline=None)
@given(masks().filter(lambda mask: not mask.all()))
def test_target_interior_reaches_255_in_every_component(mask: Mask) -> None:
    component, count = ndimage.label(mask, np.ones((3, 3)))
    interior = decouple(mask, recipe="target").interior
    assert all(interior[component == index].max() == 255 for index in range(1, count + 1))


@pytest.mark.parametrize("side", [1, 2])
def test_target_maps_of_the_smallest_targets_are_the_mask(side: int) -> None:
    labels = decouple(square(side), recipe="target")
    assert (labels.interior == 255 * square(side)).all()
    assert (labels.boundary == 255 * square(side)).all()


def test_target_map_of_a_5x5_target_is_the_mirror_pair() -> None:
    labels = decouple(square(5), recipe="target")
    assert labels.interior[9, 6:13].tolist() == [0, 85, 170, 255, 170, 85, 0]
    assert labels.boundary[9, 6:13].tolist() == [0, 255, 170, 85, 170, 255, 0]


def test_target_scale_of_one_target_does_not_depend_on_another() -> None:
    both = np.zeros((20, 40), bool)
    both[5:8, 4:7] = True
    alone = decouple(both, recipe="target")
    both[2:17, 20:35] = True
    beside = decouple(both, recipe="target")
    assert (alone.interior[:, :15] == beside.interior[:, :15]).all()
    assert (alone.boundary[:, :15] == beside.boundary[:, :15]).all()
    assert decouple(both, recipe="ldf").interior[:, :15].max() < 255


def test_target_treats_targets_that_touch_by_a_corner_as_one() -> None:
    mask = np.zeros((9, 9), bool)
    mask[1:6, 1:6] = True
    mask[6, 6] = True
    labels = decouple(mask, recipe="target")
    assert labels.interior[3, 3] == 255
    assert labels.interior[6, 6] == 85  # 1 of 3, the scale of the larger part


# --- all recipes --------------------------------------------------------------------------------------


@EVERY_RECIPE
def test_maps_are_uint8_of_the_masks_shape(recipe: str) -> None:
    for each in decouple(np.eye(7, 11, dtype=bool), recipe=recipe):
        assert each.dtype == np.uint8
        assert each.shape == (7, 11)


@EVERY_RECIPE
def test_empty_mask_gives_empty_maps(recipe: str) -> None:
    assert not any(each.any() for each in decouple(np.zeros((6, 8), bool), recipe=recipe))


@EVERY_RECIPE
def test_mask_without_background_is_all_interior_and_no_boundary(recipe: str) -> None:
    labels = decouple(np.ones((6, 8), bool), recipe=recipe)
    assert (labels.interior == 255).all()
    assert not labels.boundary.any()


@EVERY_RECIPE
@settings(deadline=None)
@given(mask=masks())
def test_turned_mask_gives_turned_maps(recipe: str, mask: Mask) -> None:
    straight, turned = decouple(mask, recipe=recipe), decouple(np.rot90(mask).copy(), recipe=recipe)
    for one, other in zip(straight, turned, strict=True):
        assert (np.rot90(one) == other).all()


@EVERY_RECIPE
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("high", [1, 255])
def test_bool_zero_one_and_zero_255_masks_agree(recipe: str, dtype: type, high: int) -> None:
    mask = square(3)
    numbers = (mask * high).astype(dtype)
    for one, other in zip(decouple(mask, recipe=recipe), decouple(numbers, recipe=recipe), strict=True):
        assert (one == other).all()


def test_grey_mask_is_refused_with_the_levels_seen_and_accepted() -> None:
    with pytest.raises(ValueError, match=r"0 and 1, or 0 and 255, got 3 levels \(0, 7, 255\)"):
        decouple(np.array([[0, 7, 255]], np.uint8))


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="levels"):
        decouple(np.array([[0, np.nan]], np.float32))


@pytest.mark.parametrize("shape", [(4,), (1, 4, 4), (0, 4)])
def test_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        decouple(np.zeros(shape, bool))


def test_unknown_recipe_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="choose from official, ldf, target"):
        decouple(square(3), recipe="offical")


# --- pictures -----------------------------------------------------------------------------------------


@EVERY_RECIPE
def test_pictures_hold_the_maps_unchanged(recipe: str, tmp_path: Path) -> None:
    interior, boundary, side_by_side = write_label_pictures(square(3), tmp_path, "a", recipe=recipe, zoom=2)
    labels = decouple(square(3), recipe=recipe)
    assert (cv2.imread(str(interior), cv2.IMREAD_UNCHANGED) == labels.interior).all()
    assert (cv2.imread(str(boundary), cv2.IMREAD_UNCHANGED) == labels.boundary).all()
    panel = np.asarray(cv2.imread(str(side_by_side), cv2.IMREAD_UNCHANGED))
    assert panel.shape == (38, 3 * 38 + 2 * 2)
    assert (panel[::2, :38:2] == 255 * square(3)).all()
    assert (panel[1::2, 41:78:2] == labels.interior).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a_boundary.png",
        "a_interior.png",
        "a_labels.png",
    ]


def test_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot write"):
        write_label_pictures(square(3), tmp_path / "absent", "a")
