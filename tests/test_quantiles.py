"""Order statistics of values that come in parts, against NumPy's sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ismallnet.media import quantile_ranks
from ismallnet.quantiles import order_statistics

RANDOM = np.random.default_rng(3)
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")


@pytest.mark.parametrize("dtype", TYPES)
@given(st.data())
def test_the_values_are_those_of_the_sorted_array(dtype: str, data: st.DataObject) -> None:
    elements = (
        {"allow_nan": False, "allow_infinity": False, "allow_subnormal": False}
        if dtype in ("f4", "f8")
        else {}
    )
    values = data.draw(arrays(dtype, st.integers(1, 60), elements=elements or None))
    order = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=4))
    cut = data.draw(st.integers(0, len(values)))
    found, kind = order_statistics(lambda: iter([values[:cut], values[cut:]]), lambda _: order)
    assert found == np.sort(values)[order].tolist()
    assert kind == dtype


@pytest.mark.parametrize("dtype", ["u4", "i4", "f4"])
def test_values_that_agree_in_their_upper_half_are_told_apart(dtype: str) -> None:
    values = np.arange(1000).astype(dtype)[::-1] + np.array(2**20, dtype)
    found, _ = order_statistics(lambda: iter([values]), lambda size: (0, size // 2 - 1, size - 1))
    assert found == [2**20, 2**20 + 499, 2**20 + 999]


@pytest.mark.parametrize(
    "types",
    [
        (np.uint8,), (np.uint16,), (np.int16,), (np.float32,), (np.float64,), (np.int32,),
        (np.uint8, np.uint16), (np.float32, np.uint16), (np.int32, np.float32),
    ],
)  # fmt: skip
def test_parts_of_several_types_are_sorted_as_one(types: tuple[type, ...]) -> None:
    pages = []
    for n in range(6):
        kind = types[n % len(types)]
        values = RANDOM.normal(40 if kind is np.uint8 else 0, 30 if kind is np.uint8 else 900, (31, 40 + n))
        low = 0 if np.dtype(kind).kind == "u" else -np.inf
        pages.append(values.clip(low, 255 if kind is np.uint8 else np.inf).astype(kind))
    pages[0][0, 0] = -0.0 if np.dtype(types[0]).kind == "f" else 0
    levels, dtype = order_statistics(lambda: iter(pages), quantile_ranks)
    values = np.sort(np.concatenate([page.ravel() for page in pages]))
    assert dtype == values.dtype
    assert levels == [float(values[rank]) for rank in quantile_ranks(values.size)]


@pytest.mark.parametrize("value", [0, -3, 32767])
def test_a_constant_has_one_level(value: int) -> None:
    for kind in (np.int16, np.float32):
        page = np.full((3, 3), value, kind)
        assert order_statistics(lambda page=page: iter([page]), quantile_ranks)[0] == [value] * 3
