"""From a mask to its targets: the 8-connected components, their surroundings and what is measured on each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ismallnet.types import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    _Parts = NDArray[
        np.float64
    ]  # (13, n): what is measured of n components; the rows are those of `_measure`

RING_PX = 20
"""The ring around a target is its bounding box grown by this many pixels, without any target's pixels."""


def label(mask: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """Number the 8-connected components of a mask.

    Components are numbered in raster order of their first pixel: top row first, then left to right.

    Args:
        mask: (H, W), foreground where not zero.

    Returns:
        The number n of components and the (H, W) map of their numbers: 0 background, 1 to n. An empty
        mask gives 0 and a map of zeros.

    Raises:
        ValueError: The mask is not two-dimensional.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask must be (height, width); got an array of shape {mask.shape}")
    labels = np.zeros(mask.shape, np.int32)
    count = ndimage.label(mask, np.ones((3, 3)), output=labels)  # OpenCV's labels are not in raster order
    return int(count), labels


def ring(box: Sequence[int], mask: NDArray[np.bool_]) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Return the ring around a target: a window of the image, and which of its pixels belong to the ring.

    Args:
        box: y0, x0, y1, x1 of the target, half-open, in pixels.
        mask: (H, W), True on the pixels of every target.

    Returns:
        The rows and columns of the bounding box grown by `RING_PX`, clipped to the image, and a mask of that
        size; all False where targets fill it.
    """
    y0, x0, y1, x1 = box
    window = np.s_[max(y0 - RING_PX, 0) : y1 + RING_PX, max(x0 - RING_PX, 0) : x1 + RING_PX]
    return window, ~mask[window]


def find(mask: NDArray[np.bool_], score: NDArray[np.float32] | None = None) -> tuple[Target, ...]:
    """Measure every 8-connected component of a mask.

    Args:
        mask: (H, W), foreground where not zero.
        score: (H, W); weights the centroids (negative scores weigh 0; where all weights of a component are 0
            the plain mean is taken) and gives peak and mean. Without it both are 1.

    Returns:
        The targets, the highest peak first; equal peaks in the order of `label`. Empty for an empty mask.

    Raises:
        ValueError: The mask is not two-dimensional, or the score is of another shape.
    """
    return find_in_bands([(mask, score)])


def find_in_bands(
    bands: Iterable[tuple[NDArray[np.bool_], NDArray[np.float32] | None]],
) -> tuple[Target, ...]:
    """Measure the components of a mask that comes in bands of rows, as `find` does of the whole mask.

    Between two bands only the last row of the upper one is kept, and what is measured so far of the
    components that it touches; they are united with those of the next band that they meet.

    Args:
        bands: From top to bottom, the masks, (h, W) each, and their scores, as in `find`.

    Returns:
        The targets, as `find` returns them, but for the rounding of sums.

    Raises:
        ValueError: As `find`; or bands of different widths.
    """
    done: list[_Parts] = []
    open_ = np.empty((len(_MERGE), 0))
    seam: NDArray[np.int64] | None = None  # of the last row: the column of `open_`, from 1; 0 is background
    top = 0
    for mask, score in bands:
        count, labels = label(mask)
        if score is not None and np.shape(score) != labels.shape:
            raise ValueError(f"score {np.shape(score)} and mask {labels.shape} must have one shape")
        if seam is not None and len(seam) != labels.shape[1]:
            raise ValueError(f"bands of one mask have one width; got {len(seam)} and {labels.shape[1]}")
        if labels.shape[0] == 0:
            continue
        parts = np.concatenate([open_, _measure(labels, count, score, top)], axis=1)
        group = _united(seam, labels[0], open_.shape[1], count)
        parts = _merged(parts, group)
        last = np.concatenate([[-1], group[open_.shape[1] :]])[labels[-1]]  # group of each pixel, or -1
        touching = np.unique(last[last >= 0])
        seam = np.searchsorted(touching, last) + 1
        seam[last < 0] = 0
        done.append(np.delete(parts, touching, axis=1))
        open_, top = parts[:, touching], top + labels.shape[0]
    return _targets(np.concatenate([*done, open_], axis=1))


_MERGE = (*[np.add] * 7, *[np.minimum] * 3, *[np.maximum] * 3)
"""How two parts of a component become one, for each row of `_measure`."""


def _measure(labels: NDArray[np.int32], count: int, score: NDArray[np.float32] | None, top: int) -> _Parts:
    """Measure the components of a band that starts at row `top`; a column each.

    The rows: area, sum of the scores, sums of the weights and of weight · x and weight · y, sums of x and y;
    the least x, y and position in raster order; x and y beyond the last, the highest score.
    """
    ys, xs = np.nonzero(labels)
    index = labels[ys, xs] - 1
    values = np.ones(len(ys)) if score is None else np.asarray(score)[ys, xs].astype(np.float64)
    ys = ys + top
    weights = np.maximum(values, 0)
    parts = np.repeat([[start] for start in (*[0.0] * 7, *[np.inf] * 3, *[-np.inf] * 3)], count, axis=1)
    sums = (np.ones(len(ys)), values, weights, weights * xs, weights * ys, xs, ys)
    for row, summand in enumerate(sums):
        parts[row] = np.bincount(index, summand, count)
    extremes = (xs, ys, ys * labels.shape[1] + xs, xs + 1, ys + 1, values)
    for row, values_ in enumerate(extremes, len(sums)):
        _MERGE[row].at(parts[row], index, values_)
    return parts


def _united(
    seam: NDArray[np.int64] | None, row: NDArray[np.int32], above: int, below: int
) -> NDArray[np.int64]:
    """Number the groups of components above and below a seam that touch, directly or through others.

    Args:
        seam: The last row of the upper band, the numbers of its components from 1; None at the top.
        row: The first row of the lower band, in the same way.
        above: Number of components above.
        below: Number of components below.

    Returns:
        The group of each component, those above first, (above + below,).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if seam is None or above == 0 or below == 0:
        return np.arange(above + below)
    padded = np.pad(seam, 1)
    pairs = [np.stack([padded[dx : dx + len(row)], row]) for dx in range(3)]
    one, other = np.concatenate([pair[:, (pair > 0).all(axis=0)] for pair in pairs], axis=1) - 1
    edges = coo_array((np.ones(len(one)), (one, other + above)), shape=(above + below,) * 2)
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)


def _merged(parts: _Parts, group: NDArray[np.int64]) -> _Parts:
    """Merge the columns of each group; the groups are numbered from 0 without a gap."""
    count = int(group.max(initial=-1)) + 1
    if count == len(group):
        merged = np.empty_like(parts)
        merged[:, group] = parts
        return merged
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(count))
    return np.stack([merge.reduceat(row[order], starts) for merge, row in zip(_MERGE, parts, strict=True)])


def _targets(parts: _Parts) -> tuple[Target, ...]:
    """Turn measured components into targets, in their order."""
    area, total, weight, weighted_x, weighted_y, sum_x, sum_y, x0, y0, first, x1, y1, peak = parts
    plain = weight <= 0
    weight = np.where(plain, area, weight)
    x, y = (np.where(plain, a, b) / weight for a, b in ((sum_x, weighted_x), (sum_y, weighted_y)))
    whole = (column.astype(np.int64) for column in (x0, y0, x1, y1, area))
    x0, y0, x1, y1, size = whole
    columns = (x0, y0, x1, y1, x, y, size, peak, total / area)
    order = np.lexsort((first, -peak))
    return tuple(Target(*row) for row in zip(*(column[order].tolist() for column in columns), strict=True))
