"""Tiles: every pixel covered, weights that sum to one, the map of the whole image wherever it can be."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ismallnet.filters import create_filter
from ismallnet.tiles import GRID, Tiling, batches, seams, spans, walk

tilings = st.builds(
    lambda side, part: Tiling(side, int(part * side)),
    st.integers(128, 200),
    st.floats(0, 1 / 3, allow_subnormal=False),
)
lengths = st.integers(1, 900)


def walked(image: np.ndarray, tiling: Tiling, function, batch_px: int = 1) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The maps of an image, put together from its bands."""
    bands = walk(lambda y0, y1: image[y0:y1], function, image.shape, tiling, batch_px=batch_px)
    return np.concatenate(list(bands), axis=-2)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 992 + width).random((height, width), dtype=np.float32)


@given(lengths, tilings)
def test_spans_cover_a_length_and_share_the_overlap(length: int, tiling: Tiling) -> None:
    cut = spans(length, tiling)
    assert cut[0][0] == 0
    assert cut[-1][1] == length
    assert all(start % GRID == 0 for start, _ in cut)
    assert all(stop - start == tiling.side for start, stop in cut[:-1])
    assert all(before[1] - after[0] >= tiling.overlap for before, after in pairwise(cut))
    if length > tiling.side:
        assert tiling.side - GRID < cut[-1][1] - cut[-1][0] <= tiling.side


@given(lengths, tilings)
def test_no_pixel_is_blended_of_more_than_two_and_each_is_far_from_the_edges(
    length: int, tiling: Tiling
) -> None:
    cut = spans(length, tiling)
    fades = seams(cut, tiling.overlap)
    assert all(one[1] <= other[0] for one, other in pairwise(fades))
    for (_, stop), (start, _), fade in zip(cut, cut[1:], fades, strict=False):
        assert fade[0] - start >= tiling.overlap // 4
        assert stop - fade[1] >= tiling.overlap // 4


def test_a_length_by_hand() -> None:
    tiling = Tiling(side=128, overlap=32)
    assert spans(128, tiling) == [(0, 128)]
    assert spans(129, tiling) == [(0, 128), (32, 129)]
    assert spans(224, tiling) == [(0, 128), (96, 224)]
    assert seams(spans(224, tiling), 32) == [(104, 120)]  # they share 96 to 128, its middle is 112


@given(lengths, lengths, tilings, st.sampled_from([1, 2**17]))
def test_a_pointwise_function_gives_the_map_of_the_whole_image_bit_for_bit(
    height: int, width: int, tiling: Tiling, batch_px: int
) -> None:
    image = noise(height, width)
    maps = walked(image, tiling, lambda tiles: np.stack([np.sqrt(tiles), -tiles], axis=1), batch_px)
    np.testing.assert_array_equal(maps, [np.sqrt(image), -image])


@given(st.integers(129, 500), tilings)
def test_the_weights_of_the_tiles_are_in_0_1_and_sum_to_one(length: int, tiling: Tiling) -> None:
    """The blend is linear: the weight of a tile is the map where that tile answers 1 and all others 0."""
    image = np.zeros((length, 140), np.float32)
    count = len(spans(length, tiling)) * len(spans(140, tiling))

    def weight(chosen: int) -> np.ndarray:
        tile = iter(range(count))
        return walked(
            image, tiling, lambda x: np.full((1, 1, *x.shape[1:]), next(tile) == chosen, np.float32)
        )

    weights = [weight(chosen) for chosen in range(count)]
    assert np.min(weights) >= 0
    assert np.max(weights) <= 1
    np.testing.assert_allclose(np.sum(weights, axis=0), 1, atol=1e-6)


@pytest.mark.parametrize(("name", "reach"), [("top-hat", 8), ("max-median", 4), ("lcm", 13)])
def test_a_filter_whose_window_the_overlap_covers_gives_the_map_of_the_whole_image(
    name: str, reach: int
) -> None:
    function = create_filter(name)
    image = noise(333, 290)
    tiling = Tiling(side=160, overlap=4 * reach)
    maps = walked(image, tiling, lambda tiles: np.stack([function(tile)[None] for tile in tiles]))
    np.testing.assert_array_equal(maps[0], function(image))


def test_a_filter_that_looks_further_than_the_overlap_covers_does_not() -> None:
    function = create_filter("top-hat")
    image = noise(333, 290)
    maps = walked(image, Tiling(160, 0), lambda tiles: np.stack([function(tile)[None] for tile in tiles]))
    assert (maps[0] != function(image)).any()


def test_neighbours_fade_into_each_other_linearly() -> None:
    """Two tiles that answer 0 and 1: between them a ramp over half the overlap."""
    answers = iter((0, 1))
    (row,) = walked(
        np.zeros((1, 224), np.float32),
        Tiling(side=128, overlap=32),
        lambda tiles: np.full((1, 1, *tiles.shape[1:]), next(answers), np.float32),
    )[0]
    np.testing.assert_allclose(row[104:120], (np.arange(16) + 0.5) / 16)
    assert not row[:104].any()
    assert (row[120:] == 1).all()


def test_rows_are_read_from_top_to_bottom_a_tile_high_and_never_all() -> None:
    read = []

    def rows(y0: int, y1: int) -> np.ndarray:
        read.append((y0, y1))
        return np.zeros((y1 - y0, 50), np.float32)

    bands = walk(rows, lambda tiles: tiles[:, None], (992, 50), Tiling(128, 32), batch_px=1)
    first = next(bands)
    assert read == [(0, 128), (96, 224)]
    assert first.shape == (1, 104, 50)
    assert sum(band.shape[1] for band in bands) == 992 - 104
    assert read == spans(992, Tiling(128, 32))


def test_batches_hold_images_of_one_size_and_no_more_than_fits() -> None:
    sizes = [(4, 4)] * 5 + [(4, 6)] + [(4, 4)]
    stacks = batches((np.zeros(size, np.float32) for size in sizes), 40)
    assert [stack.shape for stack in stacks] == [(2, 4, 4), (2, 4, 4), (1, 4, 4), (1, 4, 6), (1, 4, 4)]


@pytest.mark.parametrize(("side", "overlap"), [(127, 0), (128, -1), (128, 43)])
def test_a_wrong_tiling_is_refused(side: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="side of at least 128 pixels, of which at most a third overlaps"):
        Tiling(side, overlap)


def test_a_smooth_function_is_blended_without_a_step() -> None:
    """Each tile takes off its own mean: the borders do not show."""
    image = cv2.GaussianBlur(noise(400, 400), (0, 0), 20)
    image = (image - image.min()) / np.ptp(image)

    def centred(tiles: np.ndarray) -> np.ndarray:
        return (tiles - tiles.mean(axis=(1, 2), keepdims=True))[:, None]

    def step(overlap: int) -> float:
        return float(np.abs(np.diff(walked(image, Tiling(160, overlap), centred)[0], axis=0)).max())

    assert step(48) < step(0) / 3
