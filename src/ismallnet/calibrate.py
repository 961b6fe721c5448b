"""Choose a detector's threshold on train lists, under the protocol `standard`, and keep the whole sweep.

An image is scored once. The values that are tried are fixed: k of a filter's rule, mean + k standard
deviations, or a network's threshold, each with the counts that `evaluate` has at that value.
"""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from ismallnet import metrics
from ismallnet.checkpoint import written_whole
from ismallnet.detector import CALIBRATION, Detector
from ismallnet.evaluate import provenance, score_map
from ismallnet.metrics.plot import save_sweep
from ismallnet.rules import Statistical, mean_and_deviation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.data import Dataset
    from ismallnet.metrics import ImageCount

    Array = NDArray[np.float64]

Criterion = Literal["iou", "niou", "f1"]
PROTOCOL = metrics.PROTOCOLS["standard"]
K: Array = np.concatenate([np.arange(5, 401) / 10, np.geomspace(40, 450, 50)[1:].round(1)])
"""The k that are tried, of every filter: 0.5 to 40 in steps of 0.1, then 49 in equal ratios up to 450.

A lone pixel stands out by no more than the root of the number of pixels, some 420 deviations in the largest
image of the public lists: there no false alarm is left.
"""
THRESHOLDS: Array = np.arange(1, 200) / 200
"""The thresholds that are tried, of every network: 0.005 to 0.995 in steps of 0.005."""
RATES = ("iou", "niou", "precision", "recall", "f1", "pd", "fa", "false_components")
"""What a sweep has at every value, by its name in `metrics.Rates.overall`."""


class Part(NamedTuple):
    """A data set that a calibration was made on."""

    name: str
    split: str
    split_sha256: str
    n: int
    """Number of images."""
    rates: Mapping[str, float]
    """`RATES` at the chosen value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """The threshold that was chosen for a detector, what it was chosen among, by what, and on what."""

    detector: str
    weights_sha256: str | None
    """Of a network; a calibration is for these weights only."""
    variable: Literal["k", "threshold"]
    criterion: str
    """``iou``, ``niou`` or ``f1``, the highest; or ``fa <= budget``."""
    values: Array
    """(V,) what was tried, ascending."""
    sweep: Mapping[str, Array]
    """(V,) each of `RATES` over all images."""
    index: int
    """Of the chosen value."""
    data: tuple[Part, ...]
    provenance: Mapping[str, object]

    @property
    def value(self) -> float:
        """The chosen value."""
        return float(self.values[self.index])

    @property
    def rates(self) -> dict[str, float]:
        """`RATES` over all images at the chosen value."""
        return {name: float(rates[self.index]) for name, rates in self.sweep.items()}

    @property
    def at_edge(self) -> bool:
        """Whether the chosen value is the least or the largest that was tried."""
        return self.index in (0, len(self.values) - 1)

    def to_dict(self) -> dict[str, object]:
        """Everything but the sweep, ready for JSON: fractions, None for what is not defined."""
        return {
            "detector": self.detector,
            "weights_sha256": self.weights_sha256,
            "variable": self.variable,
            "value": self.value,
            "criterion": self.criterion,
            "protocol": PROTOCOL.name,
            "tried": {"least": self.values[0], "largest": self.values[-1], "count": len(self.values)},
            "rates": _plain(self.rates),
            "data": [each._asdict() | {"rates": _plain(each.rates)} for each in self.data],
            "provenance": dict(self.provenance),
        }


def calibrate(
    detector: Detector,
    datasets: Sequence[Dataset],
    *,
    criterion: Criterion = "iou",
    fa: float | None = None,
    share: float = 1.0,
    advance: Callable[[int, int, str], None] | None = None,
) -> Calibration:
    """Choose the k of a filter, or the threshold of a network, on train lists.

    Args:
        detector: its own k or threshold plays no part; its rule says which of the two it is.
        datasets: train lists, counted together.
        criterion: the rate that is highest at the value chosen; of equals, the middle one.
        fa: in place of the criterion, a budget of false-alarm pixels per pixel, such as 10e-6: the lowest
            value from which on, up to the largest, Fa stays within the budget.
        share: of each list, drawn at random with a fixed seed, where a detector is too slow for all of it;
            name and checksum of the split are those of what was drawn.
        advance: called with (images done, images in all, name of the image).

    Raises:
        ValueError: a test list, no data set, no target in any, an unknown criterion, a share outside (0, 1],
            a budget outside [0, 1) or one that no value stays within, or a score map that is not finite.
    """
    for each in datasets:
        if each.holds_test_images:
            raise ValueError(
                f"{each.name} {each.split} is a test list, or holds one; thresholds are chosen on train lists"
            )
    if criterion not in get_args(Criterion):
        raise ValueError(f"unknown criterion {criterion!r}; choose from {', '.join(get_args(Criterion))}")
    if fa is not None and not 0 <= fa < 1:
        raise ValueError(f"fa is a fraction of all pixels, such as 10e-6; got {fa}")
    if not datasets or len({each.name for each in datasets}) < len(datasets):
        raise ValueError("give one train list or more, each data set once")
    if not 0 < share <= 1:
        raise ValueError(f"share is a part of each list, above 0 and at most 1; got {share}")
    datasets = [_draw(each, share) for each in datasets] if share < 1 else datasets
    statistical = isinstance(detector.rule, Statistical)
    values = K if statistical else THRESHOLDS
    counts = _count(detector, datasets, values, advance)
    if not any(count.targets for count in counts[0]):
        raise ValueError("the images hold no target; a threshold is chosen on images with targets")
    rates = [_rates(row) for row in counts]
    sweep = {name: np.array([each[name] for each in rates]) for name in RATES}
    index = _best(sweep[criterion]) if fa is None else _within(values, sweep["fa"], fa)
    return Calibration(
        detector=detector.name,
        weights_sha256=detector.weights_sha256,
        variable="k" if statistical else "threshold",
        criterion=criterion if fa is None else f"fa <= {fa:g}",
        values=values,
        sweep=sweep,
        index=index,
        data=tuple(_part(each, counts[index]) for each in datasets),
        provenance=provenance() | {"views": detector.views, "confirm": detector.confirm},
    )


def _draw(dataset: Dataset, share: float) -> Dataset:
    """Draw a share of the images, at least one, kept in the order of the list."""
    n = max(round(share * len(dataset)), 1)
    drawn = np.sort(np.random.default_rng(0).permutation(len(dataset))[:n])
    split = f"{dataset.split}, {n} of {len(dataset)} images drawn with seed 0"
    return dataset.subset((dataset.ids[index] for index in drawn), split=split)


def _count(
    detector: Detector,
    datasets: Sequence[Dataset],
    values: Array,
    advance: Callable[[int, int, str], None] | None,
) -> list[list[ImageCount]]:
    """Count every image at every value: a list of all images for each value."""
    counts: list[list[ImageCount]] = [[] for _ in values]
    total, done = sum(map(len, datasets)), 0
    for dataset in datasets:
        for sample in dataset:
            score = score_map(detector, sample.image, PROTOCOL, dataset.name)
            thresholds = _thresholds(detector, score, values)
            above = score.size - np.searchsorted(np.sort(score, axis=None), thresholds, side="right")
            before = -1
            for row, threshold, positive in zip(counts, thresholds, above, strict=True):
                if positive != before:  # else the mask is the one before
                    mask = score > threshold
                    count = metrics.count_image(
                        mask, sample.mask, protocol=PROTOCOL, id=sample.id, data=dataset.name
                    )
                    before = positive
                row.append(count)
            done += 1
            if advance is not None:
                advance(done, total, sample.id)
    return counts


def _thresholds(detector: Detector, score: NDArray[np.float32], values: Array) -> NDArray[np.float32]:
    """What the rule would compare this score with at each value, in the precision of the comparison."""
    if not isinstance(detector.rule, Statistical):
        return values.astype(np.float32)
    mean, deviation = mean_and_deviation(score)
    return (mean + values * deviation).astype(np.float32)


def _rates(counts: Sequence[ImageCount]) -> dict[str, float]:
    overall = metrics.derive(counts, PROTOCOL).overall
    return {name: overall[name].value for name in RATES}


def _best(rates: Array) -> int:
    """Index of the highest rate; of equals, the middle one."""
    known = np.nan_to_num(rates)
    best = np.flatnonzero(known == known.max())
    return int(best[len(best) // 2])


def _within(values: Array, rates: Array, budget: float) -> int:
    """Index of the lowest value from which on all rates are within the budget."""
    over = np.flatnonzero(rates > budget)
    first = int(over[-1]) + 1 if over.size else 0
    if first == len(values):
        raise ValueError(
            f"Fa stays within {budget:g} at no value up to {values[-1]:g}, where it is {rates[-1]:.3g}; "
            f"its least is {rates.min():.3g}, at {values[int(rates.argmin())]:g}: allow more"
        )
    return first


def _part(dataset: Dataset, counts: Sequence[ImageCount]) -> Part:
    own = [count for count in counts if count.data == dataset.name]
    return Part(dataset.name, dataset.split, dataset.split_sha256, len(own), _rates(own))


def _plain(rates: Mapping[str, float]) -> dict[str, float | None]:
    return {name: rate if math.isfinite(rate) else None for name, rate in rates.items()}


def write_calibration(calibration: Calibration, out: str | Path, *, force: bool = False) -> list[Path]:
    """Write calibration.json, which `load` takes, sweep.csv and, where matplotlib is installed, sweep.png.

    The folder appears complete or not at all; with ``force`` in an existing folder every file does. Without
    matplotlib there is a warning in place of the picture.

    Returns:
        The files written.

    Raises:
        FileExistsError: the folder holds something and ``force`` is not set.
    """
    out = Path(out)
    with written_whole(out, force=force) as made:
        text = json.dumps(calibration.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)
        (made / CALIBRATION).write_text(text + "\n", encoding="utf-8")
        with (made / "sweep.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow((calibration.variable, *calibration.sweep))
            for row in zip(calibration.values, *calibration.sweep.values(), strict=True):
                table.writerow(f"{number:.6g}" for number in row)
        try:
            save_sweep(
                made / "sweep.png",
                calibration.values,
                calibration.sweep,
                name=calibration.variable,
                chosen=calibration.value,
                title=f"{calibration.detector}, {', '.join(each.name for each in calibration.data)}",
            )
        except ImportError as error:
            warnings.warn(str(error), stacklevel=2)
        names = sorted(path.name for path in made.iterdir())
    return [out / name for name in names]
