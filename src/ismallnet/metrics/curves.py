"""Exact threshold sweeps: every distinct score is a threshold, nothing is binned.

The swept value is the score of a network, or ``(response - mean) / std`` of the image's own response
for a filter, whose decision rule is a number of standard deviations. A pixel is positive strictly
above the threshold, so the sweep puts it just below each distinct value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ismallnet.metrics.target import components

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUDGET = 1.0
"""FROC is integrated up to this many false components an image."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A sampled curve, the threshold descending, and the area under it."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    threshold: NDArray[np.float64]
    """Values at or above it are positive; infinite where none is."""
    area: float
    """nan where the curve is not defined (no true pixel or target, or no background)."""


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """The three curves of one evaluation."""

    roc: Curve
    """Pixels: true against false positive rate; area by trapezia, ties shared."""
    pr: Curve
    """Pixels: precision against recall; area is the average precision, a step function."""
    froc: Curve
    """Components: Pd against false components an image; area is the mean, over budgets from 0 to 1
    false component an image, of the best Pd within the budget."""


@dataclass(slots=True)
class Sweep:
    """Collects the score maps of a set of images, then gives the three curves.

    It keeps every background score as float32: 4 bytes a pixel of the set.
    """

    floor: float
    """FROC starts here: lower scores make no component."""
    _true: list[NDArray[np.float32]] = field(default_factory=list)
    _false: list[NDArray[np.float32]] = field(default_factory=list)
    _events: list[NDArray[np.float64]] = field(default_factory=list)
    _targets: int = 0

    def add(self, value: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """Take in one image: the (H, W) swept values and the (H, W) true mask."""
        self._true.append(value[truth])
        self._false.append(value[~truth])
        centroids = components(truth).centroid
        self._targets += len(centroids)
        self._events.append(sweep_components(value, centroids, floor=self.floor))

    def curves(self) -> Curves:
        """The curves of everything taken in.

        Raises:
            ValueError: no image was added.
        """
        if not self._events:
            raise ValueError("no image was added; a curve needs at least one")
        roc, pr = sweep_pixels(np.concatenate(self._true), np.concatenate(self._false))
        return Curves(roc, pr, _froc(np.concatenate(self._events), self._targets, len(self._events)))


def sweep_pixels(true: NDArray[np.float32], false: NDArray[np.float32]) -> tuple[Curve, Curve]:
    """ROC and PR curve from the scores of all true and all background pixels.

    Only thresholds at true scores can be corners: between two of them only false positives are added.
    Both ends of that run are kept, so the curves and areas are those of the full sweep.
    """
    background = np.sort(false)
    value, count = np.unique(true, return_counts=True)
    value, tp = value[::-1], np.cumsum(count[::-1])
    above = len(background) - np.searchsorted(background, value, side="right")
    reached = len(background) - np.searchsorted(background, value, side="left")
    corner = np.repeat(value.astype(np.float64), 2)
    corner_tp = np.stack([np.append(0, tp[:-1]), tp], axis=1).reshape(-1) if len(value) else tp
    corner_fp = np.stack([above, reached], axis=1).reshape(-1)
    positives, negatives = len(true), len(background)
    tpr = np.concatenate([[0], corner_tp, [positives]]) / max(positives, 1)
    fpr = np.concatenate([[0], corner_fp, [negatives]]) / max(negatives, 1)
    threshold = np.concatenate([[np.inf], corner, [-np.inf]])
    defined = positives > 0 and negatives > 0
    roc = Curve(fpr, tpr, threshold, float((tpr[1:] + tpr[:-1]) @ np.diff(fpr)) / 2 if defined else np.nan)
    precision = tp / (tp + reached)
    recall = tp / max(positives, 1)
    average = float(np.diff(recall, prepend=0) @ precision) if positives else np.nan
    return roc, Curve(recall, precision, value.astype(np.float64), average)


def sweep_components(
    value: NDArray[np.float32], truth: NDArray[np.float64], *, floor: float, distance_px: float = 3.0
) -> NDArray[np.float64]:
    """How matched and false components change as the threshold falls through every distinct value.

    Args:
        value: (H, W) swept values.
        truth: (T, 2) true centroids.
        floor: values at or below it never become positive.
        distance_px: exclusive limit of a match; the matching has the most pairs, whatever the protocol.

    Returns:
        (E, 3) threshold, change of matched and change of false components, thresholds descending.
    """
    flat = value.reshape(-1)
    pixels = np.flatnonzero(flat > floor)
    pixels = pixels[np.argsort(-flat[pixels], kind="stable")]
    levels = flat[pixels]
    edges = [*np.flatnonzero(np.diff(levels, prepend=np.inf)).tolist(), len(pixels)]
    ys, xs = (axis.tolist() for axis in np.divmod(pixels, value.shape[1]))
    forest = _Forest([(float(y), float(x)) for y, x in truth], distance_px)
    events, before = [], (0, 0)
    for start, end in pairwise(edges):
        forest.add(ys[start:end], xs[start:end])
        matched = forest.matched()
        after = (matched, len(forest) - matched)
        if after != before:
            events.append((float(levels[start]), after[0] - before[0], after[1] - before[1]))
            before = after
    return np.array(events, float).reshape(-1, 3)


class _Forest:
    """Components under a falling threshold: union-find over pixels, with their sums kept at the roots."""

    def __init__(self, targets: list[tuple[float, float]], distance_px: float) -> None:
        self._targets, self._distance = targets, distance_px
        self._parent: dict[tuple[int, int], tuple[int, int]] = {}
        self._sums: dict[tuple[int, int], tuple[int, int, int]] = {}  # root: area, sum of y, sum of x
        self._near: dict[tuple[int, int], tuple[int, ...]] = {}  # root: targets within the distance
        self._matched: int | None = 0

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, ys: list[int], xs: list[int]) -> None:
        """Make pixels positive."""
        for pixel in zip(ys, xs, strict=True):
            self._parent[pixel] = pixel
            self._sums[pixel] = (1, *pixel)
        roots = {self._join(pixel) for pixel in zip(ys, xs, strict=True)}
        for root in roots & self._sums.keys():
            area, y, x = self._sums[root]
            near = tuple(
                index
                for index, (ty, tx) in enumerate(self._targets)
                if math.hypot(ty - y / area, tx - x / area) < self._distance
            )
            if near != self._near.get(root, ()):
                self._matched = None
                self._near[root] = near

    def matched(self) -> int:
        """Most targets that can be paired one to one with components."""
        if self._matched is None:
            chosen: dict[int, tuple[int, int]] = {}
            roots = [root for root, near in self._near.items() if near]
            self._matched = sum(self._augment(root, chosen, set()) for root in roots)
        return self._matched

    def _augment(self, root: tuple[int, int], chosen: dict[int, tuple[int, int]], seen: set[int]) -> bool:
        for target in self._near[root]:
            if target not in seen:
                seen.add(target)
                if target not in chosen or self._augment(chosen[target], chosen, seen):
                    chosen[target] = root
                    return True
        return False

    def _find(self, pixel: tuple[int, int]) -> tuple[int, int]:
        parent = self._parent
        while parent[pixel] != pixel:
            parent[pixel] = parent[parent[pixel]]
            pixel = parent[pixel]
        return pixel

    def _join(self, pixel: tuple[int, int]) -> tuple[int, int]:
        root, (y, x) = self._find(pixel), pixel
        for neighbour in _around(y, x):
            if neighbour in self._parent:
                other = self._find(neighbour)
                if other != root:
                    root = self._merge(root, other)
        return root

    def _merge(self, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        keep, lose = (a, b) if self._sums[a][0] >= self._sums[b][0] else (b, a)
        self._parent[lose] = keep
        (n, y, x), (m, v, u) = self._sums[keep], self._sums.pop(lose)
        self._sums[keep] = (n + m, y + v, x + u)
        if self._near.pop(lose, ()):
            self._matched = None
        return keep


def _around(y: int, x: int) -> tuple[tuple[int, int], ...]:
    return (
        (y - 1, x - 1), (y - 1, x), (y - 1, x + 1), (y, x - 1),
        (y, x + 1), (y + 1, x - 1), (y + 1, x), (y + 1, x + 1),
    )  # fmt: skip


def _froc(events: NDArray[np.float64], targets: int, images: int) -> Curve:
    events = events[np.argsort(-events[:, 0], kind="stable")]
    totals = np.cumsum(events[:, 1:], axis=0)
    last = np.append(np.diff(events[:, 0]) != 0, True)[: len(events)]  # one point a threshold
    threshold = np.concatenate([[np.inf], events[last, 0]])
    pd = np.concatenate([[0.0], totals[last, 0]]) / max(targets, 1)
    false = np.concatenate([[0.0], totals[last, 1]]) / images
    order = np.lexsort((pd, false))
    best = np.maximum.accumulate(pd[order])
    width = np.diff(np.append(np.minimum(false[order], BUDGET), BUDGET))
    return Curve(false, pd, threshold, float(best @ width) / BUDGET if targets else np.nan)
