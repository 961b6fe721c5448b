"""Average precision of boxes by the COCO definition (Lin et al. 2014), on components of the score map.

Detections are ranked by score over all images; within an image each takes the free true box of
highest overlap, if that reaches the limit. Precision is made monotone and averaged over 101 recalls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LIMITS = np.linspace(0.5, 0.95, 10)
"""The ten overlaps of AP@[.5:.95]."""
RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""Detections kept in an image, the best scores first (COCO's maxDets)."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxCount:
    """The ranked detections of one image."""

    score: NDArray[np.float64]
    """(D,) descending."""
    hit: NDArray[np.bool_]
    """(10, D) whether the detection took a true box at each limit."""
    true: int
    """Number of true boxes."""


def overlap(a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.float64]:
    """(A, B) intersection over union of half-open boxes (A, 4) and (B, 4), y0, x0, y1, x1 in pixels."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=-1)
    shared: NDArray[np.float64] = inside / (_area(a)[:, None] + _area(b)[None] - inside)
    return shared


def _area(box: NDArray[np.intp]) -> NDArray[np.intp]:
    area: NDArray[np.intp] = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    return area


def count_boxes(box: NDArray[np.intp], score: NDArray[np.float64], truth: NDArray[np.intp]) -> BoxCount:
    """Match the detections of one image to its true boxes at all ten limits.

    Args:
        box: (D, 4) detections y0, x0, y1, x1, half-open, in pixels.
        score: (D,) any scale, larger is surer.
        truth: (T, 4) true boxes.
    """
    order = np.argsort(-score, kind="stable")[:MOST]
    hit = np.zeros((len(LIMITS), len(order)), bool)
    shared = overlap(box[order], truth)
    if shared.size and shared.max() >= LIMITS[0]:
        for row, limit in enumerate(LIMITS):
            free = np.ones(len(truth), bool)
            for column, overlaps in enumerate(shared):
                candidates = np.where(free, overlaps, -1.0)
                best = len(truth) - 1 - int(candidates[::-1].argmax())  # the last of equals, as pycocotools
                if candidates[best] >= min(limit, 1 - 1e-10):
                    hit[row, column], free[best] = True, False
    return BoxCount(score[order], hit, len(truth))


class Ranking:
    """Detections of all images in one order, ready to be weighted by a bootstrap."""

    def __init__(self, counts: Sequence[BoxCount]) -> None:
        """Merge the images; equal scores stay in the order of the images."""
        self._true = np.array([count.true for count in counts], float)
        score = np.concatenate([count.score for count in counts] or [np.zeros(0)])
        image = np.repeat(np.arange(len(counts)), [len(count.score) for count in counts])
        order = np.argsort(-score, kind="stable")
        self._image = image[order]
        hits = np.concatenate([count.hit for count in counts] or [np.zeros((len(LIMITS), 0), bool)], axis=1)
        self._hit = hits[:, order]

    def average_precision(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """(10,) AP at each of `LIMITS` with image i counted ``weight[i]`` times.

        Without a true box every value is -1, which is pycocotools' convention.
        """
        true = float(weight @ self._true)
        if true == 0:
            return np.full(len(LIMITS), -1.0)
        each = weight[self._image]
        return np.array([_average_precision(each, hit, true) for hit in self._hit])


def _average_precision(weight: NDArray[np.float64], hit: NDArray[np.bool_], true: float) -> float:
    right = np.cumsum(weight * hit)
    precision = right / np.maximum(np.cumsum(weight), np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(right / true, RECALLS, side="left")
    return float(np.append(envelope, 0.0)[at].mean())
