"""Do the masks lie on their targets? How far the centre of a mask is from the centre of the light in it.

A data set whose masks are all off to one side has an orientation: a network that is shown its images turned
and mirrored cannot learn on which side they lie, and gets the outline of every small target half wrong. So
`turned` turns an image and leaves such masks on their side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ismallnet import targets
from ismallnet.types import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.config import MaskOffset

SIZES = ((1, 9), (10, 25), (26, 64), (65, None))
"""Least and largest area of each size class, in pixels; None: no limit."""
_MARGIN = 3
"""Pixels around a mask's bounding box; the outermost of them are the surroundings."""
_CORE = 0.3
"""Light below this share of the target's peak is left out: it may be the surroundings'."""


@dataclass(frozen=True, slots=True)
class Offset:
    """One target."""

    area: int
    """Of its mask, in pixels."""
    dx: float
    """Centre of the mask minus centre of the light, in pixels; positive: the mask lies too far right."""
    dy: float
    """Likewise; positive: too far down."""


def offsets(image: NDArray[np.generic], mask: NDArray[np.bool_]) -> list[Offset]:
    """Measure every target of an image that can be measured.

    The light is the grey level above (of a dark target: below) the median of the surroundings, taken within
    two pixels of the mask. Targets nearer than three pixels to the border, or without contrast, are left out.

    Args:
        image: (H, W), grey levels of any type.
        mask: (H, W), True on targets.

    Returns:
        One offset a target, in raster order.
    """
    count, labels = targets.label(mask)
    found = []
    for number, (rows, columns) in zip(range(1, count + 1), ndimage.find_objects(labels), strict=True):
        y0, x0 = rows.start - _MARGIN, columns.start - _MARGIN
        window = np.s_[max(y0, 0) : rows.stop + _MARGIN, max(x0, 0) : columns.stop + _MARGIN]
        own = labels[window] == number
        if own.shape != (rows.stop + _MARGIN - y0, columns.stop + _MARGIN - x0):
            continue
        light = _light(np.asarray(image[window], np.float64), own)
        if light.any():
            y, x = np.subtract(ndimage.center_of_mass(own), ndimage.center_of_mass(light))
            found.append(Offset(int(own.sum()), float(x), float(y)))
    return found


def _light(grey: NDArray[np.float64], own: NDArray[np.bool_]) -> NDArray[np.float64]:
    border = np.ones_like(own)
    border[1:-1, 1:-1] = False
    light = grey - np.median(grey[border])
    if light[own].mean() < 0:
        light = -light
    near, nearby = (ndimage.binary_dilation(own, np.ones((3, 3), np.bool_), steps) for steps in (1, 2))
    light = np.maximum(light - _CORE * light[near].max(), 0)
    return np.where(nearby, light, 0)


def medians(found: Iterable[Offset]) -> dict[tuple[int, int | None], tuple[int, float, float]]:
    """Return, for each of `SIZES` that has targets, their number and the median of dx and dy, in pixels."""
    everything = list(found)
    table = {}
    for low, high in SIZES:
        chosen = [o for o in everything if low <= o.area and (high is None or o.area <= high)]
        if chosen:
            dx, dy = np.median([(o.dx, o.dy) for o in chosen], axis=0)
            table[low, high] = len(chosen), float(dx), float(dy)
    return table


TURNS = 8
"""The flips and quarter turns of an image, itself included."""


def turned(sample: Sample, turn: int, off: MaskOffset) -> Sample:
    """Turn a sample; masks that lay beside their targets lie on the same side as before.

    A turn takes an offset to another one; masks of the sizes concerned are moved by the difference, rounded
    to whole pixels. What is moved beyond the border is lost; masks that meet become one.

    Args:
        sample: One image with its mask.
        turn: 0 (as it is) to 7: transposed where 4 is in it, then mirrored along x where 1 is, along y
            where 2 is.
        off: Which masks lie beside their targets, and where.
    """
    image, mask, dx, dy = sample.image, sample.mask, off.dx, off.dy
    if turn & 4:
        image, mask, dx, dy = image.T, mask.T, dy, dx
    if turn & 1:
        image, mask, dx = image[:, ::-1], mask[:, ::-1], -dx
    if turn & 2:
        image, mask, dy = image[::-1], mask[::-1], -dy
    right, down = round(off.dx - dx), round(off.dy - dy)
    if right or down:
        mask = _moved(mask, right, down, off)
    return Sample(sample.id, np.ascontiguousarray(image), np.ascontiguousarray(mask))


def _moved(mask: NDArray[np.bool_], right: int, down: int, off: MaskOffset) -> NDArray[np.bool_]:
    """Move the components of the sizes concerned."""
    labels = targets.label(mask)[1]
    areas = np.bincount(labels.ravel())
    moves = (areas >= off.least) & (areas <= off.most)
    moves[0] = False
    rows, columns = np.nonzero(moves[labels])
    result = mask.copy()
    result[rows, columns] = False
    rows, columns = rows + down, columns + right
    inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    result[rows[inside], columns[inside]] = True
    return result
