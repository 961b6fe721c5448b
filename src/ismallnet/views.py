"""Test-time augmentation: what other views of an image say of it.

`averaged`: the response is the mean over flips and quarter turns. A network may put outlines to one side,
because the masks it learnt from lie there (NUDT-SIRST, see docs/datasets.md), and where an image is turned
the side is another. So every view is registered to the image as it lies before it counts: what brings its
targets nearer is moved by a pixel.

`confirmed`: the response counts as far as the image enlarged or shrunk has it too. A network knows targets of
many sizes; what it takes for one by mistake, it often takes so at one size only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ismallnet.maps import Maps, joined, resize

if TYPE_CHECKING:
    from ismallnet.maps import Plane

_WINDOW = 15
"""Side of the square, in pixels, over which scores are compared."""
_WORTH = 0.5
"""A view is moved where that leaves less than this share of its squared difference to what it is to meet."""
_SIZES = 1.25, 0.8
"""How many times as large as it is an image is looked at once more."""
_NEAR = 7
"""Side of the square, in pixels, in which another size has to show a target, for outlines differ."""
_MOVES = [(y, x) for y, x in product((-1, 0, 1), repeat=2) if (y, x) != (0, 0)]


def averaged(
    respond: Callable[[Plane], Maps], score: Callable[[Plane], Plane], views: int
) -> Callable[[Plane], Maps]:
    """Let a function of stacks answer with the mean over several views of each image.

    Args:
        respond: From (B, H, W) to responses of that shape; they are averaged.
        score: From a response to the score by which views are registered.
        views: 1: the image as it is. 2: it and its mirror image. 4: both flips. 8: quarter turns as well.

    Raises:
        ValueError: Another number of views.
    """
    if views not in (1, 2, 4, 8):
        raise ValueError(f"got {views} views; give 1, 2, 4 or 8")
    if views == 1:
        return respond

    def seen(stack: Plane, view: int) -> Maps:
        return respond(np.ascontiguousarray(_turned(stack, view))).each(lambda x: _turned(x, view, back=True))

    def mean(stacks: Sequence[Plane]) -> Plane:
        return np.stack([_mean(responses, score) for responses in zip(*stacks, strict=True)])

    return lambda stack: joined((seen(stack, view) for view in range(views)), mean)


def confirmed(respond: Callable[[Plane], Maps], own: Callable[[Plane], Maps]) -> Callable[[Plane], Maps]:
    """Let a function of stacks lower its response where other sizes of an image do not show a target.

    Args:
        respond: From (B, H, W) to responses of that shape, for the image enlarged and shrunk 1.25 times.
        own: The function, such as `respond` itself or its `averaged`.

    Returns:
        From (B, H, W) to the maps of `own`, the target's no higher than the highest response of either size
        in the 7×7 pixels around.
    """

    def seen(stack: Plane, times: float) -> Plane:
        height, width = (max(round(n * times), 1) for n in stack.shape[1:])
        response = respond(np.stack([resize(image, (height, width)) for image in stack])).target
        return np.stack([resize(each, stack.shape[1:]) for each in response])

    def lowered(stack: Plane) -> Maps:
        maps = own(stack)
        highest = np.maximum(*(seen(stack, times) for times in _SIZES))
        near = np.stack([cv2.dilate(each, np.ones((_NEAR, _NEAR), np.uint8)) for each in highest])
        return maps._replace(target=np.minimum(maps.target, near))

    return lowered


def _turned(stack: Plane, view: int, *, back: bool = False) -> Plane:
    """Swap the axes by bit 2 of the view, flip up and down by bit 1, left and right by bit 0; or undo it."""
    turned = stack.swapaxes(1, 2) if view & 4 and not back else stack
    flipped = turned[:, :: -1 if view & 2 else 1, :: -1 if view & 1 else 1]
    return flipped.swapaxes(1, 2) if view & 4 and back else flipped


def _mean(responses: Sequence[Plane], score: Callable[[Plane], Plane]) -> Plane:
    """Return the mean of (H, W) responses, all but the first registered to the first."""
    first, *others = (np.ascontiguousarray(response) for response in responses)
    wanted = score(first)
    moved = (_registered(response, score(response), wanted) for response in others)
    return np.asarray(sum(moved, start=first) / np.float32(len(responses)))


def _registered(response: Plane, score: Plane, wanted: Plane) -> Plane:
    """Move a response by up to a pixel, each way, where its score is much nearer then to the one wanted."""
    least, chosen = _WORTH * _difference(score, wanted), response
    responses, scores = (np.pad(plane, 1, "edge") for plane in (response, score))
    for move in _MOVES:
        window = tuple(slice(1 - by, 1 - by + n) for by, n in zip(move, wanted.shape, strict=True))
        left = _difference(scores[window], wanted)
        nearer = left < least
        least, chosen = np.where(nearer, left, least), np.where(nearer, responses[window], chosen)
    return chosen


def _difference(a: Plane, b: Plane) -> Plane:
    squares = (a - b) ** 2
    return np.asarray(cv2.boxFilter(squares, -1, (_WINDOW,) * 2, borderType=cv2.BORDER_REPLICATE), np.float32)
