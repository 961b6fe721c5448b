"""Count one image; everything reported is derived from sums of these counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ismallnet.metrics.box import BoxCount, count_boxes
from ismallnet.metrics.pixel import count_pixels
from ismallnet.metrics.target import (
    Components,
    components,
    eccentricity,
    gain_and_suppression,
    match,
    signal_to_clutter,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.metrics.protocols import Protocol


@dataclass(frozen=True, slots=True, eq=False)
class TargetCounts:
    """The T true targets of one image, in label order."""

    area: NDArray[np.float64]
    """(T,) pixels."""
    eccentricity: NDArray[np.float64]
    """(T,) in [0, 1), see `target.eccentricity`."""
    scr: NDArray[np.float64]
    """(T,) signal-to-clutter ratio, nan where the ring is flat."""
    matched: NDArray[np.bool_]
    """(T,) detected."""
    covered: NDArray[np.float64]
    """(T,) pixels that were predicted."""
    gain: NDArray[np.float64] | None = None
    suppression: NDArray[np.float64] | None = None
    """(T,) SCR gain and background suppression, see `target.gain_and_suppression`; None but for filters."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageCount:
    """What one image contributes to every sum."""

    data: str
    """Data set of the image."""
    id: str
    """Name of the image within its data set."""
    pixels: int
    tp: int
    fp: int
    fn: int
    """Pixels of the image; true positive, false positive and false negative ones."""
    targets: int
    matched: int
    predicted: int
    """True components, those matched, and predicted components."""
    false_pixels: int
    """Pixels of unmatched predicted components."""
    details: TargetCounts | None = None
    """Properties of the targets, for strata; None where they were not asked for."""
    boxes: BoxCount | None = None
    """Ranked detections, for box AP; None where they were not asked for."""

    @property
    def false_components(self) -> int:
        """Predicted components without a match."""
        return self.predicted - self.matched


def count_image(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    *,
    protocol: Protocol,
    id: str = "",
    data: str = "",
    image: NDArray[np.generic] | None = None,
    score: NDArray[np.float32] | None = None,
    floor: float = 0.05,
    response: NDArray[np.float32] | None = None,
) -> ImageCount:
    """Compare a predicted with a true (H, W) mask under a protocol's matching.

    Args:
        prediction: boolean.
        truth: boolean.
        protocol: its matching and distance are used; geometry and threshold are the caller's.
        id: name of the image.
        data: name of its data set.
        image: (H, W) grey levels; with it the details of the targets are kept.
        score: (H, W) score map; with it the ranked boxes are kept.
        floor: boxes are those of the components of ``score > floor``.
        response: (H, W) of a filter, unscaled; with it the details have SCR gain and background suppression.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: the shapes differ.
    """
    pixel = count_pixels(prediction, truth)
    true, found = components(truth), components(prediction)
    partner = match(true.centroid, found.centroid, method=protocol.matching, distance_px=protocol.distance_px)
    matched = partner >= 0
    return ImageCount(
        data=data,
        id=id,
        pixels=truth.size,
        tp=pixel.tp,
        fp=pixel.fp,
        fn=pixel.fn,
        targets=len(true),
        matched=int(matched.sum()),
        predicted=len(found),
        false_pixels=int(found.area.sum() - found.area[partner[matched]].sum()),
        details=None if image is None else _details(true, matched, prediction, truth, image, response),
        boxes=None if score is None else _boxes(score, floor, true),
    )


def _details(
    true: Components,
    matched: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    image: NDArray[np.generic],
    response: NDArray[np.float32] | None,
) -> TargetCounts:
    gain, suppression = (
        (None, None) if response is None else gain_and_suppression(image, response, truth, true)
    )
    return TargetCounts(
        area=true.area.astype(np.float64),
        eccentricity=eccentricity(true),
        scr=signal_to_clutter(image, truth, true),
        matched=matched,
        covered=np.bincount(true.owner, prediction[true.y, true.x], len(true)).astype(np.float64),
        gain=gain,
        suppression=suppression,
    )


def _boxes(score: NDArray[np.float32], floor: float, true: Components) -> BoxCount:
    found = components(score > floor)
    peak = np.full(len(found), -np.inf)
    np.maximum.at(peak, found.owner, score[found.y, found.x])
    return count_boxes(found.box, peak, true.box)
