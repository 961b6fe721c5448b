"""Singular values from a Gram matrix, against LAPACK's full decompositions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ismallnet.filters import lowrank
from ismallnet.filters.lowrank import Follower, follow, largest, leading, to_unit

Array = NDArray[np.float64]


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


# --- matrices that are large enough to be decomposed step by step -------------------------------------


def with_values(values: Array, *, seed: int = 0) -> Array:
    """A symmetric matrix of these eigenvalues."""
    side = len(values)
    vectors = np.linalg.qr(np.random.default_rng(seed).normal(size=(side, side)))[0]
    product = (vectors * values) @ vectors.T
    return np.asarray((product + product.T) / 2)


def svt(values: Array, vectors: Array, threshold: float) -> Array:
    """SVT of the square root of a Gram matrix, which has the singular values and left vectors of X."""
    return np.asarray((vectors * np.maximum(values - threshold, 0)) @ vectors.T)


def full(gram: Array, threshold: float) -> Array:
    """That by LAPACK."""
    values, vectors = np.linalg.eigh(gram)
    return svt(np.sqrt(np.maximum(values, 0)), vectors, threshold)


GRAMS = {
    "fall slowly": with_values(1 / np.arange(1.0, 151)),
    "over 16 decades": with_values(np.logspace(6, -10, 150)),
    "rank three": with_values(np.r_[np.full(3, 7.0), np.zeros(147)]),
    "in two heaps": with_values(np.r_[np.full(10, 100.0), np.full(10, 100 + 1e-9), np.ones(130)]),
    "all the same": 4 * np.eye(150),
    "on the diagonal": np.diag(np.arange(150.0)),
    "in blocks": np.kron(np.eye(3), with_values(np.arange(50.0))),
    "none": np.zeros((150, 150)),
}


@pytest.mark.parametrize("expected", [0, 29, 150])
@pytest.mark.parametrize("count", [0, 1, 9, 25, 100, 149])
@pytest.mark.parametrize("name", GRAMS)
def test_leading_pairs_of_a_large_matrix_are_those_of_the_full_decomposition(
    name: str, count: int, expected: int
) -> None:
    gram = GRAMS[name]
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))[::-1]
    between = np.append(roots[0] + 1, (roots[:-1] + roots[1:]) / 2)
    threshold = max(float(between[count]), 1e-6 * float(roots[0]))  # below are rounding errors
    values, vectors = leading(gram.copy(), threshold, expected=expected)
    assert len(values) == (roots - threshold > 1e-8).sum()
    assert np.abs(vectors.T @ vectors - np.eye(len(values))).max(initial=0) < 1e-12
    assert np.abs(svt(values, vectors, threshold) - full(gram, threshold)).max() < 1e-10 * max(1, roots[0])


@pytest.mark.parametrize("expected", [0, 150])
def test_without_the_divide_and_conquer_of_scipy_1_16_the_pairs_are_the_same(
    monkeypatch: pytest.MonkeyPatch, expected: int
) -> None:
    monkeypatch.setattr(lowrank, "_DIVIDE", None)
    gram = GRAMS["fall slowly"]
    values, vectors = leading(gram.copy(), 0.1, expected=expected)  # 1 / 100 is the 100th
    assert len(values) in (99, 100)
    assert np.abs(svt(values, vectors, 0.1) - full(gram, 0.1)).max() < 1e-12


@pytest.mark.parametrize("side", [30, 150])
def test_largest_pairs_are_those_of_the_full_decomposition_and_the_matrix_is_left_alone(side: int) -> None:
    gram = with_values(np.arange(1.0, side + 1))
    copy = gram.copy()
    values, vectors = largest(gram, 5)
    assert np.allclose(values, np.arange(side - 4, side + 1))
    assert np.allclose(gram @ vectors, vectors * values)
    assert (gram == copy).all()


# --- from the last vectors ----------------------------------------------------------------------------


def basis_of(gram: Array, width: int) -> tuple[Array, float]:
    values, vectors = np.linalg.eigh(gram)
    return vectors[:, -width:], float(values[-width])


def moved(gram: Array, size: float) -> Array:
    """The Gram matrix of X and a change of X."""
    rng = np.random.default_rng(1)
    root = np.linalg.cholesky(gram) + size * rng.normal(size=gram.shape) / len(gram)
    return np.asarray(root @ root.T)


def test_pairs_followed_are_those_of_the_full_decomposition_within_the_tolerance() -> None:
    before = with_values(np.arange(1.0, 201) ** -2)
    gram, threshold = moved(before, 0.1), 0.13
    basis, bound = basis_of(before, 20)
    for tolerance in (1e-4, 1e-8):
        found = follow(gram, threshold, basis, bound, tolerance=tolerance)
        assert found is not None
        assert len(found.singular) == (np.linalg.eigvalsh(gram) > threshold**2).sum() == 7
        assert found.basis.shape == (200, 20)
        error = svt(found.singular, found.vectors, threshold) - full(gram, threshold)
        assert np.linalg.norm(error) <= 2 * tolerance


def test_value_that_the_last_vectors_cannot_see_is_not_missed() -> None:
    """Exactly orthogonal to all of them: no number of rounds finds it, the Cholesky decomposition does."""
    gram = np.diag(np.r_[50.0, np.ones(149), np.linspace(10, 90, 10)])
    basis = np.eye(160)[:, -20:]
    assert follow(gram, 3.0, basis, 0.9, tolerance=1e-8) is None
    gram[0, 0] = 1
    found = follow(gram, 3.0, basis, 0.9, tolerance=1e-8)
    assert found is not None
    assert np.allclose(found.singular, np.sqrt(np.linspace(10, 90, 10)))


def test_vectors_too_far_off_for_the_rounds_are_not_taken() -> None:
    gram = with_values(np.arange(1.0, 201) ** -0.5)
    basis, bound = basis_of(with_values(np.arange(1.0, 201) ** -0.5, seed=2), 20)
    assert follow(gram, 0.6, basis, bound, tolerance=1e-8) is None


@pytest.mark.parametrize("hidden", [False, True])
def test_followers_pairs_are_those_of_full_decompositions(
    monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    """Five matrices, one like the other; or with a value that comes from nowhere in the third."""
    dense: list[int] = []

    def counted(gram: Array, threshold: float, *, expected: int) -> tuple[Array, Array]:
        dense.append(expected)
        return leading(gram, threshold, expected=expected)

    monkeypatch.setattr(lowrank, "leading", counted)
    gram = np.diag(np.r_[0.2, np.arange(1.0, 240) ** -2][::-1].copy())
    gram[:-1, :-1] = with_values(np.arange(1.0, 240) ** -2)
    values, vectors = np.linalg.eigh(gram[:-1, :-1])
    find = Follower(values[-20:], np.pad(vectors[:, -20:], ((0, 1), (0, 0))), tolerance=1e-9)
    rank = 3
    for step in range(5):
        gram[:-1, :-1] = moved(gram[:-1, :-1], 0.02)
        gram[-1, -1] = 0.3 if hidden and step >= 2 else 0.0
        singular, left = find(gram.copy(), 0.25, expected=rank)
        rank = len(singular)
        assert rank == (np.linalg.eigvalsh(gram) > 0.25**2).sum()
        assert np.abs(svt(singular, left, 0.25) - full(gram, 0.25)).max() < 1e-8
    assert len(dense) == (3 if hidden else 0)


def test_follower_of_more_than_a_few_values_decomposes() -> None:
    gram = with_values(np.arange(1.0, 201) ** -2)
    values, vectors = np.linalg.eigh(gram)
    find = Follower(values[-20:], vectors[:, -20:], tolerance=1e-9)
    singular, left = find(gram.copy(), 0.02, expected=30)
    assert len(singular) == 49
    assert np.abs(svt(singular, left, 0.02) - full(gram, 0.02)).max() < 1e-12


def test_scaling_to_unit_ends_at_0_and_1_and_a_constant_is_0() -> None:
    assert to_unit(np.array([3.0, 5.0, 4.0])).tolist() == [0, 1, 0.5]
    assert to_unit(np.full(3, 7.0)).tolist() == [0, 0, 0]
