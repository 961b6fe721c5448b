"""Detectors from outside the package: other distributions name them in their entry points.

Names cost nothing to list; what stands behind one is imported when it is first asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

Row = TypeVar("Row")
FILTERS, MODELS = "ismallnet.filters", "ismallnet.models"
"""Groups of entry points."""


class PluginError(ValueError):
    """An entry point that does not give what it stands for; the text names it and its distribution."""


def find_plugins(group: str, taken: Collection[str]) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, without importing any.

    Args:
        group: `FILTERS` or `MODELS`.
        taken: Names that the package itself has.

    Raises:
        ValueError: A name that is taken, that two distributions give, or that is in both groups.
    """
    found: dict[str, EntryPoint] = {}
    for point in _points(group):
        if point.name in taken:
            raise ValueError(f"{describe(point)} has a name that ismallnet itself has; rename or remove it")
        if point.name in found and point.value != found[point.name].value:  # a path may be listed twice
            raise ValueError(f"{describe(found[point.name])} and {describe(point)} clash; remove one of them")
        found[point.name] = point
    for point in _points(MODELS if group == FILTERS else FILTERS):
        if point.name in found:
            raise ValueError(f"{describe(found[point.name])} and {describe(point)} clash; remove one of them")
    return found


def load_plugin(point: EntryPoint, row: type[Row]) -> Row:
    """Import what an entry point stands for: a row of the table it extends.

    Raises:
        PluginError: It cannot be imported, or is something else.
    """
    try:
        loaded = point.load()
    except Exception as error:  # whatever it is, it is theirs
        raise PluginError(f"{describe(point)} cannot be imported: {error!r}") from error
    if not isinstance(loaded, row):
        wanted = f"{row.__module__}.{row.__qualname__}"
        raise PluginError(f"{describe(point)} is {type(loaded).__name__}; it has to be an {wanted}")
    return loaded


def describe(point: EntryPoint) -> str:
    """Name an entry point, its group and its distribution."""
    origin = point.dist.name if point.dist is not None else "an unknown distribution"
    return f"{point.name!r} ({point.group}, {point.value}) of {origin}"


@functools.cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def forget() -> None:
    """Look for entry points again: after an installation, or another entry of `sys.path`."""
    _points.cache_clear()
