"""Bins of targets by size, shape and contrast: where a detector fails, not only how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Stratum:
    """One property of targets and its bins; a value on an edge belongs to the upper bin."""

    name: str
    """Field of `TargetCounts` that is binned."""
    title: str
    edges: tuple[float, ...]
    """Inner edges, ascending: n edges make n + 1 bins."""
    labels: tuple[str, ...]

    def bins(self, values: NDArray[np.float64]) -> NDArray[np.intp]:
        """(K,) index of the bin of each value; -1 for nan (a contrast that is not defined)."""
        return np.where(np.isnan(values), -1, np.searchsorted(self.edges, values, side="right"))


STRATA = (
    Stratum("area", "target size (px)", (10, 26, 65), ("<=9", "10-25", "26-64", ">64")),
    Stratum("eccentricity", "eccentricity", (0.5, 0.75, 0.9), ("<0.5", "0.5-0.75", "0.75-0.9", ">=0.9")),
    Stratum("scr", "signal-to-clutter ratio", (1, 3, 6), ("<1", "1-3", "3-6", ">6")),
)
"""Sizes and contrasts as in the field's benchmarks; the eccentricity of a 2:1 ellipse is 0.87."""
