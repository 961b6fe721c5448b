"""One intensity range for all frames of a stream, in constant memory: that of the frames side by side.

Where the range is given, or the frames of a video are 8-bit, no pass is needed: what is doubtful about the
range is then judged by the first frame. Otherwise the order statistics are those of all frames, in as many
passes as `ismallnet.quantiles` says, and the percentile rule measures their noise in one pass more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ismallnet.media import (
    ImageError,
    Levels,
    Window,
    choose_window,
    finite,
    laplacian,
    noise,
    quantile_ranks,
)
from ismallnet.quantiles import order_statistics

if TYPE_CHECKING:
    from ismallnet.media import Pixels
    from ismallnet.streams.source import Source


def find_window(
    source: Source, given: tuple[float, float] | None, path: Path
) -> tuple[Window, np.dtype[Any]]:
    """Choose the intensity range of all frames that can be read.

    Returns:
        The range, and the type that holds the pixels of all frames it was judged by.

    Raises:
        ImageError: None can be read.
        ValueError: The given range is not two finite numbers, the lower first.
    """
    reasons: list[str] = []

    def pages() -> Iterator[Pixels]:
        for _, page in source.read():
            try:
                if isinstance(page, str):
                    raise ImageError(page)
                yield finite(page)
            except ImageError as error:
                reasons[:] = reasons or [str(error)]

    one = next(pages(), None)
    if one is None:
        what = "" if source.count == 1 else "none of its frames can be decoded: "
        raise ImageError(f"{path}: {what}{reasons[0] if reasons else 'it holds no frame'}")
    no_pass = given is not None or (source.uniform and one.dtype == np.uint8)

    def judged() -> Iterator[Pixels]:
        return iter((one,)) if no_pass else pages()

    values, dtype = order_statistics(judged, quantile_ranks)
    levels = Levels(*values)
    return choose_window(levels, dtype, given, lambda: noise(laplacian(p, levels) for p in judged())), dtype
