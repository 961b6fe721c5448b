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
from scipy.linalg import eigh, eigh_tridiagonal, lapack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

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
    if len(gram) < 64:
        values, vectors = eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
        first = np.searchsorted(values, floor, side="right")
        return np.sqrt(values[first:]), vectors[:, first:]
    # The steps of LAPACK's own drivers, so that only the vectors asked for are turned back from the tridiagonal
    # matrix, and those come from the faster of two methods.
    reflectors, diagonal, beside, factors, _ = lapack.dsytrd(gram.T, lower=1, lwork=32 * len(gram), overwrite_a=1)
    if expected < len(gram) // 10:
        values, vectors = eigh_tridiagonal(
            diagonal, beside, select="v", select_range=(floor, np.inf), check_finite=False, lapack_driver="stemr"
        )
    else:
        values, vectors, info = lapack.dstevd(diagonal, beside)
        if info:
            raise np.linalg.LinAlgError("the eigenvalues of a Gram matrix did not converge")
        first = np.searchsorted(values, floor, side="right")
        values, vectors = values[first:], vectors[:, first:]
    if len(values):
        vectors[1:], _, _ = lapack.dormqr(
            "L", "N", reflectors[1:, :-1], factors, vectors[1:], 64 * len(values)
        )
    return np.sqrt(values), vectors


class Follower:
    """`leading`, of one Gram matrix after another, each like the one before.

    While few values are above the threshold, the last vectors are made the next ones by subspace iteration with
    Chebyshev polynomials (Y. Zhou et al., J. Comput. Phys. 219, 2006). What that leaves over is measured, and a
    Cholesky decomposition proves that no value was missed; where either fails, `leading` takes over.

    Args:
        values: Largest eigenvalues of a matrix like the first one, (p,), rising.
        vectors: Its eigenvectors, (n, p).
        tolerance: How far SVT may be off, in the Frobenius norm.
    """

    def __init__(self, values: Array, vectors: Array, *, tolerance: float) -> None:
        self._start, self._bound, self._tolerance = vectors, float(values[0]), tolerance
        self._basis = vectors[:, :0]

    def __call__(self, gram: Array, threshold: float, *, expected: int) -> tuple[Array, Array]:
        """Return what `leading` does, of which the arguments are."""
        width = 2 * expected + 8
        if 12 * width <= len(gram) and width <= self._start.shape[1]:
            known = min(self._basis.shape[1], width)
            first = self._start.shape[1]
            basis = np.hstack((self._start[:, first - width : first - known], self._basis[:, -known:]))
            if pairs := self._follow(gram, _floor(gram, threshold), basis):
                return pairs
        return leading(gram, threshold, expected=expected)

    def _follow(self, gram: Array, floor: float, basis: Array) -> tuple[Array, Array] | None:
        """Return the pairs, or None where they are not proved to be right.

        Of orthonormal U with U' G U = T diagonal, all of it above the floor, ``G U - U T`` is what G has to
        be changed by for them to be eigenpairs. SVT moves no further than what it is given, here
        ``(G U - U T) / sqrt(T)``. No other value is above the floor where G - U T U' has none.
        """
        image = gram @ basis
        for _ in range(4):
            bound = max(self._bound, floor / 16)
            basis = np.linalg.qr(8 / bound**2 * (gram @ image) - 8 / bound * image + basis)[0]
            image = gram @ basis
            values, turn = eigh(basis.T @ image, driver="evd", check_finite=False)
            basis, image, self._bound = basis @ turn, image @ turn, float(values[0])
            first = np.searchsorted(values, floor, side="right")
            above, vectors = values[first:], basis[:, first:]
            rest = (image[:, first:] - vectors * above) / np.sqrt(above)
            if np.linalg.norm(rest) <= self._tolerance:
                break
        else:
            return None
        self._basis = basis
        others = (vectors * above) @ vectors.T
        others -= gram
        others.ravel()[:: len(others) + 1] += floor
        _, failed = lapack.dpotrf(others.T, lower=1, clean=0, overwrite_a=1)
        return None if failed else (np.sqrt(above), vectors)


def _floor(gram: Array, threshold: float) -> float:
    """Return the eigenvalue above which a singular value is above the threshold by more than rounding."""
    return float(threshold**2 + 16 * np.finfo(np.float64).eps * np.trace(gram))


def to_unit(values: Array) -> Array:
    """Scale to [0, 1] by the least and the largest value; all 0 where they are the same."""
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low)) if high > low else np.zeros_like(values)
