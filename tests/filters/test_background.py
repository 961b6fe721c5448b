"""Top-hat and max-median; the checked values are those of an independent program, on the toy image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ismallnet.filters.background import max_median, top_hat

Plane = NDArray[np.float64]
FILTERS = pytest.mark.parametrize("response_of", [top_hat, max_median])
SHAPES = pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (5, 4), (13, 17), (20, 11)])


def toy() -> Plane:
    """A slope from left to right, a bright target at (32, 32) and a small dim one at (16, 48)."""
    y, x = np.mgrid[:64, :64].astype(float)
    bright = 80 * np.exp(-((y - 32) ** 2 + (x - 32) ** 2) / (2 * 1.5**2))
    return np.asarray(50 + 0.5 * x + bright + 30 * np.exp(-((y - 16) ** 2 + (x - 48) ** 2) / 2))


def noise(shape: tuple[int, int], seed: int = 0) -> Plane:
    return np.random.default_rng(seed).uniform(0, 255, shape)


def target(side: int, *, level: float = 200) -> Plane:
    """A square target on 50, in the middle of 41×41."""
    image = np.full((41, 41), 50.0)
    start = (41 - side) // 2
    image[start : start + side, start : start + side] = level
    return image


def inside(position: int, length: int) -> int:
    """Where a pixel beyond the frame is mirrored from, the outermost pixel repeated."""
    position %= 2 * length
    return min(position, 2 * length - 1 - position)


def sliding_top_hat(image: Plane, element: NDArray[np.bool_]) -> Plane:
    half = len(element) // 2
    offsets = np.argwhere(element) - half

    def around(values: Plane, y: int, x: int, pick: Any) -> float:
        places = [(y + dy, x + dx) for dy, dx in offsets]
        return float(
            pick([values[p] for p in places if 0 <= p[0] < len(image) and 0 <= p[1] < len(image[0])])
        )

    places = list(np.ndindex(image.shape))
    eroded = np.array([around(image, *p, min) for p in places]).reshape(image.shape)
    opened = np.array([around(eroded, *p, max) for p in places]).reshape(image.shape)
    return image - opened


def sliding_max_median(image: Plane, length: int) -> Plane:
    height, width = image.shape
    response = np.empty(image.shape)
    for y, x in np.ndindex(image.shape):
        medians = [
            np.median(
                [
                    image[inside(y + k * dy, height), inside(x + k * dx, width)]
                    for k in range(-(length // 2), length // 2 + 1)
                ]
            )
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))
        ]
        response[y, x] = max(image[y, x] - max(medians), 0)
    return response


def above(response: Plane) -> int:
    """The number of pixels above mean + 3 standard deviations of the sample."""
    return int((response > response.mean() + 3 * response.std(ddof=1)).sum())


# --- top-hat ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "shape", "bright", "dim", "count"),
    [
        (3, "square", 29.20557, 19.46362, 16),
        (5, "square", 67.47893, 28.45490, 30),
        (9, "square", 78.19073, 29.98994, 36),
        (11, "disk", 78.19073, 29.29786, 34),
    ],
)
def test_top_hat_of_the_toy_image_has_the_checked_values(
    size: int, shape: Any, bright: float, dim: float, count: int
) -> None:
    response = top_hat(toy(), size=size, shape=shape)
    assert [response[32, 32], response[16, 48]] == pytest.approx([bright, dim], abs=6e-6)
    assert response[50, 20] == 0
    assert above(response) == count


def test_top_hat_5_of_the_toy_image_has_the_checked_mean_and_deviation() -> None:
    response = top_hat(toy(), size=5)
    assert response.mean() == pytest.approx(0.233655, abs=1e-6)
    assert response.std(ddof=1) == pytest.approx(2.566566, abs=1e-6)


def test_top_hat_by_default_is_the_square_of_9() -> None:
    assert (top_hat(toy()) == top_hat(toy(), size=9, shape="square")).all()


@SHAPES
@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_top_hat_is_the_sliding_window_version(shape: tuple[int, int], size: int) -> None:
    image = noise(shape)
    assert (top_hat(image, size=size) == sliding_top_hat(image, np.ones((size, size), bool))).all()


@SHAPES
def test_top_hat_with_the_disk_of_7_is_the_sliding_window_version(shape: tuple[int, int]) -> None:
    disk = np.array(
        [
            [0, 0, 0, 1, 0, 0, 0],
            [0, 1, 1, 1, 1, 1, 0],
            [0, 1, 1, 1, 1, 1, 0],
            [1, 1, 1, 1, 1, 1, 1],
            [0, 1, 1, 1, 1, 1, 0],
            [0, 1, 1, 1, 1, 1, 0],
            [0, 0, 0, 1, 0, 0, 0],
        ],
        bool,
    )
    image = noise(shape)
    assert (top_hat(image, size=7, shape="disk") == sliding_top_hat(image, disk)).all()


@pytest.mark.parametrize(("side", "height"), [(1, 150), (8, 150), (9, 0), (12, 0)])
def test_top_hat_of_9_leaves_a_target_its_height_up_to_8_px_and_nothing_from_9_px(
    side: int, height: float
) -> None:
    assert (top_hat(target(side)) == np.where(target(side) == 200, height, 0)).all()


def test_top_hat_of_a_slope_is_0_but_within_4_px_of_its_high_side() -> None:
    slope = np.tile(np.arange(0.0, 60, 2), (20, 1))
    assert top_hat(slope)[7].tolist() == [0] * 26 + [2, 4, 6, 8]


def test_top_hat_of_an_image_smaller_than_the_element_is_what_rises_above_the_minimum() -> None:
    image = noise((4, 5))
    assert (top_hat(image, size=11) == image - image.min()).all()


@pytest.mark.parametrize("size", [0, -3, 4, 2.5])
def test_top_hat_refuses_a_size_that_is_not_a_positive_odd_number(size: Any) -> None:
    with pytest.raises(ValueError, match=rf"size is a positive odd number of pixels; got {size}; take 3"):
        top_hat(toy(), size=size)


def test_top_hat_refuses_an_unknown_shape_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown shape 'ring'; choose from square, disk"):
        top_hat(toy(), shape="ring")  # type: ignore[arg-type]


# --- max-median ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "bright", "dim", "count"), [(5, 15.94101, 11.80408, 4), (9, 47.11102, 25.93994, 18)]
)
def test_max_median_of_the_toy_image_has_the_checked_values(
    length: int, bright: float, dim: float, count: int
) -> None:
    response = max_median(toy(), length=length)
    assert [response[32, 32], response[16, 48]] == pytest.approx([bright, dim], abs=6e-6)
    assert response[50, 20] == 0
    assert above(response) == count


def test_max_median_5_of_the_toy_image_has_the_checked_deviation() -> None:
    assert max_median(toy(), length=5).std(ddof=1) == pytest.approx(0.310671, abs=1e-6)


def test_max_median_by_default_has_lines_of_9() -> None:
    assert (max_median(toy()) == max_median(toy(), length=9)).all()


@SHAPES
@pytest.mark.parametrize("length", [1, 3, 5, 7, 9, 15])
def test_max_median_is_the_sliding_window_version(shape: tuple[int, int], length: int) -> None:
    image = noise(shape) - 100
    assert (max_median(image, length=length) == sliding_max_median(image, length)).all()


def test_max_median_does_not_depend_on_the_pieces_that_an_image_is_sorted_in() -> None:
    image = noise((150, 200))
    part = slice(60, 80), slice(70, 100)
    around = slice(56, 84), slice(66, 104)
    assert (max_median(image)[part] == sliding_max_median(image[around], 9)[4:-4, 4:-4]).all()


@pytest.mark.parametrize(("length", "widest"), [(5, 2), (9, 4)])
def test_max_median_keeps_a_target_under_half_the_line_and_removes_a_wider_one(
    length: int, widest: int
) -> None:
    response = max_median(target(widest), length=length)
    assert (response == target(widest) - 50).all()
    assert not max_median(target(widest + 1), length=length).any()


@pytest.mark.parametrize("thickness", [1, 2, 3])
def test_max_median_of_a_straight_line_is_0(thickness: int) -> None:
    along = np.full((40, 40), 50.0)
    along[20 : 20 + thickness] = 200
    difference = np.subtract.outer(np.arange(40), np.arange(40))
    diagonal = np.where((difference >= 0) & (difference < thickness), 200.0, 50.0)
    for line in (along, along.T, diagonal, diagonal[:, ::-1]):
        assert not max_median(line).any()


def test_max_median_of_a_plane_is_0_away_from_the_frame() -> None:
    plane = np.add.outer(3 * np.arange(30.0), 2 * np.arange(40.0))
    assert not max_median(plane)[4:-4, 4:-4].any()


def test_max_median_of_a_slope_is_0_to_the_frame() -> None:
    slope = np.tile(np.arange(0.0, 60, 2), (20, 1))
    assert not max_median(slope).any()
    assert not max_median(slope.T).any()


def test_max_median_of_a_dark_target_is_0() -> None:
    assert not max_median(target(3, level=10)).any()


@pytest.mark.parametrize("length", [0, -3, 4, 2.5])
def test_max_median_refuses_a_length_that_is_not_a_positive_odd_number(length: Any) -> None:
    with pytest.raises(ValueError, match=rf"length is a positive odd number of pixels; got {length}; take 3"):
        max_median(toy(), length=length)


# --- both ---------------------------------------------------------------------------------------------


@FILTERS
@pytest.mark.parametrize("level", [0, 0.1, 77.7, 255])
@SHAPES
def test_constant_image_has_no_response(response_of: Any, level: float, shape: tuple[int, int]) -> None:
    assert not response_of(np.full(shape, level)).any()


@FILTERS
def test_constant_added_changes_nothing(response_of: Any) -> None:
    image = np.rint(noise((20, 30)))  # of whole numbers, so that no sum is rounded
    assert (response_of(image + 1000) == response_of(image)).all()
    assert (response_of(image - 1000) == response_of(image)).all()


@FILTERS
def test_response_scales_with_the_image(response_of: Any) -> None:
    image = noise((20, 30))
    np.testing.assert_allclose(response_of(3.7 * image), 3.7 * response_of(image), rtol=0, atol=1e-12)


@FILTERS
def test_mirrored_image_has_the_mirrored_response(response_of: Any) -> None:
    image = noise((20, 30))
    assert (response_of(image[:, ::-1]) == response_of(image)[:, ::-1]).all()
    assert (response_of(image.T) == response_of(image).T).all()
