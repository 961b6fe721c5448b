"""From counts to rates: sum over images, derive, and resample the images for an interval.

Every rate is a function of sums, so a bootstrap replicate is one row of weights times the table of
counts and all replicates are derived in one vectorised call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ismallnet.metrics.box import Ranking
from ismallnet.metrics.pixel import harmonic_mean, iou, precision, ratio, recall
from ismallnet.metrics.strata import STRATA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ismallnet.metrics.counts import ImageCount
    from ismallnet.metrics.protocols import Protocol

    Array = NDArray[np.float64]


class Rate(NamedTuple):
    """A value and its 95 % bootstrap interval over images; nan where undefined or not asked for."""

    value: float
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True, slots=True)
class StratumRate:
    """Detection within one bin of a property of the targets."""

    property: str
    label: str
    targets: int
    pd: Rate
    recall: Rate
    """Pixels of these targets that were predicted."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Everything derived from one set of counts."""

    overall: dict[str, Rate]
    """iou, niou, mean_iou, precision, recall, f1, mean_precision, mean_recall, f1_of_means, pd, fa,
    false_components; ap50, ap where boxes were counted; scr_gain, suppression, flat_rings of a filter."""
    strata: tuple[StratumRate, ...]


def derive(counts: Sequence[ImageCount], protocol: Protocol, *, bootstrap: int = 0, seed: int = 0) -> Rates:
    """All rates of a set of images, each with a 95 % interval where ``bootstrap`` is not 0.

    Args:
        counts: one an image; at least one.
        protocol: for the empty case of nIoU.
        bootstrap: replicates; images are resampled with replacement, percentiles 2.5 and 97.5.
        seed: of the resampling.

    Raises:
        ValueError: no image, or a negative number of replicates.
    """
    if not counts:
        raise ValueError("no image was counted; rates need at least one")
    if bootstrap < 0:
        raise ValueError(f"bootstrap is {bootstrap}; pass a number of replicates, 0 for none")
    n = len(counts)
    weights = np.ones((1 + bootstrap, n))  # row 0: the set itself
    if bootstrap:
        weights[1:] = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), bootstrap)
    overall = {name: _interval(values) for name, values in _overall(counts, protocol, weights).items()}
    if all(count.boxes is not None for count in counts):
        overall |= _average_precision(counts, weights)
    return Rates(overall | _clutter(counts, weights), _strata(counts, weights))


def _interval(values: Array) -> Rate:
    value, replicates = float(values[0]), values[1:]
    if replicates.size == 0 or np.isnan(replicates).all():
        return Rate(value)
    low, high = np.nanpercentile(replicates, [2.5, 97.5])
    return Rate(value, float(low), float(high))


def _overall(counts: Sequence[ImageCount], protocol: Protocol, weights: Array) -> dict[str, Array]:
    names = ("pixels", "tp", "fp", "fn", "targets", "matched", "false_components", "false_pixels")
    column = {name: np.array([getattr(count, name) for count in counts], float) for name in names}
    tp, fp, fn = column["tp"], column["fp"], column["fn"]
    total = {name: weights @ values for name, values in column.items()}
    images = weights.sum(axis=1)

    def mean(values: Array) -> Array:
        average: Array = weights @ values / images
        return average

    pooled_p, pooled_r = precision(total["tp"], total["fp"]), recall(total["tp"], total["fn"])
    mean_p, mean_r = mean(precision(tp, fp, empty=0)), mean(recall(tp, fn, empty=0))
    return {
        "iou": iou(total["tp"], total["fp"], total["fn"]),
        "niou": mean(iou(tp, fp, fn, empty=protocol.empty)),
        "mean_iou": mean(iou(tp, fp, fn, empty=0)),
        "precision": pooled_p,
        "recall": pooled_r,
        "f1": harmonic_mean(pooled_p, pooled_r),
        "mean_precision": mean_p,
        "mean_recall": mean_r,
        "f1_of_means": harmonic_mean(mean_p, mean_r),
        "pd": ratio(total["matched"], total["targets"]),
        "fa": ratio(total["false_pixels"], total["pixels"], empty=0),
        "false_components": total["false_components"] / images,
    }


def _average_precision(counts: Sequence[ImageCount], weights: Array) -> dict[str, Rate]:
    ranking = Ranking([count.boxes for count in counts if count.boxes is not None])
    values = np.array([ranking.average_precision(weight) for weight in weights])
    values[1:][values[1:] < 0] = np.nan  # a replicate without a true box says nothing
    return {"ap50": _interval(values[:, 0]), "ap": _interval(values.mean(axis=1))}


def _clutter(counts: Sequence[ImageCount], weights: Array) -> dict[str, Rate]:
    """SCR gain, background suppression and share of flat rings; nothing where a response was not counted.

    Either of the first two is the median over images of the mean over an image's targets. The mean over
    images would be decided by the few rings in which the response is next to nothing.
    """
    pairs = [
        (each.details.gain, each.details.suppression)
        for each in counts
        if each.details is not None and each.details.gain is not None and each.details.suppression is not None
    ]
    if len(pairs) < len(counts):
        return {}
    rates = {}
    for name, targets in zip(("scr_gain", "suppression"), zip(*pairs, strict=True), strict=True):
        defined = (values[~np.isnan(values)] for values in targets)
        images = np.array([values.mean() if values.size else np.nan for values in defined])
        rates[name] = _median(images, weights)
    flat = np.array([np.isinf(factors).sum() for _, factors in pairs], float)
    known = np.array([(~np.isnan(factors)).sum() for _, factors in pairs], float)
    rates["flat_rings"] = _interval(ratio(weights @ flat, weights @ known))
    return rates


def _median(values: Array, weights: Array) -> Rate:
    """Median of the values that are not nan, the lower one of two, and its interval; infinity is a value."""
    kept = np.flatnonzero(~np.isnan(values))
    order = kept[np.argsort(values[kept])]
    total = np.cumsum(weights[:, order], axis=1)
    medians = [values[order[np.searchsorted(row, row[-1] / 2)]] for row in total if row.size and row[-1] > 0]
    if not medians:
        return Rate(np.nan)
    if len(medians) == 1:
        return Rate(float(medians[0]))
    low, high = np.percentile(medians[1:], [2.5, 97.5], method="inverted_cdf")  # between infinities is nan
    return Rate(float(medians[0]), float(low), float(high))


def _strata(counts: Sequence[ImageCount], weights: Array) -> tuple[StratumRate, ...]:
    details = [count.details for count in counts if count.details is not None]
    if len(details) < len(counts):
        return ()
    image = np.repeat(np.arange(len(details)), [len(each.area) for each in details])
    area, covered, matched = (
        np.concatenate([getattr(each, name) for each in details]).astype(float)
        for name in ("area", "covered", "matched")
    )
    rates = []
    for stratum in STRATA:
        where = stratum.bins(np.concatenate([getattr(each, stratum.name) for each in details]))
        for index, label in enumerate(stratum.labels):
            inside = where == index
            sums = {
                name: weights @ np.bincount(image[inside], values[inside], len(counts))
                for name, values in (("n", np.ones_like(area)), ("m", matched), ("a", area), ("c", covered))
            }
            pd, found = ratio(sums["m"], sums["n"]), ratio(sums["c"], sums["a"])
            rates.append(StratumRate(stratum.name, label, int(inside.sum()), _interval(pd), _interval(found)))
    return tuple(rates)
