"""IPI, the infrared patch-image: patches are the columns of a matrix, of low rank but for the targets."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ismallnet.filters.iterates import Iterates, Triplets
from ismallnet.filters.lowrank import Follower, LowRank, largest, to_unit
from ismallnet.filters.patches import Grid
from ismallnet.filters.windows import grey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from ismallnet.filters.lowrank import End

    Array = NDArray[np.float64]

LambdaRule = Literal["image", "patch", "min"]


def ipi(
    image: NDArray[np.generic],
    *,
    patch: int = 50,
    step: int = 10,
    lambda_rule: LambdaRule = "image",
    tolerance: float = 1e-6,
    iterations: int = 1000,
) -> Array:
    """Infrared patch-image: the positive part of what is sparse over the patches.

    After C. Gao et al., "Infrared patch-image model for small target detection in a single image", IEEE TIP
    2013, and the authors' released code; the solver and its arguments are those of `ipi_decompose`.

    The grey levels are scaled to [0, 1] by their own range, so that adding a constant to the image or scaling
    it by a positive factor changes nothing. Up to ``step - 1`` rows at the bottom and columns at the right
    belong to no patch and are 0.

    Returns:
        (H, W), at least 0, in units of the image's own range. 0 for a constant image.

    Raises:
        ValueError: As `ipi_decompose`.
    """
    split = ipi_decompose(
        image, patch=patch, step=step, lambda_rule=lambda_rule, tolerance=tolerance, iterations=iterations
    )
    return np.maximum(split.target, 0)


def ipi_decompose(
    image: NDArray[np.generic],
    *,
    patch: int = 50,
    step: int = 10,
    lambda_rule: LambdaRule = "image",
    tolerance: float = 1e-6,
    iterations: int = 1000,
) -> LowRank:
    """Take an image apart into background A and target E by the patch-image model.

    The columns of D are the patches, scaled to [0, 1] by the least and largest value. An accelerated proximal
    gradient method with continuation minimises ``mu (|A|_* + lambda |E|_1) + |D - A - E|² / 2`` (Lipschitz
    constant 2) while mu falls by 0.9 an iteration, from the second singular value of D to 0.005 times the
    fourth. It stops when

    - the gradient of the proximal step is below the tolerance (`tolerance`);
    - the rank of A has stayed the same for more than 10 iterations, and the support of E is less than 20
      entries from its size when the run began (`rank`);
    - the rank of A is above 0.3 times the smaller side of D (`truncation`);
    - the iterations are spent (`iterations`).

    A pixel is the median over the patches it belongs to.

    The released code is followed, in two things against what the method is known by: lambda is 1 over the
    root of the larger side of the *image*, not of the patch-image, and mu starts and ends as above, where
    the usual 0.99 times the largest singular value and 1e-9 of it are computed and then overwritten. Ours:
    where the patches differ by a factor only, D has no second singular value to start from and is background
    throughout; so is a constant image, which scaling makes 0.

    Args:
        image: (H, W) grey levels of any range.
        patch: Side of a patch in pixels.
        step: From one patch to the next, in pixels.
        lambda_rule: ``image``: lambda is 1 / sqrt(max(H, W)). With D of m × n, ``patch``: it is
            1 / sqrt(max(m, n)), held to be the paper's; ``min``: 1 / sqrt(min(m, n)), that of comparisons.
        tolerance: Of the gradient, relative to the size of A and E.
        iterations: At most so many.

    Returns:
        Target (of either sign) and background, in [0, 1] as D; both 0 where no patch lies.

    Raises:
        ValueError: An image that is not (H, W) of finite numbers or has fewer than 4 patches (the fourth
            singular value is needed), a step outside 1 to ``patch``, or an unknown rule.
    """
    pixels = grey(image)
    grid = Grid.of(pixels.shape, patch=patch, step=step, flush=False)
    if len(grid) < 4:
        raise ValueError(
            f"IPI needs 4 patches of {patch}×{patch} px, {step} px apart; an image of "
            f"{pixels.shape[0]}×{pixels.shape[1]} px has {len(grid)}; mirror it at its edges to "
            f"{patch + step}×{patch + step} px, or take a smaller patch"
        )
    pieces = grid.cut(pixels)
    data = to_unit(pieces.reshape(len(grid), -1))  # the transpose of D
    sides = {"image": max(pixels.shape), "patch": max(data.shape), "min": min(data.shape)}
    if lambda_rule not in sides:
        raise ValueError(f"unknown lambda rule {lambda_rule!r}; choose from {', '.join(sides)}")
    weight, rules = 1 / math.sqrt(sides[lambda_rule]), _Rules(tolerance, 0.3 * min(data.shape), iterations)
    tall = len(data) > data.shape[1]
    parts = _separate(np.ascontiguousarray(data.T) if tall else data, weight, rules)
    target, background = (
        grid.median((part.T if tall else part).reshape(pieces.shape))
        for part in (parts.target, parts.background)
    )
    return LowRank(target, background, parts.iterations, (parts.rank,), parts.support, parts.end)


class _Parts(NamedTuple):
    """A matrix taken apart, as `LowRank` is an image."""

    target: Array
    background: Array
    iterations: int
    rank: int
    support: int
    end: End


class _Rules:
    """When to stop.

    Args:
        tolerance: Of the gradient.
        truncation: Largest rank.
        iterations: Largest number of iterations.
    """

    def __init__(self, tolerance: float, truncation: float, iterations: int) -> None:
        self._tolerance, self._truncation, self._iterations = tolerance, truncation, iterations
        self._rank, self._support, self._run = -1, 0, 0

    def distance(self, square: float) -> float:
        """Return how far Z may move from H for the gradient to be below the tolerance.

        Args:
            square: ``|A|² + |E|²``.
        """
        return math.sqrt(2) * self._tolerance * max(1.0, math.sqrt(square))

    def end(self, count: int, rank: int, support: int, *, converged: bool) -> End | None:
        """Return why to stop after an iteration, or None."""
        if rank == self._rank:
            self._run += 1
        else:
            self._rank, self._support, self._run = rank, support, 0
        if converged:
            return "tolerance"
        if self._run > 10 and abs(support - self._support) < 20:
            return "rank"
        if rank > self._truncation:
            return "truncation"
        return "iterations" if count >= self._iterations else None


def _separate(data: Array, weight: float, rules: _Rules) -> _Parts:
    """Take a matrix apart into one of low rank and a sparse one.

    With Y_A and Y_E extrapolated from the last two A and E, the proximal step is

        ``A = SVT(H / 2, mu / 2)`` and ``E = soft(D - H / 2, lambda mu / 2)``, where ``H = D + Y_A - Y_E``,

    so that an iteration leaves only ``F = A - E`` to keep: the next H is ``D + F + momentum (F - F before)``.
    Both blocks of the gradient have the size of ``H - D - F``.

    As long as E = 0, every A has the singular vectors of D, and this function iterates on its few singular
    values alone. It leaves what comes after to `_go_on`.

    Args:
        data: D, (n, m), n ≤ m.
        weight: lambda.
        rules: When to stop.
    """
    gram = data @ data.T
    few = max(len(data) // 12, min(len(data), 24))
    squares, left = largest(gram, few)
    levels = np.sqrt(np.maximum(squares, 0))
    if levels[-2] <= 1e-7 * levels[-1]:  # nothing but the rounding error of the squares
        return _Parts(np.zeros_like(data), data, 0, int(levels[-1] > 0), 0, "constant")
    right = data.T @ (left / np.maximum(levels, 1e-8 * levels[-1]))

    def low_rank(values: Array) -> Triplets:
        kept = np.flatnonzero(values)
        return Triplets(left[:, kept], values[kept], right[:, kept])

    schedule = enumerate(_steps(levels[-2], 0.005 * levels[-4]), 1)
    before = low = np.zeros_like(levels)  # the singular values of the last two A
    peak, seen, scratch = 1.0, low, np.empty_like(data)  # the largest entry of D - A, and that A
    for count, (mu, momentum) in schedule:
        extrapolated = low + momentum * (low - before)
        new = np.maximum((extrapolated + levels - mu) / 2, 0)
        rank = int(np.count_nonzero(new))
        if rank == few:
            break
        change = np.abs(extrapolated - seen)  # no entry changes by more than the bound of Cauchy and Schwarz
        if peak + math.sqrt((left**2 @ change).max() * (right**2 @ change).max()) > weight * mu:
            rest = low_rank(extrapolated).matrix(out=scratch)
            np.subtract(data, rest, out=rest)  # 2 (D - H / 2)
            seen, peak = extrapolated, float(max(rest.max(), -rest.min()))
            if peak > weight * mu:
                break
        before, low = low, new
        converged = math.dist(extrapolated, low) <= rules.distance(float(low @ low))
        if end := rules.end(count, rank, 0, converged=converged):
            return _Parts(np.zeros_like(data), low_rank(low).matrix(), count, rank, 0, end)
    again = itertools.chain([(count, (mu, momentum))], schedule)
    leading = Follower(squares, left, tolerance=1e-8)
    return _go_on(data, weight, rules, Iterates(data, gram, low_rank(before), low_rank(low)), leading, again)


def _go_on(
    data: Array,
    weight: float,
    rules: _Rules,
    iterates: Iterates,
    leading: Follower,
    schedule: Iterable[tuple[int, tuple[float, float]]],
) -> _Parts:
    """Iterate with full matrices.

    Args:
        data: As `_separate`, like the next two.
        weight: lambda.
        rules: When to stop.
        iterates: The last two.
        leading: What decomposes.
        schedule: (count, (mu, momentum)) of the iterations, without end.
    """
    last, current = (low.matrix() for low in iterates.low)
    spare, rank = np.empty_like(data), iterates.low[1].values.size
    for count, (mu, momentum) in schedule:
        h, where, sparse = _extrapolate(data, current, last, momentum, weight * mu)
        singular, left = leading(iterates.gram(momentum, h), mu, expected=rank)
        low = Triplets(left, (singular - mu) / 2, h.T @ (left / singular))
        rank = len(singular)
        new = low.matrix(out=spare)
        new.ravel()[where] -= sparse
        square = float(low.values @ low.values + sparse @ sparse)
        converged = _are_close(h, data, new, rules.distance(square))
        last, current, spare = current, new, h
        if end := rules.end(count, rank, len(where), converged=converged):
            break
        iterates.add(low, singular, where, sparse)
    target = np.zeros_like(data)
    target.ravel()[where] = sparse
    assert end is not None
    return _Parts(target, current + target, count, rank, len(where), end)


def _extrapolate(
    data: Array, current: Array, last: Array, momentum: float, threshold: float
) -> tuple[Array, NDArray[np.intp], Array]:
    """Return H, in the place of the last, and the new E as flat indices and values.

    Rows are taken in blocks that stay in the cache.
    """
    indices, values = [np.empty(0, np.intp)], [np.empty(0)]
    rows = max(1, 40_000 // data.shape[1])
    scratch = np.empty((rows, data.shape[1]))
    for start in range(0, len(data), rows):
        block = slice(start, start + rows)
        h, now = last[block], current[block]
        twice = scratch[: len(h)]
        np.subtract(now, h, out=h)
        h *= momentum
        h += now
        np.subtract(data[block], h, out=twice)  # 2 (D - H / 2)
        h += data[block]
        if max(twice.max(), -twice.min()) > threshold:
            where = np.flatnonzero(np.abs(twice) > threshold)
            above = twice.ravel()[where]
            indices.append(where + start * data.shape[1])
            values.append((above - np.copysign(threshold, above)) / 2)
    return last, np.concatenate(indices), np.concatenate(values)


def _steps(mu: float, floor: float) -> Iterator[tuple[float, float]]:
    """Yield mu and the momentum of one iteration after the other."""
    before, now = 1.0, 1.0
    while True:
        yield mu, (before - 1) / now
        mu = max(0.9 * mu, floor)
        before, now = now, (1 + math.sqrt(1 + 4 * now * now)) / 2


def _are_close(h: Array, data: Array, difference: Array, distance: float) -> bool:
    """Whether Z = D + A - E is at most so far from H. A few rows are enough to say that it is not."""
    square = 0.0
    for start in range(0, len(h), 16):
        block = slice(start, start + 16)
        part = h[block] - data[block] - difference[block]
        square += float(np.vdot(part, part))
        if square > distance**2:
            return False
    return True
