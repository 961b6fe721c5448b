"""What a stream reads from: raw frames at the file's own bit depth, as often as asked."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from ismallnet.media import Pixels


class Damage(NamedTuple):
    """A frame that cannot be decoded."""

    frame: int
    """Its number, from 0."""
    reason: str


class Source(Protocol):
    """A file of frames."""

    @property
    def count(self) -> int | None:
        """How many frames the file announces; None where it does not say."""

    @property
    def rate(self) -> Fraction | None:
        """Frames per second of a video; None for everything else."""

    @property
    def uniform(self) -> bool:
        """Whether all frames have the type of the first, so that it decides on the rule of the range."""

    @property
    def note(self) -> str:
        """What is doubtful about how the pixels were read; empty where nothing is."""

    def read(self) -> Iterator[tuple[int, Pixels | str]]:
        """Give the number of every frame and its grey pixels, (H, W), or why there are none."""


class Still:
    """An image of one page."""

    count, rate, uniform, note = 1, None, False, ""

    def __init__(self, page: Pixels) -> None:
        self._page = page

    def read(self) -> Iterator[tuple[int, Pixels | str]]:
        """Give the page."""
        yield 0, self._page
