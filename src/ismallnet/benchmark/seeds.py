"""A detector over the seeds of its training: mean, spread, and whether a lead on a published number is one.

Two things are left to chance, and either alone may make a lead: which images the list has (bootstrap over
images) and which seed was drawn (Student's t over seeds). A claim takes both intervals, and `LEAST` seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ismallnet.benchmark.published import find_published

if TYPE_CHECKING:
    from ismallnet.benchmark.store import Row

LEAST = 3
"""Seeds below which a row claims nothing."""
LEVEL = 0.95
RATES = {"ismallnet": {"mean_iou": "miou", "f1_of_means": "f1"}}
"""By protocol, the rates that are compared, and the paper's column of each."""
OTHERS: Mapping[str, str | None] = {"iou": None, "niou": None}
"""Under any other protocol: the paper has no number."""
TITLES = {"mean_iou": "mIoU", "f1_of_means": "F1", "iou": "IoU", "niou": "nIoU"}
_BETWEEN = ", seed "


@dataclass(frozen=True, slots=True)
class Spread:
    """One rate of one detector over its seeds, in per cent."""

    detector: str
    trained_on: str
    data: str
    protocol: str
    rate: str
    values: Mapping[str, float]
    """By seed."""
    images: tuple[float, float]
    """95 % bootstrap interval over images: the mean bounds of the seeds', which is that of the mean where the
    seeds do well and badly on the same images, and wider than it otherwise. nan without bootstrap."""
    published: float | None
    """What the paper printed."""

    @property
    def mean(self) -> float:
        """Of the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds (n - 1); nan of one."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else math.nan

    @property
    def seeds(self) -> tuple[float, float]:
        """95 % interval of the mean over seeds."""
        return t_interval(list(self.values.values()))

    @property
    def verdict(self) -> str:
        """Whether both intervals are above, or below, the published number."""
        if len(self.values) < LEAST:
            return f"n = {len(self.values)}, claims nothing"
        if self.published is None:
            return "–"
        bounds = (*self.images, *self.seeds)
        if min(bounds) > self.published and not any(map(math.isnan, bounds)):
            return "above"
        if max(bounds) < self.published and not any(map(math.isnan, bounds)):
            return "below"
        return "not resolved"


def name_of(detector: str, seed: object) -> str:
    """Return the name that the row of one seed has in the table."""
    return f"{detector}{_BETWEEN}{seed}"


def spreads(rows: Iterable[Row]) -> list[Spread]:
    """Put the rows of a table together that differ by their seed alone; rows without weights are left out.

    Args:
        rows: Of table1.csv.
    """
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        if row["training_seed"]:
            name = row["detector"].removesuffix(f"{_BETWEEN}{row['training_seed']}")
            groups.setdefault((name, row["trained_on"], row["data"], row["protocol"]), []).append(row)
    return [
        _spread(key, own, rate, column)
        for key, own in groups.items()
        for rate, column in RATES.get(key[3], OTHERS).items()
        if all(row[rate] for row in own)
    ]


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean by Student's t; nan with fewer than two values."""
    from scipy.stats import t

    if len(values) < 2:
        return math.nan, math.nan
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def to_cells(spread: Spread) -> list[str]:
    """Return a row of the page; the columns are `HEADER`."""
    images, seeds = (
        "–" if math.isnan(low) else f"[{low:.2f}, {high:.2f}]" for low, high in (spread.images, spread.seeds)
    )
    deviation = "" if math.isnan(spread.deviation) else f" ± {spread.deviation:.2f}"
    return [
        spread.detector,
        spread.trained_on or "–",
        TITLES[spread.rate],
        str(len(spread.values)),
        ", ".join(f"{seed}: {value:.2f}" for seed, value in spread.values.items()),
        f"{spread.mean:.2f}{deviation}",
        images,
        seeds,
        "–" if spread.published is None else f"{spread.published:.2f}",
        spread.verdict,
    ]


HEADER = (
    "detector", "trained on", "rate", "n", "by seed", "mean ± std", "interval over images",
    "interval over seeds", "paper", "against the paper",
)  # fmt: skip


def _spread(key: tuple[str, str, str, str], rows: Sequence[Row], rate: str, column: str | None) -> Spread:
    def mean(end: str) -> float:
        cells = [row[f"{rate}{end}"] for row in rows]
        return 100 * statistics.fmean(map(float, cells)) if all(cells) else math.nan

    detector, trained_on, data, protocol = key
    printed = find_published(detector, data) if column else None
    return Spread(
        detector, trained_on, data, protocol, rate,
        values={row["training_seed"]: 100 * float(row[rate]) for row in rows},
        images=(mean("_low"), mean("_high")),
        published=float(getattr(printed, str(column))) if printed else None,
    )  # fmt: skip
