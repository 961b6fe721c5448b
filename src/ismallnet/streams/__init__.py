"""Frames one by one: the pages of a TIFF stack, the frames of a video, an image as a stream of one.

A source (`stack`, `video`) gives raw frames as often as it is asked; a `Stream` maps them to [0, 1] by one
window for all. Nothing holds more than a frame, however many there are. One that cannot be decoded becomes a
`Damage` in its place, and the stream goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from ismallnet.media import SUFFIXES, Image, ImageError, RangeWarning, finite, is_tiff, read_pages
from ismallnet.streams.source import Damage, Source, Still
from ismallnet.streams.stack import Stack
from ismallnet.streams.window import find_window

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv")
"""The files that are read as videos."""
ALL_SUFFIXES = (*SUFFIXES, *VIDEO_SUFFIXES)
"""The files that a folder or a glob is searched for; a file named outright may have any suffix."""
MANY = (".tif", ".tiff", *VIDEO_SUFFIXES)
"""The files that may hold several frames."""

__all__ = ["ALL_SUFFIXES", "MANY", "VIDEO_SUFFIXES", "Damage", "DamageWarning", "Stream", "frames"]


class DamageWarning(UserWarning):
    """A frame that could not be decoded and was passed over."""


class Stream:
    """The frames of a file, mapped to [0, 1] by one intensity range; may be gone through several times.

    Args:
        path: A video (`VIDEO_SUFFIXES`), or what `ismallnet.read_image` takes, with any number of pages.
        range: The intensities that become 0 and 1; by default as `ismallnet.media` says.

    Attributes:
        path: As given.
        count: How many frames the file announces; None where it does not say.
        rate: Frames per second of a video, None for everything else.

    Raises:
        OSError: The file cannot be opened.
        ImageError: It is empty, truncated, or no image.
    """

    def __init__(self, path: str | Path, *, range: tuple[float, float] | None = None) -> None:
        self.path, self._given = Path(path), range
        self._source = _source(self.path)
        self.count, self.rate = self._source.count, self._source.rate

    def __iter__(self) -> Iterator[Image | Damage]:
        """Give the frames in their order.

        Raises:
            ImageError: Not one frame can be decoded.
            ValueError: The range is not two finite numbers, the lower first.
        """
        window, dtype = find_window(self._source, self._given, self.path)
        notes = "; ".join(filter(None, (window.warning, self._source.note)))
        window = window._replace(warning=notes)
        for frame, page in self._source.read():
            if isinstance(page, str):
                yield Damage(frame, page)
                continue
            try:
                if self._source.uniform and page.dtype != dtype:
                    raise ImageError(f"its pixels are {page.dtype}, those of the first frame {dtype}")
                image = window.image(finite(page), self.path, frame)
            except ImageError as error:
                yield Damage(frame, str(error))
                continue
            yield image


def frames(path: str | Path, *, range: tuple[float, float] | None = None) -> Iterator[Image]:
    """Read the pages of a stack or the frames of a video one by one, with one intensity range for all.

    Args:
        path: As in `Stream`.
        range: As in `Stream`.

    Yields:
        At least one image, whose `frame` is its number in the file; only one is held at a time.

    Raises:
        OSError: The file cannot be opened.
        ImageError: It is empty, no image, or of its frames none can be decoded.
        ValueError: The range is not two finite numbers, the lower first.

    Warns:
        RangeWarning: Once, if the range is narrow.
        DamageWarning: For every frame that cannot be decoded and is passed over.
    """
    return _with_warnings(Stream(path, range=range))


def _with_warnings(stream: Stream) -> Iterator[Image]:
    doubtful = False
    for item in stream:
        if isinstance(item, Damage):
            warnings.warn(f"{stream.path}: frame {item.frame}: {item.reason}", DamageWarning, stacklevel=2)
            continue
        if item.warning and not doubtful:
            doubtful = True
            warnings.warn(f"{stream.path}: {item.warning}", RangeWarning, stacklevel=2)
        yield item


def _source(path: Path) -> Source:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        from ismallnet.streams.video import open_video

        return open_video(path)
    with path.open("rb") as file:
        tiff = is_tiff(file.read(4))
    if tiff and len((stack := Stack(path)).starts) > 1:
        return stack
    return Still(read_pages(path)[0])
