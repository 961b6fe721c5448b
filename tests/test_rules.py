"""Rules on maps in parts: what they decide on whole maps is in test_detector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ismallnet.rules import Fixed, Statistical, mean_and_deviation, mean_and_deviation_of_bands


@given(
    st.integers(2, 60),
    st.lists(st.integers(1, 59), max_size=4),
    st.sampled_from([0.0, 1e4, -3e6]),
    st.integers(0, 2**32 - 1),
)
def test_the_statistics_of_bands_are_those_of_the_whole_map(
    height: int, cuts: list[int], offset: float, seed: int
) -> None:
    """The offset is where a sum of squares, from which the squared mean is taken, has no digit left."""
    score = (np.random.default_rng(seed).normal(0, 1, (height, 7)) + offset).astype(np.float32)
    bands = np.split(score, sorted({cut for cut in cuts if cut < height}))
    got, wanted = mean_and_deviation_of_bands(bands), mean_and_deviation(score)
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)
    assert Statistical(3).threshold_of_bands(bands) == got[0] + 3 * got[1]


def test_by_hand() -> None:
    bands = (np.array([[value]], np.float32) for value in (0, 0, 0, 4))  # mean 1, squares 12, 12 / 3 = 4
    assert mean_and_deviation_of_bands(bands) == (1, 2)


@pytest.mark.parametrize("value", [0.1, 3e7])
def test_a_constant_map_has_exactly_its_value_and_no_deviation(value: float) -> None:
    bands = [np.full((height, 47), value, np.float32) for height in (3, 30, 1)]
    assert mean_and_deviation_of_bands(bands) == (np.float32(value), 0)


def test_no_pixel_is_an_error() -> None:
    with pytest.raises(ValueError, match="without pixels"):
        mean_and_deviation_of_bands([])


def test_a_fixed_threshold_reads_nothing() -> None:
    assert Fixed(0.25).threshold_of_bands(iter(())) == 0.25
