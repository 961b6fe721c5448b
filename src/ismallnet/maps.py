"""What the function of a detector answers, and the function itself: from pixels to responses.

The plainest takes one image, (H, W) float32 in [0, 1], and returns an array of that size. Here it becomes one
that takes stacks of images of one size, (B, H, W), of any size, and returns `Maps`, whose sizes are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.float32]


class Maps(NamedTuple):
    """What a detector's function returns where it has more than a response: (H, W) maps, all of one kind."""

    target: NDArray[np.float32]
    interior: NDArray[np.float32] | None = None
    boundary: NDArray[np.float32] | None = None

    def each(self, function: Callable[[Plane], Plane]) -> Maps:
        """Return a function of every map there is."""
        interior, boundary = (None if x is None else function(x) for x in (self.interior, self.boundary))
        return Maps(function(self.target), interior, boundary)

    def apart(self) -> Iterator[Maps]:
        """Take maps of (B, H, W) apart."""
        for n in range(len(self.target)):
            yield self.each(lambda x: x[n])  # noqa: B023  # used up at once


Function = Callable[["Plane"], "Plane | Maps"]
"""From pixels to responses of the same shape."""


def joined(parts: Iterable[Maps], join: Callable[[Sequence[Plane]], Plane]) -> Maps:
    """Join the maps of each kind, with `numpy.stack` or `numpy.concatenate`; at least one part."""
    targets, *streams = zip(*parts, strict=True)
    interior, boundary = (None if kind[0] is None else join(kind) for kind in streams)
    return Maps(join(targets), interior, boundary)


def one_by_one(function: Function) -> Callable[[Plane], Maps]:
    """Let a function of one image, (H, W), take a stack of them, (B, H, W)."""
    return lambda stack: joined((_as_maps(function(image)) for image in stack), np.stack)


def framed(function: Function, *, name: str, minimum: int) -> Callable[[Plane], Maps]:
    """Let a function of stacks take images of any size, and check the size of what it answers.

    Args:
        function: From (B, H, W) to responses of that shape.
        name: What the error calls it.
        minimum: Least height and width that it takes. Smaller images are mirrored at their edges, as often as
            it takes, and the maps cropped back.

    Returns:
        From (B, H, W) to maps of that shape, float32; it raises ValueError where the function's are not.
    """

    def respond(stack: Plane) -> Maps:
        padding = [(0, 0), *(_padding(length, minimum) for length in stack.shape[1:])]
        crop = tuple(slice(a, a + n) for (a, _), n in zip(padding, stack.shape, strict=True))

        def cropped(response: Plane) -> Plane:
            response = np.asarray(response, np.float32)[crop]
            if response.shape != stack.shape:
                got, wanted = response.shape[1:], stack.shape[1:]
                raise ValueError(f"{name} answered {wanted} pixels with a map of {got}")
            return response

        return _as_maps(function(np.pad(stack, padding, "reflect") if np.any(padding) else stack)).each(
            cropped
        )

    return respond


def resize(array: Plane, size: tuple[int, int]) -> Plane:
    """Resize (H, W) to (height, width) bilinearly: `align_corners=False` of torch, no antialiasing."""
    return np.asarray(cv2.resize(array, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _as_maps(answer: Plane | Maps) -> Maps:
    return answer if isinstance(answer, Maps) else Maps(answer)


def _padding(length: int, minimum: int) -> tuple[int, int]:
    """Return how much to add before and after, evenly."""
    missing = max(minimum - length, 0)
    return missing // 2, missing - missing // 2
