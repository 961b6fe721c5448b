"""RIPT, the reweighted patch-tensor: patches are the slices of a tensor, of low rank along each side."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import cv2
import numpy as np

from ismallnet.filters.lowrank import LowRank, leading, to_unit
from ismallnet.filters.patches import Grid
from ismallnet.filters.windows import grey

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.filters.lowrank import End

    Array = NDArray[np.float64]
    Ranks = tuple[int, ...]

Stop = Literal["support", "tolerance"]


def ript(
    image: NDArray[np.generic],
    *,
    patch: int = 30,
    step: int = 10,
    sparsity: float = 0.7,
    prior: float = 1.0,
    epsilon: float = 0.01,
    growth: float = 1.5,
    stop: Stop = "support",
    tolerance: float = 1e-7,
    iterations: int = 100,
) -> Array:
    """Reweighted infrared patch-tensor: what is sparse and positive over the patches.

    After Y. Dai and Y. Wu, "Reweighted infrared patch-tensor model with both nonlocal and local priors for
    single-frame small target detection", IEEE JSTARS 2017, and the authors' released code; the solver and its
    arguments are those of `ript_decompose`.

    The response is neither that of the image plus a constant nor, scaled, that of the scaled image: the
    weights have a unit, and the mean level of the image is a part of its background.

    Returns:
        (H, W) grey levels, at least 0; 0 but for a few pixels, and 0 throughout where nothing becomes sparse.
        0 for a constant image.

    Raises:
        ValueError: As `ript_decompose`.
    """
    return ript_decompose(
        image,
        patch=patch,
        step=step,
        sparsity=sparsity,
        prior=prior,
        epsilon=epsilon,
        growth=growth,
        stop=stop,
        tolerance=tolerance,
        iterations=iterations,
    ).target


def ript_decompose(
    image: NDArray[np.generic],
    *,
    patch: int = 30,
    step: int = 10,
    sparsity: float = 0.7,
    prior: float = 1.0,
    epsilon: float = 0.01,
    growth: float = 1.5,
    stop: Stop = "support",
    tolerance: float = 1e-7,
    iterations: int = 100,
) -> LowRank:
    """Take an image apart into background B and target T by the reweighted patch-tensor model.

    The patches make a tensor F of patch × patch × P. ADMM with one background a side, i = 1 to 3:

        ``B_i = SVT(F + mu L_i - T, mu)``, of the unfolding i;
        ``T = max(mean_i(F + mu L_i - B_i) - W mu lambda / 3, 0)``;
        ``W = exp(prior · edge) / (T + epsilon)``; ``L_i = L_i - (B_i + T - F) / mu``; ``mu = mu / growth``,

    from mu = 5 std(F), T = L_i = 0 and W = exp(prior · edge); lambda = sparsity / sqrt(the least side of F).
    ``edge`` is the local prior: the difference of the eigenvalues of the structure tensor, large at edges,
    scaled to [0, 1] over the image (0 where it is the same everywhere). It stops when

    - ``|F - mean_i B_i - T| / |F|`` is below the tolerance (`tolerance`);
    - T has as many positive entries as an iteration before, perhaps none (`support`);
    - the iterations are spent (`iterations`).

    The second rule stops after 2 to 13 iterations, far from convergence, and is a part of the method: without
    it the response is another one. A pixel is the mean over the patches it belongs to.

    The values are those of the released code, which calls sparsity and prior a matter of tuning. Sparsity 1
    and prior 10, held to be the paper's, leave no target at all in half of the images tried. The paper allows
    a median in place of the mean. The released code holds two copies of the mean, one of which overwrites
    where it should add; the other is followed.

    Args:
        image: (H, W) grey levels, 0 to 255.
        patch: Side of a patch in pixels.
        step: From one patch to the next, in pixels. Patches that end with the last row and column are added
            where no other does.
        sparsity: L in the paper.
        prior: h in the paper; 0 switches the local prior off.
        epsilon: Of the weights, in grey levels.
        growth: rho, by which the penalty 1 / mu grows in an iteration.
        stop: ``support``: the three rules above; ``tolerance``: without the second.
        tolerance: Of the residual, relative to F.
        iterations: At most so many; ours, and five times what was ever needed.

    Returns:
        Target (at least 0) and background (the mean of the three), in grey levels.

    Raises:
        ValueError: An image that is not (H, W) of finite numbers or is smaller than a patch, a step outside 1
            to ``patch``, or an unknown stopping rule.
    """
    pixels = grey(image)
    if stop not in ("support", "tolerance"):
        raise ValueError(f"unknown stopping rule {stop!r}; choose from support, tolerance")
    grid = Grid.of(pixels.shape, patch=patch, step=step, flush=True)
    if not len(grid):
        raise ValueError(
            f"RIPT takes an image of at least {patch}×{patch} px, one patch; got "
            f"{pixels.shape[0]}×{pixels.shape[1]} px; mirror it at its edges, or take a smaller patch"
        )
    if pixels.min() == pixels.max():
        return LowRank(np.zeros_like(pixels), pixels, 0, (0, 0, 0), 0, "constant")
    strength = np.exp(prior * to_unit(_edges(pixels)))
    parts = _separate(
        *(np.ascontiguousarray(np.moveaxis(grid.cut(each), 0, 2)) for each in (pixels, strength)),
        sparsity=sparsity,
        epsilon=epsilon,
        growth=growth,
        tolerance=tolerance,
        by_support=stop == "support",
        iterations=iterations,
    )
    target, background = (grid.mean(np.moveaxis(part, 2, 0)) for part in parts[:2])
    return parts._replace(target=target, background=background)


def _edges(image: Array) -> Array:
    """Return the difference of the eigenvalues of the structure tensor, (H, W), at least 0.

    The image is smoothed by a 3×3 Gaussian of standard deviation 1.2 px, the products of its gradient
    (central differences) by one of 2 px; pixels beyond the frame are mirrored, the edge repeated.
    """

    def smooth(values: Array, sigma: float) -> Array:
        blurred = cv2.GaussianBlur(values, (3, 3), sigma, borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred, np.float64)

    smoothed = smooth(image, 1.2)
    dy, dx = (np.asarray(np.gradient(smoothed, axis=axis)) for axis in (0, 1))
    xx, xy, yy = (smooth(product, 2) for product in (dx * dx, dx * dy, dy * dy))
    return np.hypot(xx - yy, 2 * xy)


class _Entries(NamedTuple):
    """A tensor that is 0 but for a few entries: their flat indices, and their values."""

    where: NDArray[np.intp]
    values: Array

    def add_to(self, tensor: Array, factor: float) -> None:
        """Add so many times this one to a contiguous tensor."""
        tensor.ravel()[self.where] += factor * self.values


def _separate(
    tensor: Array,
    strength: Array,
    *,
    sparsity: float,
    epsilon: float,
    growth: float,
    tolerance: float,
    by_support: bool,
    iterations: int,
) -> LowRank:
    """Take a tensor apart, as `ript_decompose` says; the parts are tensors.

    With X_i = F + mu L_i - T and R_i = (X_i - B_i) / growth, a part of what SVT takes away, an iteration is

        ``T_new = max(T + growth mean_i R_i - W mu lambda / 3, 0)``;
        ``X_i = F + R_i + T / growth - (1 + 1 / growth) T_new``.

    T is kept by its few entries; elsewhere, W changes after the first iteration only. So little is left to do
    for all entries.

    Args:
        tensor: F, (p, p, P).
        strength: exp(prior · edge), likewise.
        sparsity: As in `ript_decompose`, like what follows.
        epsilon: See there.
        growth: See there.
        tolerance: See there.
        by_support: Whether the second rule stops it.
        iterations: See there.
    """
    smallest = tolerance * float(np.linalg.norm(tensor))
    share, mu = sparsity / math.sqrt(min(tensor.shape)), 5 * float(tensor.std(ddof=1))
    inputs, rests = [tensor] * 3, [np.empty_like(tensor) for _ in range(3)]
    total, before, scratch = (np.zeros_like(tensor) for _ in range(3))  # sums of R_i: this one, the last
    target, added = _Entries(np.empty(0, np.intp), np.empty(0)), list[tuple[_Entries, float]]()
    rank: Ranks = tensor.shape
    end: End | None = None
    for count in itertools.count(1):
        rank = _rests(inputs, rests, mu, rank, share=1 / growth)
        np.add(rests[0], rests[1], out=total)
        total += rests[2]

        weight = mu * share / growth
        np.multiply(strength, weight if count == 1 else weight / epsilon, out=scratch)
        scratch.ravel()[target.where] *= epsilon / (target.values + epsilon)
        target.add_to(scratch, -3 / growth)
        np.subtract(total, scratch, out=scratch)
        where = np.flatnonzero(scratch > 0)
        new = _Entries(where, growth / 3 * scratch.ravel()[where])

        residual = np.multiply(total, growth, out=scratch)  # 3 (F - mean_i B_i - T_new)
        residual -= before
        for entries, factor in (*added, (new, 1)):
            entries.add_to(residual, -3 * factor)
        if np.linalg.norm(residual) < 3 * smallest:
            end = "tolerance"
        elif by_support and count > 1 and len(new.where) == len(target.where):
            end = "support"
        elif count >= iterations:
            end = "iterations"
        if end:
            break

        added = [(target, 1 / growth), (new, -1 - 1 / growth)]
        for rest in rests:
            rest += tensor
            for entries, factor in added:
                entries.add_to(rest, factor)
        inputs, rests = rests, [np.empty_like(tensor) for _ in range(3)] if count == 1 else inputs
        total, before, target = before, total, new
        mu /= growth
    assert end is not None
    residual /= -3
    residual += tensor
    new.add_to(residual, -1)
    sparse = np.zeros_like(tensor)
    new.add_to(sparse, 1)
    return LowRank(sparse, residual, count, rank, len(new.where), end)


def _rests(inputs: list[Array], outs: list[Array], threshold: float, before: Ranks, *, share: float) -> Ranks:
    """Write a share of X - SVT(X) for the unfolding i of input i, and return the ranks of the three SVT(X).

    Args:
        inputs: Three of (p, p, P), contiguous.
        outs: As the inputs.
        threshold: Of the singular values.
        before: The ranks an iteration ago; they about double.
        share: What is written is multiplied by it.
    """
    (first, second, third), (first_out, second_out, third_out) = inputs, outs
    sides = [
        (first.reshape(len(first), -1), first_out.reshape(len(first), -1)),
        (second, second_out),
        (third.reshape(-1, third.shape[2]), third_out.reshape(-1, third.shape[2])),
    ]
    if sides[2][0].shape[0] > sides[2][0].shape[1]:
        sides[2] = (sides[2][0].T, sides[2][1].T)
    return tuple(
        _rest(*side, threshold, expected=2 * rank, share=share)
        for side, rank in zip(sides, before, strict=True)
    )


def _rest(matrix: Array, out: Array, threshold: float, *, expected: int, share: float) -> int:
    """Write a share of X - SVT(X) and return the rank of SVT(X).

    Args:
        matrix: X, (n, m), n ≤ m; or (s, n, m), s matrices that are X when put side by side.
        out: As the matrix.
        threshold: Of the singular values.
        expected: Rank, a guess.
        share: What is written is multiplied by it.
    """
    gram = np.matmul(matrix, np.swapaxes(matrix, -1, -2))
    gram = gram.sum(0) if gram.ndim == 3 else gram
    singular, left = leading(gram, threshold, expected=expected)
    shrink = 1 - threshold / singular
    if 2 * len(singular) < len(gram):
        np.matmul(left * shrink, left.T @ matrix, out=out)
        np.subtract(matrix, out, out=out)
        out *= share
    else:
        half = left * np.sqrt(shrink)
        np.matmul(share * (np.eye(len(gram)) - half @ half.T), matrix, out=out)
    return len(singular)
