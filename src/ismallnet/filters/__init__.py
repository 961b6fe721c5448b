"""Classical detectors: pure functions of a grey image, which nobody has to train.

Each maps grey levels, 0-255, to a response, brighter where a small bright target is likelier. A response has
no scale of its own, so the rule that decides on it takes its threshold from the image: mean + k standard
deviations. The table is explicit, as that of the networks.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ismallnet.filters.background import max_median, top_hat
from ismallnet.filters.contrast import lcm, tllcm
from ismallnet.filters.patch_image import ipi
from ismallnet.filters.patch_tensor import ript

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALIBRATION = Path(__file__).parent / "calibration.json"
"""By name of a filter, what ``ismallnet calibrate`` chose for its default parameters, and on what."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of ``FILTERS``."""

    function: Callable[..., NDArray[np.float64]]
    """From (H, W) grey levels, 0-255, and parameters, all with defaults, to a response of that size."""
    summary: str
    minimum: int = 1
    """Side, in pixels, to which a detector mirrors smaller images; of the default parameters."""


FILTERS: dict[str, Entry] = {
    "top-hat": Entry(top_hat, "white top-hat, Rivest 1996"),
    "max-median": Entry(max_median, "max-median of four lines, Deshpande 1999"),
    "lcm": Entry(lcm, "local contrast measure, Chen 2013"),
    "tllcm": Entry(tllcm, "tri-layer local contrast measure, Han 2020", minimum=27),  # nine cells of 9 px
    "ipi": Entry(ipi, "infrared patch-image, Gao 2013", minimum=60),  # four patches of 50 px, 10 px apart
    "ript": Entry(ript, "reweighted infrared patch-tensor, Dai 2017", minimum=30),  # one patch
}


def list_filters() -> list[str]:
    """Return the names that ``create_filter`` takes."""
    return list(FILTERS)


def find_filter(name: str) -> Entry:
    """Return the row of a filter.

    Raises:
        ValueError: No such name.
    """
    if name not in FILTERS:
        raise ValueError(f"unknown filter {name!r}; choose from {', '.join(FILTERS)}")
    return FILTERS[name]


def create_filter(name: str, **parameters: Any) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Make a filter a function of an image in [0, 1], as a `Detector` takes it.

    Args:
        name: One of ``list_filters()``.
        **parameters: Of the filter's function, on top of its defaults.

    Returns:
        From (H, W) float32 in [0, 1], which is multiplied by 255, to the response, (H, W) float32. An 8-bit
        image has its own grey levels again, exactly.

    Raises:
        ValueError: No such name, or the filter has no such parameter.
    """
    function = find_filter(name).function
    _, *known = inspect.signature(function).parameters
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(f"{name} has no parameter {parameter!r}; choose from {', '.join(known)}")

    def respond(image: NDArray[np.float32]) -> NDArray[np.float32]:
        levels = (image * np.float32(255)).astype(np.float64)
        return function(levels, **parameters).astype(np.float32)

    return respond


def bundled_k(name: str) -> float:
    """Return the k of a filter's rule, mean + k standard deviations, that was chosen on train lists.

    Raises:
        ValueError: No such name, or the filter was not calibrated; the text has the command that does it.
    """
    find_filter(name)
    if name not in _calibrations():
        raise ValueError(
            f"{name} is not calibrated; give k (--k), or choose one: ismallnet calibrate {name} --data NAME"
        )
    return float(_calibrations()[name]["value"])


@functools.cache
def _calibrations() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(CALIBRATION.read_text("utf-8"))
    return content
