"""Images of any size, tile by tile: overlapping windows whose maps are blended where neighbours meet.

Two neighbours share `overlap` pixels or some more. In the middle of what they share, over half the overlap,
one map fades linearly into the other; the rest, where a tile lacks what lies beyond its edge, counts for
nothing. So a function that looks no further than a quarter of the overlap gives the map of the whole image
exactly. Tiles start on a grid of 32 pixels, the stride of the networks, whose poolings then see the same
pixels together as in the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice, pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Span = tuple[int, int]
    Plane = NDArray[np.float32]

GRID = 32
"""Tiles start at multiples of this many pixels."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are cut into tiles, and which ones.

    Raises:
        ValueError: A side under 128, or an overlap that is negative or over a third of the side.
    """

    side: int = 512
    """Of a tile, in pixels. An image is cut only along an axis that is longer."""
    overlap: int = 128
    """Least number of pixels that neighbours share."""
    above: int = 2**20
    """Only images of more pixels than this are cut."""

    def __post_init__(self) -> None:
        if self.side < 4 * GRID or not 0 <= self.overlap <= self.side / 3:
            raise ValueError(
                f"tiles have a side of at least {4 * GRID} pixels, of which at most a third overlaps; "
                f"got a side of {self.side} and an overlap of {self.overlap}"
            )


def spans(length: int, tiling: Tiling) -> list[Span]:
    """Cut a length into overlapping spans.

    Returns:
        Start and stop of each: starts are multiples of `GRID`, as evenly spread as that allows. All are
        `side` long but the last, which ends with the length and may be up to ``GRID - 1`` shorter; a length
        up to `side` is one span.
    """
    steps = max(-(-(length - tiling.side) // GRID), 0)  # of the grid, from the first start to the last
    cuts = -(-steps // ((tiling.side - tiling.overlap) // GRID))
    starts = [GRID * (steps * n // max(cuts, 1)) for n in range(cuts + 1)]
    return [(start, min(start + tiling.side, length)) for start in starts]


def seams(spans: Sequence[Span], overlap: int) -> list[Span]:
    """Return where each span fades into the next: half the overlap, in the middle of what the two share."""
    middles = ((start + stop) // 2 for (_, stop), (start, _) in pairwise(spans))
    return [(middle - overlap // 4, middle + overlap // 4) for middle in middles]


def walk(
    read: Callable[[int, int], Plane],
    function: Callable[[Plane], Plane],
    shape: tuple[int, int],
    tiling: Tiling,
    *,
    batch_px: int,
) -> Iterator[Plane]:
    """Map an image to its maps in bands of rows; two rows of tiles are held at a time.

    Args:
        read: From y0 and y1 to the rows y0 to y1 of the image, (y1 - y0, W).
        function: From tiles of one size, (B, h, w), to maps of each, (B, C, h, w).
        shape: (H, W) of the image.
        tiling: Every axis longer than its side is cut, whatever its `above`.
        batch_px: Pixels that the function is given at once, or one tile.

    Yields:
        (C, h, W): the maps from top to bottom, h from 1 to the side of a tile.
    """
    rows, columns = (spans(length, tiling) for length in shape)

    def maps_of(y0: int, y1: int) -> Plane:
        strip = read(y0, y1)
        tiles = batches((strip[:, x0:x1] for x0, x1 in columns), batch_px)
        maps = chain.from_iterable(map(function, tiles))
        return np.concatenate(list(_join(maps, columns, tiling.overlap, axis=-1)), axis=-1)

    yield from _join((maps_of(*row) for row in rows), rows, tiling.overlap, axis=-2)


def batches(images: Iterable[Plane], batch_px: int) -> Iterator[Plane]:
    """Stack consecutive images of one size: (B, H, W), of at most `batch_px` pixels, or one image."""
    for (height, width), group in groupby(images, lambda image: image.shape):
        while held := list(islice(group, max(batch_px // (height * width), 1))):
            yield np.stack(held)


def _join(pieces: Iterable[Plane], spans: Sequence[Span], overlap: int, *, axis: int) -> Iterator[Plane]:
    """Blend overlapping pieces along an axis: its stretches one after the other, none of them empty.

    The blend is ``a + t · (b - a)``, so that it is exactly a where a and b agree.
    """
    fades = seams(spans, overlap)
    held, begin = np.empty(0, np.float32), 0  # what is not yielded yet, and where it starts
    for n, piece in enumerate(pieces):
        after, start = np.moveaxis(piece, axis, 0), spans[n][0]
        if n:
            first, last = fades[n - 1]
            weight = (np.arange(last - first, dtype=np.float32) + np.float32(0.5)) / max(last - first, 1)
            a, b = held[first - begin : last - begin], after[first - start : last - start]
            mixed = a + weight.reshape(-1, *[1] * (a.ndim - 1)) * (b - a)
            yield from (np.moveaxis(x, 0, axis) for x in (held[: first - begin], mixed) if len(x))
            held, begin = after[last - start :], last
        else:
            held, begin = after, start
    yield np.moveaxis(held, 0, axis)
