"""The values at given positions of an image's pixels in their order, without holding the pixels: exactly.

Values of up to 16 bits are counted one by one. Those of 32 bits are counted by their upper 16 bits; a second
pass counts, by their lower 16 bits, those among which the positions lie: a radix select.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[Any]


def order_statistics(parts: Callable[[], Iterator[Pixels]], order: Sequence[int]) -> list[float]:
    """Return the values at some positions of all values in their order, exactly.

    Args:
        parts: Gives the values, in parts, as often as it is called: once, and for 32-bit types once more. All
            are finite and of one type, an integer of at most 32 bits or float32.
        order: Positions from 0.
    """
    first = next(parts())
    shift = 16 if first.dtype.itemsize == 4 else 0
    counts = np.zeros(2**16, np.int64)
    for part in parts():
        counts += np.bincount((_keys(part) >> shift).ravel(), minlength=2**16)
    above = np.cumsum(counts)
    upper = np.searchsorted(above, order, side="right")
    if not shift:
        return [_value(int(key), first.dtype) for key in upper]
    fine = {int(key): np.zeros(2**16, np.int64) for key in upper}
    for part in parts():
        keys = _keys(part).ravel()
        for key, own in fine.items():
            own += np.bincount(keys[keys >> 16 == key] & 0xFFFF, minlength=2**16)
    values = []
    for key, position in zip(upper.tolist(), order, strict=True):
        lower = np.searchsorted(np.cumsum(fine[key]), position - (above[key] - counts[key]), side="right")
        values.append(_value(key << 16 | int(lower), first.dtype))
    return values


def _keys(values: Pixels) -> Pixels:
    """Return unsigned integers in the order of the values, of 16 or of 32 bits."""
    dtype, bits = values.dtype, 8 * values.dtype.itemsize
    if dtype.kind == "u":
        return values
    plain = np.ascontiguousarray(values).view(f"u{dtype.itemsize}")
    sign = plain.dtype.type(1 << (bits - 1))
    return np.where(plain & sign, ~plain, plain | sign) if dtype.kind == "f" else plain ^ sign


def _value(key: int, dtype: np.dtype[Any]) -> float:
    """Return the value of a key: the inverse of `_keys`."""
    sign = 1 << (8 * dtype.itemsize - 1)
    if dtype.kind == "f":
        key = key ^ sign if key & sign else ~key & 0xFFFFFFFF
    elif dtype.kind == "i":
        key ^= sign
    return float(np.array(key, f"u{dtype.itemsize}").view(dtype))
