"""Pixel counts and the ratios made of them; the ratios take arrays, so that a bootstrap is one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class PixelCount(NamedTuple):
    """True positive, false positive and false negative pixels of one image."""

    tp: int
    fp: int
    fn: int


def check_masks(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
    """Refuse masks that are not two boolean arrays of one (H, W) shape.

    Raises:
        TypeError: not boolean (a 0/1 or 0/255 array would be miscounted in silence).
        ValueError: not two-dimensional, or the shapes differ.
    """
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != np.bool_:
            raise TypeError(f"{name} has dtype {mask.dtype}; pass a boolean mask, e.g. `array > 127`")
    if prediction.ndim != 2 or prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {prediction.shape} and truth {truth.shape} must be two (H, W) masks of one size; "
            "resize the truth with nearest neighbour to the image first"
        )


def count_pixels(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> PixelCount:
    """Compare two (H, W) masks pixel by pixel.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: the shapes differ.
    """
    check_masks(prediction, truth)
    positive, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    both = int(np.count_nonzero(prediction & truth)) if positive and true else 0
    return PixelCount(both, positive - both, true - both)


def ratio(numerator: ArrayLike, denominator: ArrayLike, *, empty: float = np.nan) -> NDArray[np.float64]:
    """Element-wise quotient, ``empty`` where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    quotient: NDArray[np.float64] = np.divide(
        top, bottom, out=np.full(bottom.shape, empty, float), where=bottom != 0
    )
    return quotient


def iou(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike, *, empty: float = np.nan) -> NDArray[np.float64]:
    """Intersection over union TP / (TP + FP + FN); ``empty`` where nothing is predicted or true."""
    return ratio(tp, np.asarray(tp) + np.asarray(fp) + np.asarray(fn), empty=empty)


def precision(tp: ArrayLike, fp: ArrayLike, *, empty: float = np.nan) -> NDArray[np.float64]:
    """TP / (TP + FP); ``empty`` where nothing is predicted."""
    return ratio(tp, np.asarray(tp) + np.asarray(fp), empty=empty)


def recall(tp: ArrayLike, fn: ArrayLike, *, empty: float = np.nan) -> NDArray[np.float64]:
    """TP / (TP + FN); ``empty`` where nothing is true."""
    return ratio(tp, np.asarray(tp) + np.asarray(fn), empty=empty)


def harmonic_mean(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """2ab / (a + b): F1 from a precision and a recall; nan where both are 0 or one is nan."""
    first, second = np.asarray(a, float), np.asarray(b, float)
    return ratio(2 * first * second, first + second)
