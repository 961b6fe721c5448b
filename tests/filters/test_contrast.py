"""LCM and TLLCM; the checked values are those of an independent program, on the toy image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ismallnet.filters.contrast import lcm, tllcm
from ismallnet.filters.windows import map_largest

Plane = NDArray[np.float64]
FILTERS = pytest.mark.parametrize("response_of", [lcm, tllcm])
SHAPES = pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (5, 4), (13, 17), (31, 23)])
EPSILON = 2.0**-52


def toy() -> Plane:
    """A slope from left to right, a bright target at (32, 32) and a small dim one at (16, 48)."""
    y, x = np.mgrid[:64, :64].astype(float)
    bright = 80 * np.exp(-((y - 32) ** 2 + (x - 32) ** 2) / (2 * 1.5**2))
    return np.asarray(50 + 0.5 * x + bright + 30 * np.exp(-((y - 16) ** 2 + (x - 48) ** 2) / 2))


def noise(shape: tuple[int, int], seed: int = 0) -> Plane:
    return np.random.default_rng(seed).uniform(0, 255, shape)


def spots(shape: tuple[int, int]) -> Plane:
    """A dark noisy image with a bright spot for every 300 pixels."""
    random = np.random.default_rng(1)
    image = random.uniform(10, 30, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(1 + image.size // 300):
        row, column, level = random.uniform(0, (*shape, 200))
        image += level * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 1.5**2))
    return image


def target(side: int, *, level: float = 200) -> Plane:
    """A square target on 50, in the middle of 41×41."""
    image = np.full((41, 41), 50.0)
    start = (41 - side) // 2
    image[start : start + side, start : start + side] = level
    return image


def mirrored(image: Plane, y: int, x: int) -> float:
    """A pixel, or where it lies beyond the frame the one that it is mirrored from, the outermost repeated."""
    y, x = y % (2 * len(image)), x % (2 * len(image[0]))
    return float(image[min(y, 2 * len(image) - 1 - y), min(x, 2 * len(image[0]) - 1 - x)])


def blackened(image: Plane, y: int, x: int) -> float:
    """A pixel, or 0 beyond the frame."""
    return float(image[y, x]) if 0 <= y < len(image) and 0 <= x < len(image[0]) else 0.0


def repeated(image: Plane, y: int, x: int) -> float:
    """A pixel, or the nearest one."""
    return float(image[min(max(y, 0), len(image) - 1), min(max(x, 0), len(image[0]) - 1)])


def cell(image: Plane, y: int, x: int, n: int, beyond: Any) -> list[float]:
    reach = range(-(n // 2), n // 2 + 1)
    return [beyond(image, y + dy, x + dx) for dy in reach for dx in reach]


def cells_around(image: Plane, y: int, x: int, n: int, beyond: Any) -> list[list[float]]:
    steps = [(a, b) for a in (-n, 0, n) for b in (-n, 0, n) if (a, b) != (0, 0)]
    return [cell(image, y + dy, x + dx, n, beyond) for dy, dx in steps]


def sliding_lcm(image: Plane, cells: tuple[int, ...]) -> Plane:
    response = np.zeros(image.shape)
    for y, x in np.ndindex(image.shape):
        for n in cells:
            brightest = max(cell(image, y, x, n, mirrored))
            means = [np.mean(values) for values in cells_around(image, y, x, n, mirrored)]
            contrast = min(brightest**2 / max(mean, EPSILON) for mean in means)
            response[y, x] = max(response[y, x], contrast)
    return response


def sliding_tllcm(image: Plane, cells: tuple[int, ...], largest: int) -> Plane:
    weights = np.array([1, 2, 1, 2, 4, 2, 1, 2, 1]) / 16
    response = np.zeros(image.shape)
    for y, x in np.ndindex(image.shape):
        core = float(weights @ cell(image, y, x, 3, repeated))
        for n in cells:
            around = cells_around(image, y, x, n, blackened)
            brightest = max(np.mean(sorted(values)[-largest:]) for values in around)
            response[y, x] = max(response[y, x], core**2 / max(brightest, EPSILON) - core)
    return response


def above(response: Plane) -> int:
    """The number of pixels above mean + 3 standard deviations of the sample."""
    return int((response > response.mean() + 3 * response.std(ddof=1)).sum())


# --- LCM ----------------------------------------------------------------------------------------------


def test_lcm_of_the_toy_image_has_the_checked_values() -> None:
    response = lcm(toy())
    places = [response[32, 32], response[16, 48], response[50, 20], response[0, 0]]
    assert places == pytest.approx([305.83482, 141.32259, 59.58465, 49.61468], abs=6e-6)
    assert response.mean() == pytest.approx(74.287181, abs=1e-6)
    assert response.std(ddof=1) == pytest.approx(38.859185, abs=1e-6)
    assert above(response) == 117


def test_lcm_of_the_toy_image_is_largest_beside_the_target() -> None:
    response = lcm(toy())
    assert response.max() == pytest.approx(305.9556, abs=5e-5)
    assert np.unravel_index(response.argmax(), response.shape) == (30, 32)


def test_lcm_by_default_has_cells_of_3_to_9() -> None:
    assert (lcm(toy()) == lcm(toy(), cells=(3, 5, 7, 9))).all()


@SHAPES
@pytest.mark.parametrize("cells", [(1,), (3,), (9,), (3, 5, 7, 9)])
def test_lcm_is_the_sliding_window_version(shape: tuple[int, int], cells: tuple[int, ...]) -> None:
    image = noise(shape)
    np.testing.assert_allclose(lcm(image, cells=cells), sliding_lcm(image, cells), rtol=1e-13)


def test_lcm_of_one_pixel_is_a_square_plateau_of_9_px() -> None:
    expected = np.full((41, 41), 50.0)
    expected[16:25, 16:25] = 200**2 / 50
    response = lcm(target(1))
    assert (response[16:25, 16:25] == 800).all()
    assert ((response > 50) == (expected > 50)).all()


@pytest.mark.parametrize("side", [1, 3, 5])
def test_lcm_widens_a_target_by_8_px(side: int) -> None:
    assert ((lcm(target(side)) > 50).sum(0) == (side + 8) * (target(side + 8) > 50).any(0)).all()


def test_lcm_of_the_toy_image_100_brighter_is_another() -> None:
    assert lcm(toy() + 100)[32, 32] == pytest.approx(356.61, abs=5e-3)


@pytest.mark.parametrize("level", [0, 0.1, 77.7, 255])
@SHAPES
def test_lcm_of_a_constant_image_is_the_constant_and_has_no_target(
    level: float, shape: tuple[int, int]
) -> None:
    response = lcm(np.full(shape, level))
    assert response.min() == response.max() == pytest.approx(level, rel=1e-15)


def test_lcm_of_a_pixel_on_black_takes_epsilon_for_the_surround() -> None:
    image = np.zeros((41, 41))
    image[20, 20] = 200
    response = lcm(image)
    assert response[20, 20] == 200**2 / EPSILON
    assert (response > 0).sum() == 9 * 9


def test_lcm_beside_a_bright_area_is_exactly_0_where_all_is_black() -> None:
    image = np.zeros((41, 41))
    image[:, :10] = noise((41, 10))
    assert not lcm(image)[:, 14:].any()


# --- TLLCM --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "bright", "dim", "count"),
    [
        ((9,), 105.31841, 14.91052, 22),
        ((5, 7, 9), 110.68735, 19.42491, 25),
        ((3, 5, 7, 9), 110.68735, 20.44843, 25),
    ],
)
def test_tllcm_of_the_toy_image_has_the_checked_values(
    cells: tuple[int, ...], bright: float, dim: float, count: int
) -> None:
    response = tllcm(toy(), cells=cells)
    assert [response[32, 32], response[16, 48]] == pytest.approx([bright, dim], abs=6e-6)
    assert response[50, 20] == 0
    assert above(response) == count


def test_tllcm_of_the_toy_image_has_the_checked_mean_and_deviation() -> None:
    response = tllcm(toy())
    assert response.mean() == pytest.approx(0.265566, abs=1e-6)
    assert response.std(ddof=1) == pytest.approx(3.83472, abs=1e-6)


def test_tllcm_by_default_has_the_one_scale_of_the_authors() -> None:
    assert (tllcm(toy()) == tllcm(toy(), cells=(9,), largest=9)).all()


@SHAPES
@pytest.mark.parametrize(
    ("cells", "largest"),
    [((3,), 9), ((5,), 25), ((7,), 4), ((9,), 1), ((9,), 9), ((5, 7, 9), 9), ((11, 15), 20)],
)
def test_tllcm_is_the_sliding_window_version(
    shape: tuple[int, int], cells: tuple[int, ...], largest: int
) -> None:
    image = spots(shape)
    expected = sliding_tllcm(image, cells, largest)
    assert expected.any()
    response = tllcm(image, cells=cells, largest=largest)
    np.testing.assert_allclose(response, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 9, 12, 15])
@pytest.mark.parametrize("keep", [1, 4, 9, 20, 225])
def test_largest_pixels_of_windows_are_those_of_a_full_sort(n: int, keep: int) -> None:
    keep = min(keep, n**2)
    image = noise((80, 250))  # sorted in two pieces
    windows = np.lib.stride_tricks.sliding_window_view(image, (n, n))
    expected = np.sort(windows.reshape(*windows.shape[:2], -1))[..., n**2 - keep :]

    def weighted(stack: list[Plane]) -> Plane:
        assert len(stack) == keep
        return np.sort(stack, 0).T @ np.arange(1.0, keep + 1)

    found = map_largest(image, n, [(1, 0), (0, 1)], keep, weighted)
    np.testing.assert_allclose(found, expected @ np.arange(1.0, keep + 1), rtol=1e-13)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (np.rint(noise((40, 50))), np.uint8),
        (np.rint(200 * noise((40, 50))), np.uint16),
        (np.rint(noise((40, 50))) - 100, np.float32),
        (noise((40, 50)).astype(np.float32), np.float32),
        (300 * np.rint(noise((40, 50))) + 0.1, np.float64),
        (1e200 * noise((40, 50)), np.float64),
    ],
)
def test_largest_pixels_are_compared_in_the_narrowest_type_and_stay_the_same(image: Plane, kind: Any) -> None:
    seen = []

    def least(stack: list[NDArray[Any]]) -> NDArray[Any]:
        seen.extend(plane.dtype for plane in stack)
        return np.min(stack, 0)

    found = map_largest(image.astype(np.float64), 5, [(1, 0), (0, 1)], 4, least)
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), (5, 5))
    assert (found == np.sort(windows.reshape(*windows.shape[:2], -1))[..., -4]).all()
    assert set(seen) == {np.dtype(kind)}


def test_tllcm_of_8_bit_grey_levels_is_the_sliding_window_version() -> None:
    image = np.rint(spots((31, 23))).clip(0, 255)
    np.testing.assert_allclose(tllcm(image), sliding_tllcm(image, (9,), 9), rtol=1e-12, atol=1e-12)


def test_tllcm_of_one_pixel_is_the_value_by_hand() -> None:
    """The core is 50 + 150 / 4 = 87.5, beside it 50 + 150 / 8 and 50 + 150 / 16; the surround is 50."""
    beside, corner = 68.75 * (68.75 / 50 - 1), 59.375 * (59.375 / 50 - 1)
    response = tllcm(target(1))
    expected = [[corner, beside, corner], [beside, 65.625, beside], [corner, beside, corner]]
    np.testing.assert_allclose(response[19:22, 19:22], expected, rtol=1e-14)
    assert np.count_nonzero(response) == 9


@pytest.mark.parametrize("thickness", [1, 2, 5])
def test_tllcm_of_a_straight_line_is_0(thickness: int) -> None:
    line = np.full((41, 41), 50.0)
    line[20 : 20 + thickness] = 200
    assert not tllcm(line).any()
    assert not tllcm(line.T).any()


def test_tllcm_of_a_plane_is_0_away_from_the_frame() -> None:
    plane = np.add.outer(3 * np.arange(50.0), 2 * np.arange(60.0))
    assert not tllcm(plane)[13:-13, 13:-13].any()


def test_tllcm_of_the_toy_image_100_brighter_is_another() -> None:
    assert tllcm(toy() + 100)[32, 32] == pytest.approx(78.1, abs=0.05)


@pytest.mark.parametrize("level", [0, 0.1, 77.7, 255])
@pytest.mark.parametrize("shape", [(27, 27), (41, 30), (14, 100)])
def test_tllcm_of_a_constant_image_is_exactly_0(level: float, shape: tuple[int, int]) -> None:
    assert not tllcm(np.full(shape, level), cells=(5, 7, 9)).any()


def test_tllcm_without_a_cell_inside_the_frame_takes_epsilon_for_the_surround() -> None:
    assert tllcm(np.full((3, 4), 10.0)) == pytest.approx(np.full((3, 4), 100 / EPSILON))
    assert not tllcm(np.zeros((3, 4))).any()


@pytest.mark.parametrize(("cells", "largest", "most"), [((9,), 82, 81), ((9, 3), 10, 9), ((9,), 0, 81)])
def test_tllcm_refuses_to_average_more_pixels_than_the_smallest_cell_has(
    cells: tuple[int, ...], largest: int, most: int
) -> None:
    with pytest.raises(ValueError, match=rf"largest is from 1 to {most}, .*; got {largest}; take"):
        tllcm(toy(), cells=cells, largest=largest)


# --- both ---------------------------------------------------------------------------------------------


@FILTERS
def test_response_scales_with_the_image(response_of: Any) -> None:
    image = noise((30, 40))
    np.testing.assert_allclose(response_of(3.7 * image), 3.7 * response_of(image), rtol=1e-12, atol=1e-12)


@FILTERS
def test_turned_image_has_the_turned_response(response_of: Any) -> None:
    image = np.rint(noise((30, 40)))
    np.testing.assert_allclose(response_of(np.rot90(image)), np.rot90(response_of(image)), rtol=1e-13)


@FILTERS
def test_levels_below_0_count_as_0(response_of: Any) -> None:
    image = noise((30, 40)) - 128
    assert (response_of(image) == response_of(np.where(image > 0, image, 0))).all()
    assert not response_of(image - 255).any()


@FILTERS
@pytest.mark.parametrize("n", [0, -3, 4, 2.5])
def test_cell_whose_side_is_not_a_positive_odd_number_is_refused(response_of: Any, n: Any) -> None:
    with pytest.raises(ValueError, match=rf"side is a positive odd number of pixels; got {n}; take 3"):
        response_of(toy(), cells=(9, n))


@FILTERS
def test_no_cell_is_refused(response_of: Any) -> None:
    with pytest.raises(ValueError, match="cells is empty; give the side of one cell or more"):
        response_of(toy(), cells=())
