"""The Gram matrix of an extrapolated low-rank and sparse pair, without multiplying the pair out.

IPI decomposes ``H = D + Y - E`` in every iteration, where D is the data, Y and E are combinations of the last
two low-rank and the last two sparse parts. H H' takes n² m products; from the factors of Y, the few entries of E
and D D', which stays, it takes about n² r, for the rank r, and it is the same to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Triplets(NamedTuple):
    """A matrix ``left diag(values) right'`` of (n, m) by its singular value decomposition.

    Attributes:
        left: (n, r).
        values: (r,), in any order.
        right: (m, r).
    """

    left: Array
    values: Array
    right: Array

    def matrix(self, out: Array | None = None) -> Array:
        """Return it multiplied out, (n, m)."""
        return np.matmul(self.left * self.values, self.right.T, out=out)


class _Part(NamedTuple):
    """The two parts of an iterate, and the product of ``low.right'`` and D', (r, n)."""

    low: Triplets
    sparse: csr_array[np.float64, tuple[int, int]]
    by_data: Array


class Iterates:
    """The last two iterates of a solver.

    Args:
        data: D, (n, m).
        gram: D D', (n, n).
        before: The low-rank part of the one before the last, like the next; their sparse parts are 0.
        now: That of the last.
    """

    def __init__(self, data: Array, gram: Array, before: Triplets, now: Triplets) -> None:
        self._shape, self._transposed, self._gram = data.shape, np.ascontiguousarray(data.T), gram
        nothing = csr_array(data.shape)
        self._before, self._now = (_Part(low, nothing, low.right.T @ self._transposed) for low in (before, now))

    @property
    def low(self) -> tuple[Triplets, Triplets]:
        """The low-rank parts, that of the last iterate last."""
        return self._before.low, self._now.low

    def gram(self, momentum: float, h: Array) -> Array:
        """Return H H', (n, n).

        With ``H = N + W R'``, where ``N = D - E`` and R has the right singular vectors of both, it is
        ``N N' + W K + K' W'`` for ``K = R' N' + R' R W' / 2``. Where E has many
        entries, that is no shorter than multiplying H out.

        Args:
            momentum: By which H is extrapolated from the last two iterates.
            h: H itself, (n, m).
        """
        before, now = self._before, self._now
        sparse = (1 + momentum) * now.sparse - momentum * before.sparse
        if 40 * sparse.nnz > h.size:
            self._rest = None
            return np.asarray(h @ h.T)
        left, old = (1 + momentum) * now.low.values * now.low.left, -momentum * before.low.values * before.low.left
        self._left, self._rows = np.hstack((left, old)), np.vstack((now.by_data, before.by_data))
        overlap = now.low.right.T @ before.low.right  # the rest of R' R is the identity
        k = np.vstack(
            (
                now.by_data - (sparse @ now.low.right).T + (left.T + overlap @ old.T) / 2,
                before.by_data - (sparse @ before.low.right).T + (old.T + overlap.T @ left.T) / 2,
            )
        )
        by_data = sparse @ self._transposed
        half = self._left @ k
        half -= by_data
        half += (sparse @ sparse.T).toarray() / 2
        self._rest = self._gram - by_data  # N D'
        half += half.T
        half += self._gram
        return half

    def add(self, low: Triplets, singular: Array, where: NDArray[np.intp], sparse: Array) -> None:
        """Let an iterate follow.

        Args:
            low: Its low-rank part, with the singular vectors of the H of the last `gram`.
            singular: The singular values of that H, (r,).
            where: Flat indices of the entries of its sparse part, rising.
            sparse: The entries.
        """
        if self._rest is None:
            by_data = low.right.T @ self._transposed
        else:
            by_data = low.left.T @ self._rest + (low.left.T @ self._left) @ self._rows
            by_data /= singular[:, None]
        n, m = self._shape
        starts = np.searchsorted(where, np.arange(n + 1) * m)
        matrix = csr_array((sparse, where % m, starts), shape=self._shape)
        self._before, self._now = self._now, _Part(low, matrix, by_data)
