"""Test-time augmentation: what is averaged, and that it is registered before; what is confirmed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from ismallnet.detector import Detector
from ismallnet.maps import Maps
from ismallnet.rules import Fixed
from ismallnet.tiles import Tiling
from ismallnet.views import averaged, confirmed


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((height, width), dtype=np.float32)


def far(image: np.ndarray) -> np.ndarray:
    """A response that knows left from right: a pixel's is that of the pixel five to its right."""
    return np.roll(image, -5, axis=1)


def detector(function, views: int) -> Detector:
    made = Detector(function, name="toy", rule=Fixed())
    made.views = views
    return made


def squares(offset: tuple[int, int]) -> np.ndarray:
    """Five bright squares of 4×4, far from each other and from the border, moved by an offset."""
    plane = np.zeros((80, 96), np.float32)
    for y, x in ((12, 14), (12, 60), (40, 38), (62, 12), (62, 78)):
        plane[y + offset[0] : y + offset[0] + 4, x + offset[1] : x + offset[1] + 4] = 1
    return plane


SHIFTS = {
    1: [(0, 5)],
    2: [(0, 5), (0, -5)],
    4: [(0, 5), (0, -5), (0, 5), (0, -5)],
    8: [(0, 5), (0, -5), (0, 5), (0, -5), (5, 0), (-5, 0), (5, 0), (-5, 0)],
}
INNER = (slice(8, -8), slice(8, -8))
"""Where no window meets the border: nothing of `far` comes nearer there when it is moved by a pixel."""


def mean(image: np.ndarray, views: int) -> np.ndarray:
    return np.mean([np.roll(image, (-y, -x), axis=(0, 1)) for y, x in SHIFTS[views]], axis=0)


@pytest.mark.parametrize("views", SHIFTS)
def test_views_are_averaged_as_the_image_lies(views: int) -> None:
    image = noise(60, 71)
    for score in (detector(far, views).score(image), next(detector(far, views).many([image])).score):
        np.testing.assert_allclose(score[INNER], mean(image, views)[INNER], atol=1e-6)


@pytest.mark.parametrize("views", [2, 4, 8])
def test_outlines_that_reach_to_one_side_are_laid_upon_each_other(views: int) -> None:
    """A detector whose outlines reach a pixel further left and up than the light does so in turned images."""

    def to_a_side(image: np.ndarray) -> np.ndarray:
        moved = [np.roll(image, move, axis=(0, 1)) for move in ((0, 0), (-1, 0), (0, -1), (-1, -1))]
        return np.max(moved, axis=0)

    image = squares((0, 0))
    once, often = (detector(to_a_side, n).score(image) for n in (1, views))
    assert once.sum() == 5 * 25
    np.testing.assert_array_equal(often, once)


def test_two_pixels_are_too_far_to_be_moved() -> None:
    image = squares((0, 0))
    score = detector(lambda image: np.roll(image, -2, axis=1), 2).score(image)
    np.testing.assert_allclose(score, (squares((0, -2)) + squares((0, 2))) / 2)


def test_what_one_view_alone_has_is_outvoted() -> None:
    calls = iter(range(8))

    def respond(stack: np.ndarray) -> Maps:
        response = np.zeros_like(stack)
        if next(calls) == 0:
            response[:, 20:24, 20:24] = 1
        return Maps(response)

    score = averaged(respond, lambda x: x, 8)(np.zeros((1, 48, 48), np.float32)).target
    assert score.max() == 1 / 8


def test_every_map_is_averaged_and_before_the_sigmoid() -> None:
    def function(image: np.ndarray) -> Maps:
        response = far(image)
        return Maps(response, interior=response - 1, boundary=2 * response)

    made = Detector(function, name="toy", rule=Fixed(), logits=True)
    made.views = 4
    image = noise(60, 71)
    found = made(image)
    wanted = mean(image, 4)
    for score, logit in ((found.score, wanted), (found.interior, wanted - 1), (found.boundary, 2 * wanted)):
        assert score is not None
        np.testing.assert_allclose(score[INNER], expit(logit)[INNER], atol=1e-6)


def test_views_are_of_tiles_where_an_image_is_cut() -> None:
    image = noise(300, 500)
    whole, cut = detector(far, 2), detector(far, 2)
    cut.tiling = Tiling(128, 32, above=0)
    far_from_borders = np.abs(cut.score(image) - whole.score(image))[INNER] < 1e-6
    assert far_from_borders.mean() > 0.95  # at the borders of tiles the toy sees another neighbour


def test_another_number_of_views_is_refused() -> None:
    with pytest.raises(ValueError, match="got 3 views; give 1, 2, 4 or 8"):
        detector(far, 3).score(noise(20, 20))


def showing(*seen: float, at: tuple[int, int] = (30, 40)):
    """Answer with 2 for a square of 5×5 pixels at the sizes given (1: as it is), with 0 elsewhere."""

    def respond(stack: np.ndarray) -> Maps:
        times = stack.shape[1] / 80
        response = np.zeros_like(stack)
        if times in seen:
            top, left, bottom, right = (round(n * times) for n in (*at, at[0] + 5, at[1] + 5))
            response[:, top:bottom, left:right] = 2
        return Maps(response, interior=response + 1, boundary=response - 1)

    return respond


STACK = np.zeros((2, 80, 120), np.float32)


@pytest.mark.parametrize(
    ("seen", "kept"), [((), False), ((1.25,), True), ((0.8,), True), ((1.25, 0.8), True)]
)
def test_a_target_is_kept_where_another_size_shows_it(seen: tuple[float, ...], kept: bool) -> None:
    respond = showing(1, *seen)
    own, maps = respond(STACK), confirmed(respond, respond)(STACK)
    np.testing.assert_array_equal(maps.target, own.target if kept else 0)
    np.testing.assert_array_equal(maps.interior, own.interior)
    np.testing.assert_array_equal(maps.boundary, own.boundary)


def test_other_sizes_raise_nothing() -> None:
    respond = showing(1.25, 0.8)
    assert confirmed(respond, respond)(STACK).target.max() == 0


@pytest.mark.parametrize(("pixels", "rows"), [(3, 5), (6, 2), (12, 0)])
def test_outlines_of_other_sizes_may_lie_a_little_aside(pixels: int, rows: int) -> None:
    """By three pixels and the target is whole; further, and what is farther than that from them is lost."""
    there = showing(1.25, at=(30 + pixels, 40))
    maps = confirmed(there, showing(1))(STACK)
    assert (maps.target[0, 30:35, 40:45] > 1).any(axis=1).sum() == rows


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (81, 77)])
def test_confirmation_takes_any_size(shape: tuple[int, int]) -> None:
    made = detector(lambda image: image, 1)
    made.confirm = True
    image = np.full(shape, 0.7, np.float32)
    np.testing.assert_allclose(made.score(image), image, atol=1e-6)


def test_each_tile_is_enlarged_and_shrunk() -> None:
    made = detector(lambda image: image, 1)
    made.confirm, made.tiling = True, Tiling(128, 32, above=0)
    y, x = np.mgrid[:300, :500].astype(np.float32)
    smooth = (np.sin(x / 17) * np.cos(y / 23) / 2 + 0.5).astype(np.float32)
    np.testing.assert_allclose(made.score(smooth)[INNER], smooth[INNER], atol=1e-3)  # the same at any size
    dots = np.zeros((300, 500), np.float32)
    dots[12::37, 12::37] = 1
    score = made.score(dots)
    assert (score <= dots).all()
    assert 0.3 < score[dots > 0].min() < score.max() < 1  # dimmer when enlarged and shrunk


def test_confirmation_costs_two_views_whatever_their_number() -> None:
    heights: list[int] = []

    def respond(image: np.ndarray) -> np.ndarray:
        heights.append(len(image))
        return image

    made = detector(respond, 2)
    made.confirm = True
    made.score(noise(80, 120))
    assert heights == [80, 80, 100, 64]


def test_stacks_go_through_together() -> None:
    seen: list[tuple[int, ...]] = []

    def respond(stack: np.ndarray) -> Maps:
        seen.append(stack.shape)
        return Maps(stack)

    confirmed(respond, respond)(STACK)
    assert seen == [(2, 80, 120), (2, 100, 150), (2, 64, 96)]
