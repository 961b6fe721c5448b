"""Singular values from a Gram matrix, against LAPACK's full decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from ismallnet.filters.lowrank import leading, to_unit


@pytest.mark.parametrize("expected", [0, 30])
@pytest.mark.parametrize("rank", [0, 1, 7, 30])
def test_leading_pairs_are_those_of_the_full_decomposition(rank: int, expected: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(30, 200))
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    threshold = np.append(np.inf, s)[rank] - 1e-9 if rank else s[0] + 1
    values, vectors = leading(matrix @ matrix.T, threshold, expected=expected)
    assert values.shape == (rank,)
    assert np.allclose(values, s[:rank][::-1], rtol=1e-12)
    assert np.allclose(vectors @ vectors.T, u[:, :rank] @ u[:, :rank].T, atol=1e-12)


@pytest.mark.parametrize("expected", [0, 30])
@pytest.mark.parametrize("index", [1, 5, 20])
def test_value_that_is_the_threshold_is_left_out(index: int, expected: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(30, 200)) * np.logspace(0, -4, 30)[:, None]
    gram = matrix @ matrix.T
    threshold = np.sqrt(np.linalg.eigvalsh(gram)[::-1][index])
    assert len(leading(gram, threshold, expected=expected)[0]) == index


def test_scaling_to_unit_ends_at_0_and_1_and_a_constant_is_0() -> None:
    assert to_unit(np.array([3.0, 5.0, 4.0])).tolist() == [0, 1, 0.5]
    assert to_unit(np.full(3, 7.0)).tolist() == [0, 0, 0]
