"""The order statistics of a stream are those of its frames side by side."""

from __future__ import annotations

import numpy as np
import pytest

from ismallnet.media import quantile_ranks
from ismallnet.streams.window import find_levels

RANDOM = np.random.default_rng(3)


@pytest.mark.parametrize(
    "types",
    [
        (np.uint8,), (np.uint16,), (np.int16,), (np.float32,), (np.float64,), (np.int32,),
        (np.uint8, np.uint16), (np.float32, np.uint16), (np.int32, np.float32),
    ],
)  # fmt: skip
def test_levels_are_those_of_a_sort_of_all_pixels(types: tuple[type, ...]) -> None:
    pages = []
    for n in range(6):
        kind = types[n % len(types)]
        values = RANDOM.normal(40 if kind is np.uint8 else 0, 30 if kind is np.uint8 else 900, (31, 40 + n))
        low = 0 if np.dtype(kind).kind == "u" else -np.inf
        pages.append(values.clip(low, 255 if kind is np.uint8 else np.inf).astype(kind))
    pages[0][0, 0] = -0.0 if np.dtype(types[0]).kind == "f" else 0
    levels, dtype = find_levels(lambda: iter(pages))
    values = np.sort(np.concatenate([page.ravel() for page in pages]))
    assert dtype == values.dtype
    assert levels == tuple(float(values[rank]) for rank in quantile_ranks(values.size))


@pytest.mark.parametrize("value", [0, -3, 32767])
def test_a_constant_has_one_level(value: int) -> None:
    for kind in (np.int16, np.float32):
        assert find_levels(lambda kind=kind: iter([np.full((3, 3), value, kind)]))[0] == (value,) * 3
