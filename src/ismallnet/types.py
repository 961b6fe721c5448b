"""The values that cross module borders: plain, frozen, and free of heavy imports.

Coordinates are pixels: ``x`` runs along columns, ``y`` along rows, the centre of the top-left
pixel is (0, 0). Boxes are half-open: ``x0 <= x < x1``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Sample(NamedTuple):
    """One image of a data set with its truth."""

    id: str
    """Name of the image in the split list, unique within its data set."""
    image: NDArray[np.uint8]
    """(H, W) grey levels 0-255."""
    mask: NDArray[np.bool_]
    """(H, W), True on target pixels."""


class Labels(NamedTuple):
    """A mask decoupled into the two maps that supervise the interior and boundary streams."""

    interior: NDArray[np.uint8]
    """(H, W), 0-255, largest in the middle of a target."""
    boundary: NDArray[np.uint8]
    """(H, W), 0-255, largest on the outline of a target."""


class Logits(NamedTuple):
    """What every network returns, in training and evaluation alike; each map is (B, 1, H, W)."""

    target: Tensor
    """The prediction: ``sigmoid(target)`` is the score."""
    interior: Tensor | None = None
    boundary: Tensor | None = None
    auxiliary: tuple[Tensor, ...] = ()
    """Further predictions of the target for deep supervision."""


@dataclass(frozen=True, slots=True)
class Target:
    """One connected component (8-neighbourhood) of a mask."""

    x0: int
    y0: int
    x1: int
    y1: int
    """Bounding box, half-open, in pixels."""
    x: float
    y: float
    """Centroid in pixels: weighted by the score where there is one, else the plain mean."""
    area: int
    """Number of pixels."""
    peak: float
    """Largest score inside; 1 where there is no score."""
    mean: float
    """Mean score inside; 1 where there is no score."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """What a detector found in one image."""

    score: NDArray[np.float32]
    """(H, W): probability in [0, 1] for networks, the unscaled response for filters."""
    mask: NDArray[np.bool_]
    """(H, W): the score beyond the threshold."""
    targets: tuple[Target, ...]
    """The components of the mask, the highest peak first."""
    threshold: float
    """The threshold that was applied to the score."""
    interior: NDArray[np.float32] | None = None
    boundary: NDArray[np.float32] | None = None
    """(H, W) in [0, 1], from networks with these streams."""
