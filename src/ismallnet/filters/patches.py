"""An image as overlapping square patches, and back: the ground of the low-rank detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the patches of an image lie: one at every crossing of ``rows`` and ``columns``.

    Attributes:
        shape: (H, W) of the image.
        patch: Side of a patch in pixels.
        rows: First pixel rows of the patches, rising; none where the image is lower than a patch.
        columns: First pixel columns likewise.
    """

    shape: tuple[int, int]
    patch: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, int], *, patch: int, step: int, flush: bool) -> Grid:
        """Lay a patch every ``step`` pixels, from the first pixel on.

        Args:
            shape: (H, W) of the image.
            patch: Side of a patch in pixels.
            step: In pixels, 1 to ``patch``, so that no pixel between patches is left out.
            flush: Add patches that end with the last row and column, where no other does. Without them up to
                ``step - 1`` rows and columns at the bottom and the right belong to no patch.

        Raises:
            ValueError: A patch of no pixel, or a step that is not 1 to ``patch``.
        """
        if not 1 <= step <= patch:
            raise ValueError(
                f"got patches of {patch} px every {step} px; the step is at least 1 and at most the patch, "
                "or pixels are left out"
            )
        rows, columns = (_starts(length, patch, step, flush) for length in shape)
        return cls(shape, patch, rows, columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def cut(self, image: Array) -> Array:
        """Return the patches of an (H, W) image, (P, patch, patch), row after row of patches."""
        windows = np.lib.stride_tricks.sliding_window_view(image, (self.patch, self.patch))
        return windows[np.ix_(self.rows, self.columns)].reshape(-1, self.patch, self.patch)

    def coverage(self) -> NDArray[np.intp]:
        """Return the number of patches that a pixel belongs to, (H, W)."""
        lines = []
        for starts, length in zip((self.rows, self.columns), self.shape, strict=True):
            count = np.zeros(length, np.intp)
            for start in starts:
                count[start : start + self.patch] += 1
            lines.append(count)
        return np.multiply.outer(*lines)

    def mean(self, patches: Array) -> Array:
        """Return the mean of a pixel over the patches it belongs to, (H, W), 0 where it belongs to none.

        Args:
            patches: (P, patch, patch), as `cut` returns them.
        """
        total = np.zeros(self.shape)
        for (y, x), patch in zip(self._corners(), patches, strict=True):
            total[y : y + self.patch, x : x + self.patch] += patch
        return np.asarray(total / np.maximum(self.coverage(), 1))

    def median(self, patches: Array) -> Array:
        """Return the median of a pixel over the patches it belongs to, (H, W), 0 where it belongs to none.

        The median of an even number of values is the mean of the middle two.

        Args:
            patches: (P, patch, patch), as `cut` returns them.
        """
        down, across = (_most(starts, self.patch) for starts in (self.rows, self.columns))
        values = np.full((*self.shape, down * across), np.inf)
        corners = np.ndindex(len(self.rows), len(self.columns))
        for (i, j), patch in zip(corners, patches, strict=True):  # patches of one layer are disjoint
            y, x = self.rows[i], self.columns[j]
            values[y : y + self.patch, x : x + self.patch, i % down * across + j % across] = patch
        values.sort(axis=2)
        coverage = self.coverage()[..., None]
        low, high = (np.take_along_axis(values, np.maximum(coverage - a, 0) // 2, 2) for a in (1, 0))
        return np.where(coverage > 0, low / 2 + high / 2, 0)[..., 0]

    def _corners(self) -> Iterator[tuple[int, int]]:
        return ((y, x) for y in self.rows for x in self.columns)


def _starts(length: int, patch: int, step: int, flush: bool) -> tuple[int, ...]:
    """Return the first pixels of the patches along one side of an image."""
    starts = range(0, length - patch + 1, step)
    if flush and starts and starts[-1] < length - patch:
        return *starts, length - patch
    return tuple(starts)


def _most(starts: tuple[int, ...], patch: int) -> int:
    """Return the largest number of patches along one side that share a pixel."""
    ends = np.searchsorted(starts, np.add(starts, patch))
    return int((ends - np.arange(len(starts))).max(initial=1))
