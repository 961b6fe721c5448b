"""What the low-rank detectors share: the image taken apart, and singular values from a Gram matrix.

A target is sparse where its background has low rank. Both detectors split the patches of an image that way by
singular value thresholding (SVT), many times over, and take the Gram matrix X X' for it: its eigenvectors
are the left singular vectors U of X, its eigenvalues the squared singular values s, and

    ``SVT(X, t) = U (1 - t / s) U' X`` over the s > t.

Of a matrix of 441 × 2500 that is one of 441 × 441. Squaring blurs singular values below 1e-8 of the largest;
the thresholds lie far above, so that the responses are those of full decompositions to 1e-8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from scipy.linalg import eigh, lapack

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_DIVIDE = getattr(lapack, "dstevd", None)  # divide and conquer for tridiagonal matrices: since SciPy 1.16

End = Literal["constant", "tolerance", "rank", "truncation", "support", "iterations"]


class LowRank(NamedTuple):
    """An image taken apart.

    Attributes:
        target: (H, W) float64, the sparse part.
        background: (H, W) float64, the low-rank part, on the same scale.
        iterations: Of the solver.
        rank: Of the background in the last iteration: of the one matrix (IPI), of three unfoldings (RIPT).
        support: Number of entries of the sparse part that are not 0, over all patches.
        end: The rule that stopped the solver; `constant` where it never started.
    """

    target: Array
    background: Array
    iterations: int
    rank: tuple[int, ...]
    support: int
    end: End


def leading(gram: Array, threshold: float, *, expected: int) -> tuple[Array, Array]:
    """Return the singular values of X above a threshold, and their left singular vectors.

    A value that is above it by no more than rounding may be is left out: IPI starts with the second one for a
    threshold, and a rank that chance decides is no rank.

    Args:
        gram: X X', (n, n); overwritten.
        threshold: At least 0.
        expected: Number of them, a guess. A few are found one by one, many faster all at once.

    Returns:
        (r,), rising, and (n, r).
    """
    floor = _floor(gram, threshold)
    values, vectors = _top(gram, lambda values: int(np.searchsorted(values, floor, side="right")), expected)
    return np.sqrt(values), vectors


def largest(gram: Array, count: int) -> tuple[Array, Array]:
    """Return the largest eigenvalues, (count,), rising, and their eigenvectors, (n, count)."""
    return _top(gram.copy(), lambda values: len(values) - count, count)


def _top(gram: Array, first: Callable[[Array], int], expected: int) -> tuple[Array, Array]:
    """Return the eigenvalues from the ``first(eigenvalues)``-th on and their eigenvectors.

    Takes the steps of LAPACK's drivers one by one, since none of these turns back from the tridiagonal matrix
    only the vectors wanted, or finds a few by the fastest way: all values by QR, then inverse iteration.
    """
    n = len(gram)
    few = 5 * expected < n
    if n < 64 or not (few or _DIVIDE):
        values, vectors = eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
        start = first(values)
        return values[start:], vectors[:, start:]
    reflectors, diagonal, beside, factors, _ = lapack.dsytrd(gram.T, lower=1, lwork=32 * n, overwrite_a=1)
    if few:
        values, failed = lapack.dsterf(diagonal, beside)
        start = first(values)
        few = not failed and 5 * (n - start) < n
    if few:
        blocks, ends = np.ones(n, np.intc), np.full(n, n, np.intc)  # one block, and where it ends
        vectors, failed = lapack.dstein(diagonal, beside, values[start:], blocks, ends)
        few = not failed
    if not few:
        values, vectors, failed = (_DIVIDE or lapack.dstev)(diagonal, beside)
        if failed:
            raise np.linalg.LinAlgError("the eigenvalues of a Gram matrix did not converge")
        start = first(values)
        vectors = vectors[:, start:]
    if start < n:
        lwork = 64 * (n - start)
        vectors[1:], _, _ = lapack.dormqr("L", "N", reflectors[1:, :-1], factors, vectors[1:], lwork)
    return values[start:], vectors


class Follower:
    """`leading`, of one Gram matrix after another, each like the one before.

    While few values are above the threshold, the vectors of the last one are made those of the next by
    `follow`. From the first time on that this cannot be proved right, `leading` does it, which is also faster
    where the vectors are more than a twelfth of all.

    Args:
        values: Largest eigenvalues of a matrix like the first one, (p,), rising.
        vectors: Its eigenvectors, (n, p).
        tolerance: How far SVT may be off, in the Frobenius norm.
    """

    def __init__(self, values: Array, vectors: Array, *, tolerance: float) -> None:
        self._start, self._tolerance = vectors, tolerance
        self._last = Followed(np.empty(0), vectors[:, :0], vectors[:, :0], float(values[0]))

    def __call__(self, gram: Array, threshold: float, *, expected: int) -> tuple[Array, Array]:
        """Return what `leading` does, of which the arguments are."""
        known, all_ = self._last.basis, self._start.shape[1]
        width = 2 * expected + 8
        if 12 * width <= len(gram) and width <= all_:
            more = self._start[:, all_ - width : all_ - min(width, known.shape[1])]
            basis = np.hstack((more, known[:, -width:]))
            if last := follow(gram, threshold, basis, self._last.bound, tolerance=self._tolerance):
                self._last = last
                return last.singular, last.vectors
            self._start = self._start[:, :0]
        return leading(gram, threshold, expected=expected)


class Followed(NamedTuple):
    """What `follow` found.

    Attributes:
        singular: The singular values above the threshold, (r,), rising.
        vectors: Their left singular vectors, (n, r).
        basis: Approximate eigenvectors of the Gram matrix, (n, p), those of the largest values last.
        bound: Largest eigenvalue that has no vector in the basis, about.
    """

    singular: Array
    vectors: Array
    basis: Array
    bound: float


def follow(
    gram: Array, threshold: float, basis: Array, bound: float, *, tolerance: float, rounds: int = 4
) -> Followed | None:
    """Return what `leading` does from an approximation, or None where that cannot be proved right.

    Subspace iteration, each round filtered by the Chebyshev polynomial of degree two (Y. Zhou et al., J.
    Comput. Phys. 219, 2006), until SVT is right to the tolerance: orthonormal U with U' G U = T, diagonal,
    holds singular vectors once X is changed by a matrix of the norm of ``(G U - U T) / sqrt(T)``, and SVT
    moves no further than X does. No value is missed where a Cholesky decomposition finds none of G - U T U'
    above the threshold.

    Args:
        gram: X X', (n, n).
        threshold: As of `leading`.
        basis: (n, p), orthonormal but for a part of the columns, with more columns than values are found.
        bound: As of `Followed`.
        tolerance: How far SVT may be off, in the Frobenius norm.
        rounds: At most so many.
    """
    floor = _floor(gram, threshold)
    image = gram @ basis
    for _ in range(rounds):
        bound = max(bound, floor / 16)  # so that the largest are not magnified beyond the precision
        basis = np.linalg.qr(8 / bound**2 * (gram @ image) - 8 / bound * image + basis)[0]
        image = gram @ basis
        values, turn = eigh(basis.T @ image, driver="evd", check_finite=False)
        basis, image, bound = basis @ turn, image @ turn, float(values[0])
        start = np.searchsorted(values, floor, side="right")
        above, vectors = values[start:], basis[:, start:]
        if np.linalg.norm((image[:, start:] - vectors * above) / np.sqrt(above)) <= tolerance:
            break
    else:
        return None
    others = (vectors * above) @ vectors.T
    others -= gram
    others.ravel()[:: len(others) + 1] += floor
    _, failed = lapack.dpotrf(others.T, lower=1, clean=0, overwrite_a=1)
    return None if failed else Followed(np.sqrt(above), vectors, basis, bound)


def _floor(gram: Array, threshold: float) -> float:
    """Return the eigenvalue above which a singular value is above the threshold by more than rounding."""
    return float(threshold**2 + 16 * np.finfo(np.float64).eps * np.trace(gram))


def to_unit(values: Array) -> Array:
    """Scale to [0, 1] by the least and the largest value; all 0 where they are the same."""
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low)) if high > low else np.zeros_like(values)
