"""The Gram matrix of an extrapolated low-rank and sparse pair, without multiplying the pair out.

IPI decomposes ``H = D + Y - E`` in every iteration, where D is the data and where Y and E are combinations of
the last two low-rank and the last two sparse parts. H H' takes n² m products; from the factors of Y, the few
entries of E, and D D', which stays, it takes about 10 n² r, for the rank r, and it is the same to rounding.
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
    """An iterate: its two parts."""

    low: Triplets
    sparse: csr_array[np.float64, tuple[int, int]]


class _Known(NamedTuple):
    """Products of the right singular vectors of the last two iterates, Q and P."""

    now_by_data: Array
    """Q' D', (r, n)."""
    before_by_data: Array
    """P' D', likewise."""
    overlap: Array
    """Q' P."""


class _Products(NamedTuple):
    """What `Iterates.gram` multiplied and `Iterates.add` needs again, in the letters of `gram`."""

    rest_by_data: Array
    """N D', (n, n)."""
    weights: Array
    """W, (n, 2 r)."""
    rights_by_data: Array
    """R' D', (2 r, n)."""
    now_by_h: Array
    """Q' H', (r, n)."""


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
        self._before, self._now = (_Part(low, csr_array(data.shape)) for low in (before, now))
        self._known: _Known | None = None
        self._products: _Products | None = None

    @property
    def low(self) -> tuple[Triplets, Triplets]:
        """The low-rank parts, that of the last iterate last."""
        return self._before.low, self._now.low

    def gram(self, momentum: float, h: Array) -> Array:
        """Return H H', (n, n).

        With ``H = N + W R'``, where ``N = D - E`` and R has the right singular vectors of both iterates, it
        is ``N N' + W K + K' W'`` for ``K = R' N' + R' R W' / 2``. Where H has few rows or E many entries,
        that is no shorter than multiplying H out.

        Args:
            momentum: By which H is extrapolated from the last two iterates.
            h: H itself, (n, m).
        """
        before, now = self._before, self._now
        if len(h) < 150 or 20 * (now.sparse.nnz + before.sparse.nnz) > h.size:
            self._products = None
            return np.asarray(h @ h.T)
        now_by_data, before_by_data, overlap = self._known or _Known(
            now.low.right.T @ self._transposed,
            before.low.right.T @ self._transposed,
            now.low.right.T @ before.low.right,
        )
        sparse = (1 + momentum) * now.sparse - momentum * before.sparse
        new = (1 + momentum) * now.low.values * now.low.left
        old = -momentum * before.low.values * before.low.left
        weights, by_data = np.hstack((new, old)), np.vstack((now_by_data, before_by_data))
        by_rest = by_data - np.hstack([_times(sparse, part.low.right) for part in (now, before)]).T  # R' N'
        by_low = np.vstack((new.T + overlap @ old.T, overlap.T @ new.T + old.T))  # R' R W'
        half = weights @ (by_rest + by_low / 2)
        sparse_by_data = _times(sparse, self._transposed)
        half -= sparse_by_data
        half += (sparse @ sparse.T).toarray() / 2
        half += half.T
        half += self._gram
        r = len(now_by_data)
        self._known = _Known(now_by_data, before_by_data, overlap)
        self._products = _Products(self._gram - sparse_by_data, weights, by_data, by_rest[:r] + by_low[:r])
        return half

    def add(self, low: Triplets, singular: Array, where: NDArray[np.intp], sparse: Array) -> None:
        """Let an iterate follow.

        Args:
            low: Its low-rank part, with the singular vectors of the H of the last `gram`.
            singular: The singular values of that H, (r,).
            where: Flat indices of the entries of its sparse part, rising.
            sparse: The entries.
        """
        if self._products and self._known:
            rest_by_data, weights, rights_by_data, now_by_h = self._products
            by_h = (low.left / singular).T  # the right singular vectors are by_h H
            by_data = by_h @ rest_by_data + (by_h @ weights) @ rights_by_data
            self._known = _Known(by_data, self._known.now_by_data, by_h @ now_by_h.T)
        else:
            self._known = None
        n, m = self._shape
        starts = np.searchsorted(where, np.arange(n + 1) * m)
        matrix = csr_array((sparse, where % m, starts), shape=self._shape)
        self._before, self._now = self._now, _Part(low, matrix)


def _times(sparse: csr_array[np.float64, tuple[int, int]], dense: Array) -> Array:
    return np.asarray(sparse @ dense)
