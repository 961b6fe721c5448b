"""The values at given ranks of the pixels of an image or a stream, without holding the pixels: exactly.

Integers of 8 and 16 bits are counted in one pass. Others are ordered by their bits as floats, 16 bits a pass
(a radix select): float32 takes three passes in all, other types five.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[Any]

_LEAST, _MOST = -(2**15), 2**16 - 1
"""What 8-bit and 16-bit integers span, signed or not: one table counts them all."""


def order_statistics(
    parts: Callable[[], Iterator[Pixels]], ranks: Callable[[int], Sequence[int]]
) -> tuple[list[float], np.dtype[Any]]:
    """Find the values at some ranks of all values in their order, and the type that holds all values.

    Args:
        parts: Gives the values in parts of any shape and type, all finite, at least one; anew at every call.
        ranks: From the number of all values to places in their order, from 0.
    """
    counts = np.zeros(_MOST - _LEAST + 1, np.int64)
    types, size = set[np.dtype[Any]](), 0
    for part in parts():
        types.add(part.dtype)
        size += part.size
        if _is_small(part.dtype):
            counts += np.bincount(part.ravel().astype(np.intp) - _LEAST, minlength=len(counts))
    dtype, wanted = np.result_type(*types), ranks(size)
    if all(_is_small(one) for one in types):
        below = np.cumsum(counts)
        return [float(np.searchsorted(below, rank, "right") + _LEAST) for rank in wanted], dtype
    return _select(parts, wanted, dtype), dtype


def _is_small(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" and dtype.itemsize <= 2


def _select(parts: Callable[[], Iterator[Pixels]], ranks: Sequence[int], dtype: np.dtype[Any]) -> list[float]:
    """Find the values at the ranks of the sorted values, 16 bits of their binary order a pass."""
    kind = np.dtype(np.float32 if dtype == np.float32 else np.float64)
    bits = 8 * kind.itemsize
    prefixes, left = [0] * len(ranks), list(ranks)
    for shift in range(bits - 16, -1, -16):
        counts = {prefix: np.zeros(2**16, np.int64) for prefix in prefixes}
        for part in parts():
            keys = _keys(part.astype(kind))
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
