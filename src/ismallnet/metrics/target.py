"""Components of a mask, their one-to-one matching, and what makes a target hard: shape and contrast.

False alarms are known by the identity of the unmatched component. Comparing areas instead
(``area not in matched_areas``, widespread) misses false components that share an area with a match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from ismallnet.metrics.pixel import ratio
from ismallnet.targets import label, ring

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.metrics.protocols import Matching


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """The K 8-connected components of a mask, in the order of their first pixels (rows, then columns)."""

    owner: NDArray[np.intp]
    """(N,) index of the component of every positive pixel."""
    y: NDArray[np.intp]
    x: NDArray[np.intp]
    """(N,) row and column of every positive pixel, in pixels."""
    area: NDArray[np.intp]
    """(K,) number of pixels."""
    centroid: NDArray[np.float64]
    """(K, 2) unweighted mean (y, x) in pixels."""
    box: NDArray[np.intp]
    """(K, 4) y0, x0, y1, x1, half-open, in pixels."""

    def __len__(self) -> int:
        return len(self.area)


def components(mask: NDArray[np.bool_]) -> Components:
    """Label an (H, W) mask, working only inside the bounding window of its positive pixels."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        none = np.zeros(0, np.intp)
        return Components(none, none, none, none, np.zeros((0, 2)), np.zeros((0, 4), np.intp))
    band = mask[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(band.any(axis=0))
    window = np.ascontiguousarray(band[:, columns[0] : columns[-1] + 1])
    _, labels = label(window)
    flat = np.flatnonzero(window)
    owner = labels.reshape(-1)[flat].astype(np.intp) - 1
    y, x = np.divmod(flat, window.shape[1])
    y, x = y + rows[0], x + columns[0]
    area = np.bincount(owner)
    centroid = np.stack([np.bincount(owner, y), np.bincount(owner, x)], axis=1) / area[:, None]
    return Components(owner, y, x, area, centroid, _boxes(owner, y, x, area))


def _boxes(
    owner: NDArray[np.intp], y: NDArray[np.intp], x: NDArray[np.intp], area: NDArray[np.intp]
) -> NDArray[np.intp]:
    order = np.argsort(owner, kind="stable")
    start = np.cumsum(area) - area
    edges = [
        reduce.reduceat(values[order], start)
        for reduce, values in ((np.minimum, y), (np.minimum, x), (np.maximum, y), (np.maximum, x))
    ]
    return np.stack([edges[0], edges[1], edges[2] + 1, edges[3] + 1], axis=1)


def match(
    truth: NDArray[np.float64],
    prediction: NDArray[np.float64],
    *,
    method: Matching = "bipartite",
    distance_px: float = 3.0,
) -> NDArray[np.intp]:
    """Pair true with predicted centroids, one to one, strictly closer than ``distance_px``.

    Args:
        truth: (T, 2) centroids in label order.
        prediction: (P, 2) centroids in label order.
        method: ``bipartite``: the most pairs, then the least total distance, independent of order.
            ``greedy`` (DNANet, BasicIRSTD): each true centroid takes the first free prediction.
        distance_px: exclusive limit.

    Returns:
        (T,) index of the matched prediction, -1 for a missed target.

    Raises:
        ValueError: unknown method.
    """
    if method not in ("bipartite", "greedy"):
        raise ValueError(f"unknown matching {method!r}; choose from bipartite, greedy")
    partner = np.full(len(truth), -1, np.intp)
    if len(truth) == 0 or len(prediction) == 0:
        return partner
    offset = truth[:, None] - prediction[None]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    near = distance < distance_px
    if near.sum(axis=0).max() <= 1 and near.sum(axis=1).max() <= 1:  # no choice to make
        rows, columns = np.nonzero(near)
        partner[rows] = columns
    elif method == "greedy":
        _match_greedy(near, partner)
    else:
        forbidden = distance_px * (min(near.shape) + 1)  # dearer than all allowed pairs together
        rows, columns = linear_sum_assignment(np.where(near, distance, forbidden))
        allowed = near[rows, columns]
        partner[rows[allowed]] = columns[allowed]
    return partner


def _match_greedy(near: NDArray[np.bool_], partner: NDArray[np.intp]) -> None:
    free = np.ones(near.shape[1], bool)
    for row, candidates in enumerate(near):
        choices = np.flatnonzero(candidates & free)
        if choices.size:
            partner[row] = choices[0]
            free[choices[0]] = False


def eccentricity(found: Components) -> NDArray[np.float64]:
    """(K,) eccentricity in [0, 1) of the ellipse with the component's second central moments.

    ``sqrt(1 - minor / major)`` of the two eigenvalues of the covariance of the pixels, each pixel a
    unit square (1/12 added to both variances, as in MATLAB; scikit-image adds nothing, so that every
    one-pixel line has 1 there). One pixel and a square give 0, a 2x1 domino sqrt(3)/2.
    """
    y, x = found.y - found.centroid[found.owner, 0], found.x - found.centroid[found.owner, 1]
    count = len(found)
    yy = np.bincount(found.owner, y * y, count) / found.area + 1 / 12
    xx = np.bincount(found.owner, x * x, count) / found.area + 1 / 12
    xy = np.bincount(found.owner, x * y, count) / found.area
    spread = np.sqrt((xx - yy) ** 2 / 4 + xy**2)
    major = (xx + yy) / 2 + spread
    return np.sqrt(np.clip(2 * spread / major, 0, 1))


def signal_and_clutter(
    image: NDArray[np.generic], mask: NDArray[np.bool_], found: Components
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure how each component stands out of the ring around it, and how restless that ring is.

    Args:
        image: (H, W) grey levels, or a response, in any unit.
        mask: (H, W) of which ``found`` are the components.
        found: the components.

    Returns:
        (K,) ``abs(mean_target - mean_ring)`` and (K,) ``std_ring``, in the unit of the image. The ring is the
        bounding box grown by 20 px, clipped to the image, without the pixels of any target; its std divides
        by N. Both are nan where the ring has no pixel.
    """
    mean = np.bincount(found.owner, image[found.y, found.x].astype(np.float64), len(found)) / found.area
    signal, clutter = np.full((2, len(found)), np.nan)
    for index, box in enumerate(found.box):
        window, free = ring(box, mask)
        around = image[window][free].astype(np.float64)
        if around.size:
            signal[index] = abs(mean[index] - around.mean())
            clutter[index] = around.std()
    return signal, clutter


def signal_to_clutter(
    image: NDArray[np.generic], mask: NDArray[np.bool_], found: Components
) -> NDArray[np.float64]:
    """(K,) signal-to-clutter ratio ``abs(mean_target - mean_ring) / std_ring`` of each component.

    Arguments and ring are those of `signal_and_clutter`; the ratio has no unit.

    Returns:
        nan where the ring is flat (std 0) or has no pixel.
    """
    return ratio(*signal_and_clutter(image, mask, found))


def gain_and_suppression(
    image: NDArray[np.generic], response: NDArray[np.float32], mask: NDArray[np.bool_], found: Components
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compare each component and its ring in the image with the same pixels of a filter's response.

    Args:
        image: (H, W) grey levels.
        response: (H, W), unscaled.
        mask: (H, W) of which ``found`` are the components.
        found: the components.

    Returns:
        (K,) SCR gain, the signal-to-clutter ratio in the response over that in the image, and (K,) background
        suppression factor, ``std_ring`` in the image over that in the response; the first has no unit, the
        second that of the image over that of the response. Where the ring is flat in the response (std 0) the
        factor is infinite, and so is the gain unless the target has no response either: then it is 0. Where
        the ring is flat in the image, or has no pixel, both are nan.
    """
    signal, clutter = signal_and_clutter(image, mask, found)
    answer, rest = signal_and_clutter(response, mask, found)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(answer > 0, answer / rest * clutter / signal, 0.0)
        suppression = clutter / rest
    defined = clutter > 0  # nan is not
    return np.where(defined, gain, np.nan), np.where(defined, suppression, np.nan)
