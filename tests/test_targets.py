"""Components and their measures, against hand counts and SciPy."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from ismallnet.targets import find, find_in_bands, label
from ismallnet.types import Target

MASK = np.array(
    [
        [0, 1, 0, 0, 0],
        [1, 0, 0, 0, 1],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
    ],
    bool,
)
"""Three components by eye: a diagonal pair, a column of two, a row of two."""


def test_diagonal_neighbours_are_one_component() -> None:
    count, labels = label(MASK)
    assert count == 3
    assert labels.dtype == np.int32
    assert labels[0, 1] == labels[1, 0] == 1


def test_components_are_numbered_in_raster_order() -> None:
    _, labels = label(MASK)
    assert (labels[0, 1], labels[1, 4], labels[4, 0]) == (1, 2, 3)


def test_without_a_score_peak_and_mean_are_one_and_the_centroid_is_plain() -> None:
    first, second, third = find(MASK)
    assert (first.x0, first.y0, first.x1, first.y1) == (0, 0, 2, 2)
    assert (first.x, first.y, first.area, first.peak, first.mean) == (0.5, 0.5, 2, 1, 1)
    assert (second.x, second.y) == (4, 1.5)
    assert (third.x, third.y) == (0.5, 4)


def test_the_score_weighs_the_centroid() -> None:
    score = np.zeros(MASK.shape, np.float32)
    score[1, 4], score[2, 4] = 0.25, 0.75
    target = next(t for t in find(MASK, score) if t.x0 == 4)
    assert target.y == 1.75  # 1 · 0.25 + 2 · 0.75
    assert (target.peak, target.mean) == (0.75, 0.5)


def test_the_highest_peak_comes_first_and_ties_keep_label_order() -> None:
    score = np.where(MASK, np.float32(0.5), 0)
    assert [t.y0 for t in find(MASK, score)] == [0, 1, 4]
    score[4, 1] = 0.75
    assert [t.y0 for t in find(MASK, score)] == [4, 0, 1]


def test_negative_scores_do_not_move_the_centroid_out_of_the_box() -> None:
    row = np.array([[True, True]])
    (target,) = find(row, np.array([[-5.0, 1.0]], np.float32))
    assert (target.x, target.peak, target.mean) == (1, 1, -2)
    (target,) = find(row, np.array([[-5.0, -1.0]], np.float32))
    assert (target.x, target.peak) == (0.5, -1)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (4, 4)])
def test_an_empty_mask_has_no_target(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, bool)
    assert find(mask) == ()
    count, labels = label(mask)
    assert (count, labels.shape) == (0, shape)


def test_a_full_mask_is_one_target() -> None:
    (target,) = find(np.ones((3, 5), bool))
    assert (target.x0, target.y0, target.x1, target.y1, target.area) == (0, 0, 5, 3, 15)


def test_a_mask_of_any_type_counts_what_is_not_zero() -> None:
    assert find(MASK.astype(np.uint8) * 255) == find(MASK) == find(MASK.astype(np.float32) * 0.1)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3, 3\)"):
        find(np.zeros((3, 3, 3), bool))
    with pytest.raises(ValueError, match="one shape"):
        find(MASK, np.zeros((2, 2), np.float32))


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(0, 2**32 - 1))
def test_measures_agree_with_scipy(mask: np.ndarray, seed: int) -> None:
    score = np.random.default_rng(seed).random(mask.shape).astype(np.float32) + 0.1
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    expected = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        y, x = ndimage.center_of_mass(score, labels, number)
        area = int((labels == number).sum())
        peak, mean = (f(score, labels, number) for f in (ndimage.maximum, ndimage.mean))
        expected.append((columns.start, rows.start, columns.stop, rows.stop, x, y, area, peak, mean))
    found = find(mask, score)
    assert len(found) == count
    rows_found = [(t.x0, t.y0, t.x1, t.y1, t.x, t.y, t.area, t.peak, t.mean) for t in found]
    np.testing.assert_allclose(rows_found, sorted(expected, key=lambda row: -row[7]), rtol=1e-6)


# --- in bands ---


def in_bands(mask: np.ndarray, score: np.ndarray | None, cuts: list[int]) -> tuple[Target, ...]:
    """The targets of a map that is cut before some rows."""
    at = sorted(cut for cut in cuts if cut < len(mask))
    scores = [None] * (len(at) + 1) if score is None else np.split(score, at)
    return find_in_bands(zip(np.split(mask, at), scores, strict=True))


def numbers(targets: tuple[Target, ...]) -> list[tuple[float, ...]]:
    return [(t.x0, t.y0, t.x1, t.y1, t.x, t.y, t.area, t.peak, t.mean) for t in targets]


@given(
    arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 12))),
    st.lists(st.integers(0, 20), max_size=20),
    st.sampled_from(["none", "levels", "noise", "negative"]),
    st.integers(0, 2**32 - 1),
)
def test_bands_give_the_targets_of_the_whole_map(
    mask: np.ndarray, cuts: list[int], kind: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    score = {
        "none": None,
        "levels": random.integers(0, 3, mask.shape).astype(np.float32),  # equal peaks: their order counts
        "noise": random.normal(0, 1, mask.shape).astype(np.float32),
        "negative": -random.random(mask.shape, np.float32),
    }[kind]
    whole, bands = find(mask, score), in_bands(mask, score, cuts)
    assert len(bands) == len(whole)
    np.testing.assert_allclose(numbers(bands), numbers(whole), rtol=1e-9, atol=1e-9)
    exact = [(t.x0, t.y0, t.x1, t.y1, t.area, t.peak) for t in whole]
    assert [(t.x0, t.y0, t.x1, t.y1, t.area, t.peak) for t in bands] == exact


@pytest.mark.parametrize("height", [1, 2, 3])
def test_a_comb_is_one_target_whatever_the_bands(height: int) -> None:
    """Its arms are united only by the last row."""
    comb = np.zeros((9, 11), bool)
    comb[:, ::2] = True
    comb[-1] = True
    (target,) = in_bands(comb, None, list(range(0, 9, height)))
    assert (target.x0, target.y0, target.x1, target.y1, target.area) == (0, 0, 11, 9, 9 * 6 + 5)


def test_a_component_that_ended_is_not_united_with_a_later_one_in_its_place() -> None:
    mask = np.array([[1], [0], [1]], bool)
    assert [t.y0 for t in in_bands(mask, None, [1, 2])] == [0, 2]


def test_diagonal_neighbours_across_a_seam_are_one_target() -> None:
    for mask in (np.eye(2, dtype=bool), np.eye(2, dtype=bool)[::-1]):
        assert len(in_bands(mask, None, [1])) == 1


def test_bands_are_read_one_after_the_other_and_not_kept() -> None:
    alive: list[weakref.ref[Band]] = []

    class Band(np.ndarray):
        """An array whose end can be seen."""

    def bands() -> Iterator[tuple[np.ndarray, None]]:
        for _ in range(300):
            band = np.ones((1, 5), bool).view(Band)
            alive.append(weakref.ref(band))
            assert sum(reference() is not None for reference in alive) <= 3
            yield band, None

    (target,) = find_in_bands(bands())
    assert target.area == 1500


def test_bands_of_several_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="one width; got 3 and 4"):
        find_in_bands([(np.zeros((2, 3), bool), None), (np.zeros((2, 4), bool), None)])


def test_no_band_has_no_target() -> None:
    assert find_in_bands([]) == ()
