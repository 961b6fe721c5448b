"""Table 1 of the iSmallNet paper, digit by digit, and which of its cells contradict themselves."""

from __future__ import annotations

import csv
import functools
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("published.csv")
BOUND = "no mask has more IoU than precision or recall: a true positive is in the union of both"


class Published(NamedTuple):
    """A row of the paper's Table 1 on one data set; rates in per cent, with the digits that were printed."""

    method: str
    group: str
    reference: str
    """Where the paper says the method is from."""
    detector: str
    """What this project calls it."""
    data: str
    miou: str
    precision: str
    recall: str
    f1: str
    source: str

    @property
    def feasible(self) -> bool:
        """Whether mIoU is at most precision and recall, as for all masks, their means and their sums."""
        return Decimal(self.miou) <= min(Decimal(self.precision), Decimal(self.recall))


@functools.cache
def published() -> tuple[Published, ...]:
    """Return the rows of the paper's table in its order, NUAA-SIRST before NUDT-SIRST."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(Published(**row) for row in csv.DictReader(file))


def find_published(detector: str, data: str) -> Published | None:
    """Return what the paper printed for a detector on a data set; None where it has no such row."""
    return next((row for row in published() if (row.detector, row.data) == (detector, data)), None)
