"""What decides on a score map: one threshold for all images, or one by the statistics of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


class Rule(Protocol):
    """Decides which pixels of a score map are target."""

    def threshold(self, score: NDArray[np.float32]) -> float:
        """Return the score above which a pixel of this map is target."""

    def threshold_of_bands(self, bands: Iterable[NDArray[np.float32]]) -> float:
        """Return the same for a map that comes in parts, which are not held."""

    def apply(self, score: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return the mask of the pixels above the threshold, strictly."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """One threshold for every image: the rule of networks, whose score is a probability."""

    value: float = 0.5

    def threshold(self, score: NDArray[np.float32]) -> float:  # noqa: ARG002
        """Return the value, whatever the score."""
        return self.value

    def threshold_of_bands(self, bands: Iterable[NDArray[np.float32]]) -> float:  # noqa: ARG002
        """Return the value; the bands are not read."""
        return self.value

    def apply(self, score: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return score > value, (H, W)."""
        return score > self.value


@dataclass(frozen=True, slots=True)
class Statistical:
    """Mean + k standard deviations of the image's own score: the rule of filters, whose score has no scale.

    The standard deviation is that of a sample (divisor N - 1), over the map. A constant map has no target.
    """

    k: float

    def threshold(self, score: NDArray[np.float32]) -> float:
        """Return mean + k · std of the score; the constant itself for a constant score."""
        mean, deviation = mean_and_deviation(score)
        return mean + self.k * deviation

    def threshold_of_bands(self, bands: Iterable[NDArray[np.float32]]) -> float:
        """Return the same for a map in parts, (h, W) each, at least one; but for rounding it is the same."""
        mean, deviation = mean_and_deviation_of_bands(bands)
        return mean + self.k * deviation

    def apply(self, score: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return score > mean + k · std, (H, W)."""
        return score > self.threshold(score)


def mean_and_deviation(score: NDArray[np.float32]) -> tuple[float, float]:
    """Return mean and standard deviation (divisor N - 1) of a score; of a constant one exactly it and 0."""
    if score.max() == score.min():  # rounding may put the mean beside the constant
        return float(score.max()), 0.0
    return float(score.mean(dtype=np.float64)), float(score.std(dtype=np.float64, ddof=1))


def mean_and_deviation_of_bands(bands: Iterable[NDArray[np.float32]]) -> tuple[float, float]:
    """Return what `mean_and_deviation` does of a map that comes in parts, and read them once.

    The sums of squares about the means are combined after T. F. Chan, G. H. Golub and R. J. LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances", 1979: nothing cancels.

    Raises:
        ValueError: No pixel.
    """
    count, mean, squares = 0, 0.0, 0.0
    least, most = np.inf, -np.inf
    for band in bands:
        values = band.astype(np.float64)
        own = float(values.mean())
        apart, total = own - mean, count + values.size
        squares += float(((values - own) ** 2).sum()) + apart**2 * count * values.size / total
        mean, count = mean + apart * values.size / total, total
        least, most = min(least, float(band.min())), max(most, float(band.max()))
    if count == 0:
        raise ValueError("a map without pixels has no mean")
    if least == most:  # rounding may put the mean beside the constant
        return least, 0.0
    return mean, math.sqrt(squares / (count - 1))
