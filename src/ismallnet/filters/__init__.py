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

from ismallnet import plugins
from ismallnet.filters.background import max_median, top_hat
from ismallnet.filters.contrast import lcm, tllcm
from ismallnet.filters.patch_image import ipi
from ismallnet.filters.patch_tensor import ript

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALIBRATION = Path(__file__).parent / "calibration.json"
"""By name of a filter, what ``ismallnet calibrate`` chose for its default parameters, and on what."""


class NotCalibratedError(ValueError):
    """A filter without a k for its rule; the text has the command that chooses one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of ``FILTERS``."""

    function: Callable[..., NDArray[np.float64]]
    """From (H, W) grey levels, 0-255, and parameters, all with defaults, to a response of that size."""
    summary: str
    minimum: int = 1
    """Side, in pixels, to which a detector mirrors smaller images; of the default parameters."""
    k: float | None = None
    """Of the rule, mean + k standard deviations, of a filter from outside; ours are in `CALIBRATION`."""


FILTERS: dict[str, Entry] = {
    "top-hat": Entry(top_hat, "white top-hat, Rivest 1996"),
    "max-median": Entry(max_median, "max-median of four lines, Deshpande 1999"),
    "lcm": Entry(lcm, "local contrast measure, Chen 2013"),
    "tllcm": Entry(tllcm, "tri-layer local contrast measure, Han 2020", minimum=27),  # nine cells of 9 px
    "ipi": Entry(ipi, "infrared patch-image, Gao 2013", minimum=60),  # four patches of 50 px, 10 px apart
    "ript": Entry(ript, "reweighted infrared patch-tensor, Dai 2017", minimum=30),  # one patch
}


_TABLE = plugins.Table(plugins.FILTERS, "filter", Entry, FILTERS)


def list_filters() -> list[str]:
    """Return the names that ``create_filter`` takes: ours, then those of plugins, which are not imported.

    Raises:
        ValueError: Names of plugins clash.
    """
    return _TABLE.names()


def all_filters() -> dict[str, Entry]:
    """Return the rows of all filters, ours and those of plugins; a broken plugin is warned of and left out.

    Raises:
        ValueError: Names of plugins clash.
    """
    return _TABLE.rows()


def find_filter(name: str) -> Entry:
    """Return the row of a filter; a plugin is imported here.

    Raises:
        ValueError: No such name, or a plugin that is broken or whose name clashes.
    """
    return _TABLE.find(name)


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
        NotCalibratedError: The filter was not calibrated; the text has the command that does it.
        ValueError: No such name.
    """
    entry = find_filter(name)
    if entry.k is not None:
        return entry.k
    if name not in _calibrations():
        raise NotCalibratedError(
            f"{name} is not calibrated; give k (--k), or choose one: ismallnet calibrate {name} --data NAME"
        )
    return float(_calibrations()[name]["value"])


def calibration_of(name: str) -> str:
    """Say where the bundled k of a filter comes from: criterion, lists and numbers of images.

    Raises:
        ValueError: As `bundled_k`.
    """
    k = bundled_k(name)
    if name not in _calibrations():
        return f"k = {k:g}, by its plugin"
    chosen = _calibrations()[name]
    lists = " + ".join(f"{part['name']} {part['split']} (n = {part['n']})" for part in chosen["data"])
    return f"k = {k:g}, by {chosen['criterion']} on {lists}"


@functools.cache
def _calibrations() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(CALIBRATION.read_text("utf-8"))
    return content
