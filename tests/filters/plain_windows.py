"""Top-hat, max-median, LCM and TLLCM by NumPy's sliding windows: what the fast ones are timed against."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]


def top_hat(image: Array, size: int = 9) -> Array:
    half = size // 2
    eroded = sliding_window_view(np.pad(image, half, constant_values=np.inf), (size, size)).min((2, 3))
    opened = sliding_window_view(np.pad(eroded, half, constant_values=-np.inf), (size, size)).max((2, 3))
    return np.asarray(image - opened)


def max_median(image: Array, length: int = 9) -> Array:
    windows = sliding_window_view(np.pad(image, length // 2, "symmetric"), (length, length))
    along = np.arange(length)
    lines = (
        windows[:, :, length // 2],
        windows[:, :, :, length // 2],
        windows[:, :, along, along],
        windows[:, :, along, along[::-1]],
    )
    return np.maximum(image - np.max([np.median(line, axis=-1) for line in lines], axis=0), 0)


def around(cells: Array, n: int) -> list[Array]:
    """Of values at cell centres, those of the eight cells around; n less at each side."""
    height, width = cells.shape[0] - 2 * n, cells.shape[1] - 2 * n
    starts = [(y, x) for y in (0, n, 2 * n) for x in (0, n, 2 * n) if (y, x) != (n, n)]
    return [cells[y : y + height, x : x + width] for y, x in starts]


def lcm(image: Array, cells: tuple[int, ...] = (3, 5, 7, 9)) -> Array:
    contrasts = []
    for n in cells:
        windows = sliding_window_view(np.pad(image, n + n // 2, "symmetric"), (n, n))
        brightest = windows[n:-n, n:-n].max((2, 3))
        means = np.max(around(windows.mean((2, 3)), n), axis=0)
        contrasts.append(brightest**2 / np.maximum(means, np.finfo(np.float64).eps))
    return np.asarray(np.max(contrasts, axis=0))


def tllcm(image: Array, n: int = 9, largest: int = 9) -> Array:
    weights = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    core = (sliding_window_view(np.pad(image, 1, "edge"), (3, 3)) * weights).sum((2, 3))
    windows = sliding_window_view(np.pad(image, n + n // 2), (n, n))
    ordered = np.partition(windows.reshape(*windows.shape[:2], n * n), -largest, axis=-1)
    surround = np.max(around(ordered[..., -largest:].mean(-1), n), axis=0)
    return np.maximum(core**2 / np.maximum(surround, np.finfo(np.float64).eps) - core, 0)
