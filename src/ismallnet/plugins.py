"""Detectors from outside the package: other distributions add rows to our tables by their entry points.

Names cost nothing to list; what stands behind one is imported when it is first asked for.
"""

from __future__ import annotations

import difflib
import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

Row = TypeVar("Row")
FILTERS, MODELS = "ismallnet.filters", "ismallnet.models"
"""Groups of entry points."""


class PluginError(ValueError):
    """A detector from outside that is broken or not installed; the text names it and its distribution."""


@dataclass(frozen=True, slots=True)
class Table(Generic[Row]):
    """A table of ours, and what entry points add to it.

    In every method names that clash are a ValueError with both: a plugin's of either group with one of this
    table, those of two distributions, or those of a filter and a network from outside. A plugin's filter with
    the name of a network of ours is an error in the table of networks only, and the other way round: neither
    table knows the other, so that filters do without PyTorch. `ismallnet.load` asks both for such a name.
    """

    group: str
    """`FILTERS` or `MODELS`."""
    kind: str
    """What an error calls a row."""
    row: type[Row]
    """What an entry point has to give."""
    ours: Mapping[str, Row]

    def names(self) -> list[str]:
        """Return all names, ours first; no plugin is imported."""
        return [*self.ours, *self._points()]

    def rows(self) -> dict[str, Row]:
        """Return all rows by name; a broken plugin is warned of and left out."""
        rows = dict(self.ours)
        for name, point in self._points().items():
            try:
                rows[name] = self._load(point)
            except PluginError as error:
                warnings.warn(f"left out: {error}", stacklevel=3)
        return rows

    def find(self, name: str) -> Row:
        """Return the row of a name; a plugin is imported here.

        Raises:
            PluginError: A plugin that cannot be imported, or that gives something else than a row.
            ValueError: No such name; the nearest is given.
        """
        points = self._points()
        if name in self.ours:
            return self.ours[name]
        if name in points:
            return self._load(points[name])
        known = [*self.ours, *points]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {self.kind} {name!r}; {hint}choose from {', '.join(known)}")

    def distribution(self, name: str) -> str | None:
        """Return the name of the distribution that a plugin is of; None for one of ours."""
        point = self._points().get(name)
        return None if point is None else _origin(point)

    def _points(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in _entry_points(self.group):
            if point.name in found and point.value != found[point.name].value:  # a path may be listed twice
                raise ValueError(f"{_describe(found[point.name])} and {_describe(point)} clash; remove one")
            found[point.name] = point
        others = _entry_points(MODELS if self.group == FILTERS else FILTERS)
        for point in (*found.values(), *others):
            if point.name in self.ours:
                raise ValueError(f"{_describe(point)} has a name that ismallnet itself has; rename it")
        for point in others:
            if point.name in found:
                raise ValueError(f"{_describe(found[point.name])} and {_describe(point)} clash; remove one")
        return found

    def _load(self, point: EntryPoint) -> Row:
        try:
            loaded = point.load()
        except Exception as error:  # whatever it is, it is theirs
            raise PluginError(f"{_describe(point)} cannot be imported: {error!r}") from error
        if not isinstance(loaded, self.row):
            wanted = f"{self.row.__module__}.{self.row.__qualname__}"
            raise PluginError(f"{_describe(point)} is {type(loaded).__name__}; it has to be an {wanted}")
        return loaded


def _describe(point: EntryPoint) -> str:
    """Name an entry point, its group and its distribution."""
    return f"{point.name!r} ({point.group}, {point.value}) of {_origin(point)}"


def _origin(point: EntryPoint) -> str:
    return "an unknown distribution" if point.dist is None else point.dist.name


@functools.cache
def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def forget() -> None:
    """Look for entry points again: after an installation, or another entry of `sys.path`."""
    _entry_points.cache_clear()
