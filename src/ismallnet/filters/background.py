"""A target is what rises above an estimate of its background: top-hat and max-median."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from ismallnet.filters.windows import check_odd, grey, map_largest

if TYPE_CHECKING:
    from numpy.typing import NDArray


def top_hat(
    image: NDArray[np.generic], *, size: int = 9, shape: Literal["square", "disk"] = "square"
) -> NDArray[np.float64]:
    """White top-hat: the image less its opening, ``f - (f eroded by B) dilated by B``.

    After J.-F. Rivest and R. Fortin, "Detection of dim targets in digital infrared imagery by morphological
    image processing", Optical Engineering 1996. They leave the element B open; it has to be larger than the
    largest target, of which nothing is left otherwise.

    Pixels beyond the frame are ignored by erosion and dilation. Adding a constant to the image changes
    nothing, a factor scales the response, and a constant image gives 0. So does a plane (a linear ramp), but
    for the ``size // 2`` pixels at its high side: there the element has nowhere to stand, and the response
    is what the plane has risen since. Where the element covers the whole image wherever it stands, the
    response is ``f - min f``. The result is exact: one subtraction is all the arithmetic.

    Args:
        image: (H, W) grey levels of any range.
        size: Side of the square, or diameter of the disk, in pixels; odd.
        shape: Of the flat element; ``disk`` holds the pixels whose centres are at most ``size // 2`` from
            its own, so that the disk of radius 5 has size 11.

    Returns:
        (H, W), at least 0, in the unit of the image.

    Raises:
        ValueError: An image that is not (H, W) of finite numbers, an even size, or an unknown shape.
    """
    check_odd("size", size)
    if shape not in ("square", "disk"):
        raise ValueError(f"unknown shape {shape!r}; choose from square, disk")
    pixels = grey(image)
    squares = (np.arange(size) - size // 2) ** 2
    element = (shape == "square") | (np.add.outer(squares, squares) <= (size // 2) ** 2)
    opened = cv2.morphologyEx(pixels, cv2.MORPH_OPEN, element.astype(np.uint8))
    return np.asarray(pixels - opened, np.float64)


def max_median(image: NDArray[np.generic], *, length: int = 9) -> NDArray[np.float64]:
    """Max-median: the image less the largest of four medians, of lines through the pixel; at least 0.

    After S. D. Deshpande et al., "Max-mean and max-median filters for detection of small targets", SPIE 3809,
    1999. The lines are horizontal, vertical and the two diagonals, ``length`` pixels each, the pixel itself
    in the middle. The largest median is the background: a line or an edge that runs along one of the four
    is background, a blob is not. The difference is clipped at 0, since targets are bright.

    A target at most ``(length - 1) / 2`` px wide keeps its full height, a wider one is suppressed: the median
    target of NUAA-SIRST, 4-5 px wide, needs the default of 9, where 5 is common in public code.

    The image is mirrored at the frame, its outermost pixels repeated, as often as a small image needs it.
    Adding a constant changes nothing, a factor scales the response, and a constant image gives 0; so does a
    plane, away from the frame. The result is exact.

    Args:
        image: (H, W) grey levels of any range.
        length: Of the lines, in pixels; odd.

    Returns:
        (H, W), at least 0, in the unit of the image.

    Raises:
        ValueError: An image that is not (H, W) of finite numbers, or an even length.
    """
    check_odd("length", length)
    pixels = grey(image)
    height, width = pixels.shape
    half = length // 2
    padded = np.pad(pixels, half, "symmetric")

    least = functools.partial(functools.reduce, np.minimum)  # of the larger half: the median

    def median(direction: tuple[int, int]) -> NDArray[np.float64]:
        medians = map_largest(padded, length, [direction], half + 1, least)
        top, left = (half * (1 - abs(step)) for step in direction)  # of the frame, where the line passes by
        return medians[top : top + height, left : left + width]

    background = functools.reduce(np.maximum, map(median, ((0, 1), (1, 0), (1, 1), (1, -1))))
    return np.maximum(pixels - background, 0)
