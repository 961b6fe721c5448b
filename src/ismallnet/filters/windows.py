"""What the filters share: the check of their input, and the largest values in windows.

Windows are sorted all at once: a stack has a plane for every value of a window, so that a comparison of two
values is two operations on planes, as many whatever the image shows. They take less time on whole grey
levels, which fit into a byte or two. Where a stack is called bitonic, the values of a window fall from plane
to plane and then rise; in order, they only fall.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Plane = NDArray[np.float64]
    Flat = NDArray[np.uint8 | np.uint16 | np.float32 | np.float64]

CHUNK = 16384
"""Windows that are sorted at a time: their planes stay in the processor's cache."""


def grey(image: NDArray[np.generic]) -> Plane:
    """Return a grey image as contiguous float64, the same values.

    Args:
        image: (H, W) integers or floats, in any memory layout.

    Raises:
        ValueError: Another shape or type, no pixel, or a pixel that is NaN or infinite.
    """
    image = np.asarray(image)
    if image.ndim != 2 or image.size == 0 or image.dtype.kind not in "iuf":
        raise ValueError(
            f"a filter takes (H, W) integers or floats, at least one pixel; got {image.dtype} {image.shape}; "
            "turn colours to grey and pass the frames of a stack one by one"
        )
    finite = np.count_nonzero(np.isfinite(image))
    if finite < image.size:
        raise ValueError(
            f"a filter takes finite grey levels; got {image.size - finite} of {image.size} pixels NaN or "
            "infinite; fill them first"
        )
    return np.ascontiguousarray(image, np.float64)


def check_odd(name: str, value: int) -> None:
    """Raise ValueError if the side of a window is not a positive odd number of pixels."""
    if not isinstance(value, int | np.integer) or value < 1 or value % 2 == 0:
        raise ValueError(f"{name} is a positive odd number of pixels; got {value!r}; take 3, 5, 7 or so")


def map_largest(
    image: Plane,
    length: int,
    directions: Sequence[tuple[int, int]],
    keep: int,
    value: Callable[[list[Flat]], Flat],
) -> Plane:
    """Return a value of the largest pixels of every window that lies inside the image.

    One direction makes windows that are lines of ``length`` pixels, two make squares, ``length`` a side.

    Args:
        image: (H, W), contiguous.
        length: Number of pixels in each direction.
        directions: (dy, dx) from one pixel of a line to the next: (0, 1), (1, 0), (1, 1) or (1, -1).
        keep: Number of pixels taken of a window, the largest; at most as many as it has.
        value: From the pixels taken, as flat planes in no order, to one plane. They are of the narrowest type
            that holds all pixels of the image: uint8, uint16, float32 or float64.

    Returns:
        The value at every window, (H - a, W - b), where the windows reach a pixels down and b across.
    """
    pixels = _narrow(image.ravel())
    steps = [dy * image.shape[1] + dx for dy, dx in directions]  # a row runs on into the next
    reach = (length - 1) * sum(steps)
    values = np.empty(image.size)
    for start in range(0, image.size - reach, CHUNK):
        stack = [pixels[start : start + CHUNK + reach]]
        for step in steps:
            stack = _largest(stack, length, step, keep)
        values[start : start + stack[0].size] = value(stack)
    down, across = ((length - 1) * sum(abs(d[axis]) for d in directions) for axis in (0, 1))
    left = (length - 1) * sum(max(-dx, 0) for _, dx in directions)
    whole = values.reshape(image.shape)
    return whole[: image.shape[0] - down, left : left + image.shape[1] - across]


def _narrow(pixels: Plane) -> Flat:
    """Return the same values in the narrowest type that holds them all, in which they are compared faster."""
    for kind in (np.uint8, np.uint16, np.float32):
        with np.errstate(invalid="ignore", over="ignore"):
            narrow: Flat = pixels.astype(kind)
        if (narrow == pixels).all():
            return narrow
    return pixels


def _largest(stack: list[Flat], length: int, step: int, keep: int) -> list[Flat]:
    """Return the largest values among ``length`` neighbours, as a bitonic stack.

    Windows grow by doubling, and by one neighbour where ``length`` has a binary digit 1: five are two and
    two, and one more.

    Args:
        stack: Flat planes, what a pixel brings along; bitonic, as an image is, a stack of one. Put in order.
        length: Number of neighbours.
        step: From one neighbour to the next.
        keep: Number of values that are kept.
    """
    _order(stack)
    window, count = stack, 1
    for digit in f"{length:b}"[1:]:
        if count > 1:
            _order(window)
        window, count = _union(window, window, count * step, keep), 2 * count
        if digit == "1":
            _order(window)
            window, count = _union(window, stack, count * step, keep), count + 1
    return window


def _union(one: list[Flat], other: list[Flat], shift: int, keep: int) -> list[Flat]:
    """Return the largest values of two ordered stacks, the other read further on by a shift, as new planes.

    Of two falling lists a and b, the largest K values are ``max(a[i], b[K - 1 - i])`` for i < K, or the one
    of the two that exists. They fall and then rise: the stack returned is bitonic.
    """
    a = [plane[: other[0].size - shift] for plane in one]
    b = [plane[shift:] for plane in other]
    count = min(keep, len(a) + len(b))
    pairs = [a[i : i + 1] + b[j : j + 1] for i, j in zip(range(count), reversed(range(count)), strict=True)]
    return [np.maximum(pair[0], pair[-1]) for pair in pairs]


def _order(stack: list[Flat]) -> None:
    """Put a bitonic stack in order, the largest values first, in place."""
    spare = np.empty_like(stack[0])
    for i, j in _comparisons(len(stack)):
        np.minimum(stack[i], stack[j], out=spare)
        np.maximum(stack[i], stack[j], out=stack[i])
        stack[j], spare = spare, stack[j]


@functools.cache
def _comparisons(count: int) -> tuple[tuple[int, int], ...]:
    """Return the pairs (i, j), i < j, that order a bitonic sequence: the network of K. E. Batcher (1968).

    It is made for powers of two. A shorter sequence is the end of one, as if infinities stood before it.
    """
    powers = [2**k for k in range((count - 1).bit_length())]
    absent = 2 ** len(powers) - count
    return tuple(
        (i - absent, i + step - absent)
        for step in reversed(powers)
        for i in range(absent, absent + count - step)
        if not i & step
    )
