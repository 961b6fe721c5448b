"""From a mask to its targets: the 8-connected components, their surroundings and what is measured on each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ismallnet.types import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

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
    count, labels = label(mask)
    if score is not None and np.shape(score) != labels.shape:
        raise ValueError(f"score {np.shape(score)} and mask {labels.shape} must have one shape")
    if count == 0:
        return ()
    ys, xs = np.nonzero(labels)
    index = labels[ys, xs] - 1
    values = np.ones(len(ys)) if score is None else np.asarray(score)[ys, xs].astype(np.float64)

    def total(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(index, weights, count).astype(np.float64)

    area = np.bincount(index, minlength=count)
    weights = np.maximum(values, 0)
    weights[total(weights)[index] <= 0] = 1
    weight = total(weights)
    peak = np.full(count, -np.inf)
    np.maximum.at(peak, index, values)
    low = np.full((2, count), np.iinfo(np.int64).max)
    high = np.zeros((2, count), np.int64)
    for axis, coordinate in enumerate((xs, ys)):
        np.minimum.at(low[axis], index, coordinate)
        np.maximum.at(high[axis], index, coordinate + 1)
    columns = (*low, *high, total(weights * xs) / weight, total(weights * ys) / weight, area, peak)
    rows = zip(*(column.tolist() for column in columns), (total(values) / area).tolist(), strict=True)
    return tuple(sorted((Target(*row) for row in rows), key=lambda target: -target.peak))
