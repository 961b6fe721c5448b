"""One intensity range for all frames of a stream, in constant memory: that of the frames side by side.

Where the range is given, or the frames of a video are 8-bit, no pass is needed: what is doubtful about the
range is then judged by the first frame. Otherwise the order statistics are counted over all frames: 8-bit and
16-bit integers in one pass, float32 in three, other types in five, 16 bits of their order a pass. The
percentile rule measures their noise in one pass more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ismallnet.media import ImageError, Levels, Window, choose_window, finite, quantile_ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.media import Pixels
    from ismallnet.streams.source import Source

_LEAST, _MOST = -(2**15), 2**16 - 1
"""What 8-bit and 16-bit integers span, signed or not: one table counts them all."""


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
    judged = (lambda: iter((one,))) if no_pass else pages
    levels, dtype = find_levels(judged)
    return choose_window(levels, dtype, given, judged), dtype


def find_levels(pages: Callable[[], Iterator[Pixels]]) -> tuple[Levels, np.dtype[Any]]:
    """Find the order statistics of finite pages, and the type that holds the pixels of them all.

    Args:
        pages: Gives the pages, at least one, anew at every call.
    """
    counts = np.zeros(_MOST - _LEAST + 1, np.int64)
    types, size = set[np.dtype[Any]](), 0
    for page in pages():
        types.add(page.dtype)
        size += page.size
        if _is_small(page.dtype):
            counts += np.bincount(page.ravel().astype(np.intp) - _LEAST, minlength=len(counts))
    dtype, ranks = np.result_type(*types), quantile_ranks(size)
    if all(_is_small(one) for one in types):
        below = np.cumsum(counts)
        return Levels(*(float(np.searchsorted(below, rank, "right") + _LEAST) for rank in ranks)), dtype
    return Levels(*(_select(pages, ranks, dtype))), dtype


def _is_small(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" and dtype.itemsize <= 2


def _select(
    pages: Callable[[], Iterator[Pixels]], ranks: tuple[int, ...], dtype: np.dtype[Any]
) -> list[float]:
    """Find the values at the ranks of the sorted pixels, 16 bits of their binary order a pass."""
    kind = np.dtype(np.float32 if dtype == np.float32 else np.float64)
    bits = 8 * kind.itemsize
    prefixes, left = [0] * len(ranks), list(ranks)
    for shift in range(bits - 16, -1, -16):
        counts = {prefix: np.zeros(2**16, np.int64) for prefix in prefixes}
        for page in pages():
            keys = _keys(page.astype(kind))
            for prefix, count in counts.items():
                ours = keys if shift == bits - 16 else keys[keys >> (shift + 16) == prefix]
                count += np.bincount(((ours >> shift) & 0xFFFF).astype(np.intp), minlength=2**16)
        for n, (prefix, rank) in enumerate(zip(prefixes, left, strict=True)):
            below = np.cumsum(counts[prefix])
            digit = int(np.searchsorted(below, rank, "right"))
            left[n] = rank - int(below[digit] - counts[prefix][digit])
            prefixes[n] = prefix << 16 | digit
    return [_value(key, kind) for key in prefixes]


def _keys(values: NDArray[np.floating[Any]]) -> NDArray[np.unsignedinteger[Any]]:
    """Map floats to unsigned integers of the same order: negative ones inverted, the others above them."""
    unsigned: NDArray[np.unsignedinteger[Any]] = values.ravel().view(f"u{values.itemsize}")
    top = unsigned.dtype.type(1 << (8 * values.itemsize - 1))
    return np.where(unsigned & top, ~unsigned, unsigned | top)


def _value(key: int, kind: np.dtype[Any]) -> float:
    """Invert `_keys` for one value."""
    top, full = 1 << (8 * kind.itemsize - 1), (1 << 8 * kind.itemsize) - 1
    plain = key ^ top if key & top else ~key & full
    return float(np.array(plain, f"u{kind.itemsize}").view(kind))
