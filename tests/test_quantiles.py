"""Order statistics of values that come in parts, against NumPy's sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ismallnet.quantiles import order_statistics

TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4")


@pytest.mark.parametrize("dtype", TYPES)
@given(st.data())
def test_the_values_are_those_of_the_sorted_array(dtype: str, data: st.DataObject) -> None:
    elements = {"allow_nan": False, "allow_infinity": False} if dtype == "f4" else {}
    values = data.draw(arrays(dtype, st.integers(1, 60), elements=elements or None))
    order = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=4))
    cut = data.draw(st.integers(0, len(values)))
    found = order_statistics(lambda: iter([values[:cut], values[cut:]]), order)
    assert found == np.sort(values)[order].tolist()


@pytest.mark.parametrize("dtype", ["u4", "i4", "f4"])
def test_values_that_agree_in_their_upper_half_are_told_apart(dtype: str) -> None:
    values = np.arange(1000).astype(dtype)[::-1] + np.array(2**20, dtype)
    assert order_statistics(lambda: iter([values]), (0, 499, 999)) == [2**20, 2**20 + 499, 2**20 + 999]
