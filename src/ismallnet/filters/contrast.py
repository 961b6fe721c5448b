"""A target is brighter than the eight cells around its own: the local contrast measures LCM and TLLCM.

Both are ratios of grey levels, so black has to be at 0: a constant added changes the response, levels below
0 count as 0, and a surround of 0 counts as the machine epsilon, 2.2e-16, by which the response of a bright
pixel on perfect black dwarfs all others. A factor scales the response.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ismallnet.filters.windows import check_odd, grey, map_largest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ismallnet.filters.windows import Flat

    Plane = NDArray[np.float64]

EPSILON = float(np.finfo(np.float64).eps)
"""What a surround of 0 counts as."""


def lcm(image: NDArray[np.generic], *, cells: Sequence[int] = (3, 5, 7, 9)) -> NDArray[np.float64]:
    """Local contrast measure: how far the brightest pixel of a cell outshines the cells around it.

    After C. L. P. Chen et al., "A local contrast method for small infrared target detection", IEEE TGRS 2013.
    For a cell of n×n pixels, the window of 3n×3n around a pixel is nine cells; with L the maximum of the
    middle one and m_i the means of the others, ``C_n = min_i L² / m_i = L² / max_i m_i``, and the response is
    the largest C_n. The window moves by single pixels, and the maximum joins the scales; some code steps by
    n / 2 or takes the minimum.

    A target becomes a square plateau, up to 8 px wider than itself. Flat areas have a response, too, their
    own grey level: the constant image c gives c, and black gives 0. A factor scales the response, a constant
    added changes it, and an m of 0 counts as 2.2e-16.

    The image is mirrored at the frame, its outermost pixels repeated, as often as a small image needs it.
    Means come of plain sums, without running totals, and the response is exact to 1e-14 of itself.

    Args:
        image: (H, W) grey levels, 0-255 by convention; those below 0 count as 0.
        cells: Sides n of a cell, in pixels; odd, at least one.

    Returns:
        (H, W), at least 0, in the unit of the image.

    Raises:
        ValueError: An image that is not (H, W) of finite numbers, no cell, or an even one.
    """
    _check_cells(cells)
    pixels = np.maximum(grey(image), 0)
    return functools.reduce(np.maximum, (_contrast(pixels, n) for n in cells))


def tllcm(
    image: NDArray[np.generic], *, cells: Sequence[int] = (9,), largest: int = 9
) -> NDArray[np.float64]:
    """Tri-layer local contrast measure: a small smoothed core against the brightest parts of its surround.

    After J. Han et al., "A local contrast method for infrared small-target detection utilizing a tri-layer
    window", IEEE GRSL 2020, in the form of the authors' code. The core I is the image smoothed by
    ``[1 2 1; 2 4 2; 1 2 1] / 16``. Around it stand eight cells of n×n pixels, at distance n (the rest of the
    middle cell is the reserve layer, not read). The value of a cell is the mean of its ``largest`` brightest
    pixels, B is the largest value, and the response is ``max(0, I² / B - I)``.

    The paper has several scales, the authors' release the one of 9, which is the default here; (5, 7, 9) is
    the usual choice of others. The maximum joins the scales.

    A constant image gives 0, and so do a straight line of any width and, away from the frame, a plane. A
    factor scales the response, a constant added changes it, and a B of 0 counts as 2.2e-16.

    For the core, the outermost pixels are repeated beyond the frame; for the cells, it is black there. So a
    bright corner can be overrated, and a pixel without any cell inside the frame, such as the middle one of
    an image of n×n px, has B = 0: give it images of 3n×3n px or more.

    Args:
        image: (H, W) grey levels, 0-255 by convention; those below 0 count as 0.
        cells: Sides n of a cell, in pixels; odd, at least one.
        largest: Number of pixels K of a cell that are averaged, from 1 to n² of the smallest cell.

    Returns:
        (H, W), at least 0, in the unit of the image, exact to 1e-14 of I² / B.

    Raises:
        ValueError: An image that is not (H, W) of finite numbers, no cell, an even one, or ``largest`` out of
            its range.
    """
    _check_cells(cells)
    most = min(cells) ** 2
    if not 1 <= largest <= most:
        raise ValueError(
            f"largest is from 1 to {most}, the pixels of the smallest cell; got {largest}; "
            "take fewer, or larger cells"
        )
    pixels = np.maximum(grey(image), 0)
    core = _smooth(pixels)

    def surround(n: int) -> Plane:
        means = map_largest(np.pad(pixels, n + n // 2), n, [(1, 0), (0, 1)], largest, _mean)
        return _strongest_neighbour(means, n)

    lowest = functools.reduce(np.minimum, map(surround, cells))  # where it is lowest, the response is largest
    return np.asarray(core * np.maximum(core / np.maximum(lowest, EPSILON) - 1, 0), np.float64)


def _check_cells(cells: Sequence[int]) -> None:
    if not len(cells):
        raise ValueError("cells is empty; give the side of one cell or more, such as (9,)")
    for n in cells:
        check_odd("a cell's side", n)


def _contrast(image: Plane, n: int) -> Plane:
    """Return C_n of the local contrast measure."""
    ones = np.ones(n)
    sums = cv2.sepFilter2D(image, cv2.CV_64F, ones, ones, borderType=cv2.BORDER_REFLECT)
    means = np.pad(np.asarray(sums, np.float64) / n**2, n, "symmetric")
    brightest = np.asarray(cv2.dilate(image, np.ones((n, n), np.uint8)), np.float64)
    return brightest**2 / np.maximum(_strongest_neighbour(means, n), EPSILON)


def _strongest_neighbour(cells: Plane, n: int) -> Plane:
    """Return the largest of the eight cells around: (H, W) of (H + 2n, W + 2n) values, at cell centres."""
    height, width = cells.shape[0] - 2 * n, cells.shape[1] - 2 * n
    left, middle, right = (cells[:, x : x + width] for x in (0, n, 2 * n))
    sides = np.maximum(left, right)
    rows = np.maximum(sides, middle)
    return np.maximum(np.maximum(rows[:height], rows[2 * n :]), sides[n : n + height])


def _smooth(image: Plane) -> Plane:
    """Return the image under [1 2 1; 2 4 2; 1 2 1] / 16, borders repeated; exact on constants."""
    padded = np.pad(image, 1, "edge")
    rows = padded[:-2] + padded[2:] + 2 * padded[1:-1]
    return (rows[:, :-2] + rows[:, 2:] + 2 * rows[:, 1:-1]) / 16


def _mean(stack: Sequence[Flat]) -> Plane:
    """Return the mean of planes of any type; of equal values it is that value, exactly."""
    first = stack[0].astype(np.float64)
    above = np.zeros_like(first)
    for plane in stack:
        above += plane - first
    return first + above / len(stack)
