"""Gram matrices of iterates from their factors, against iterates multiplied out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ismallnet.filters.iterates import Iterates, Triplets

Array = NDArray[np.float64]
SHAPE = 160, 300


def data() -> Array:
    rng = np.random.default_rng(0)
    return np.asarray(rng.normal(size=(160, 160)) * 0.9 ** np.arange(160) @ rng.normal(size=SHAPE))


def triplets(matrix: Array, rank: int, factor: float) -> tuple[Triplets, Array]:
    """The largest singular values and vectors, the values multiplied for the triplets."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return Triplets(u[:, :rank], factor * s[:rank], v[:rank].T.copy()), s[:rank]


@pytest.mark.parametrize("counts", [[0] * 6, [3, 0, 5, 9, 20, 40], [9, 9000, 9000, 9, 0, 3]])
@pytest.mark.parametrize("ranks", [[0, 0, 1, 4, 2, 7], [5] * 6])
def test_gram_matrix_is_that_of_the_iterates_multiplied_out(counts: list[int], ranks: list[int]) -> None:
    """9000 of 48,000 entries are too many: the matrix is multiplied out, and factors are used after that."""
    d, rng = data(), np.random.default_rng(1)
    lows = [triplets(d, rank, factor)[0] for rank, factor in zip(ranks[:2], (0.3, 0.4), strict=True)]
    iterates = Iterates(d, d @ d.T, *lows)
    last, current = (low.matrix() for low in lows)
    assert [low.matrix().shape for low in iterates.low] == [SHAPE, SHAPE]
    for rank, count, momentum in zip(ranks, counts, np.linspace(0, 0.9, 6), strict=True):
        h = d + current + momentum * (current - last)
        gram = iterates.gram(float(momentum), h)
        assert np.abs(gram - h @ h.T).max() < 1e-13 * np.abs(h @ h.T).max()
        assert (gram == gram.T).all()
        low, singular = triplets(h, rank, 0.5)
        where = np.sort(rng.choice(d.size, count, replace=False))
        sparse = rng.normal(size=count)
        iterates.add(low, singular, where, sparse)
        last, current = current, low.matrix()
        current.ravel()[where] -= sparse


def test_triplets_are_multiplied_out_where_told_to() -> None:
    low = triplets(data(), 5, 1)[0]
    out = np.empty(SHAPE)
    assert low.matrix(out=out) is out
    assert np.allclose(out, low.left @ np.diag(low.values) @ low.right.T)
