"""IPI and RIPT step by step as they are written down, with full singular value decompositions: what the fast
ones have to equal, and what they are timed against. Only cutting and joining patches is the library's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ismallnet.filters.lowrank import End, LowRank
from ismallnet.filters.patches import Grid

Array = NDArray[np.float64]


def toy(side: int = 128) -> Array:
    """A ramp with a bright target in the middle and a dim one at (side / 4, 3 side / 4)."""
    y, x = np.mgrid[:side, :side]
    bright = 80 * np.exp(-((y - side / 2) ** 2 + (x - side / 2) ** 2) / (2 * 1.5**2))
    dim = 30 * np.exp(-((y - side / 4) ** 2 + (x - 3 * side / 4) ** 2) / 2)
    return np.asarray(50 + 0.5 * x + bright + dim)


def cloud(side: int, *, seed: int = 0) -> Array:
    """A field whose power falls as frequency^-3, on 20 to 200, with a target of 60 grey levels."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * frequency**-1.5, (side, side))
    field = 20 + 180 * (field - field.min()) / (field.max() - field.min())
    y, x = np.mgrid[:side, :side]
    return np.asarray(field + 60 * np.exp(-((y - 0.4 * side) ** 2 + (x - 0.6 * side) ** 2) / (2 * 1.5**2)))


def svt(matrix: Array, threshold: float) -> tuple[Array, int]:
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return (u * np.maximum(s - threshold, 0)) @ v, int((s > threshold).sum())


def soft(matrix: Array, threshold: float) -> Array:
    return np.asarray(np.sign(matrix) * np.maximum(np.abs(matrix) - threshold, 0))


def ipi(
    image: Array, *, patch: int = 50, step: int = 10, lambda_rule: str = "image", iterations: int = 1000
) -> LowRank:
    grid = Grid.of(image.shape, patch=patch, step=step, flush=False)
    D = grid.cut(image).reshape(len(grid), -1).T.copy()
    D = (D - D.min()) / (D.max() - D.min())
    side = {"image": max(image.shape), "min": min(D.shape), "patch": max(D.shape)}[lambda_rule]
    weight = 1 / math.sqrt(side)
    levels = np.linalg.svd(D, compute_uv=False)
    mu, floor = levels[1], 0.005 * levels[3]
    A = A_before = E = E_before = np.zeros_like(D)
    t = t_before = 1.0
    ranks: list[int] = []
    supports: list[int] = []
    end: End | None = None
    while end is None:
        Y_A = A + (t_before - 1) / t * (A - A_before)
        Y_E = E + (t_before - 1) / t * (E - E_before)
        gradient = (Y_A + Y_E - D) / 2
        A_before, E_before = A, E
        A, rank = svt(Y_A - gradient, mu / 2)
        E = soft(Y_E - gradient, weight * mu / 2)
        rest = A + E - Y_A - Y_E
        move = float(np.linalg.norm(np.hstack([2 * (Y_A - A) + rest, 2 * (Y_E - E) + rest])))
        size = float(np.linalg.norm(np.hstack([A, E])))
        t_before, t = t, (1 + math.sqrt(1 + 4 * t * t)) / 2
        mu = max(0.9 * mu, floor)
        ranks.append(rank)
        supports.append(int(np.count_nonzero(E)))
        run = next((n for n, r in enumerate(reversed(ranks)) if r != rank), len(ranks))
        if move / (2 * max(1, size)) <= 1e-6:
            end = "tolerance"
        elif run - 1 > 10 and abs(supports[-1] - supports[-run]) < 20:
            end = "rank"
        elif rank > 0.3 * min(D.shape):
            end = "truncation"
        elif len(ranks) == iterations:
            end = "iterations"
    target, background = (grid.median(X.T.reshape(-1, patch, patch)) for X in (E, A))
    return LowRank(target, background, len(ranks), (rank,), supports[-1], end)


def edges(image: Array) -> Array:
    def smooth(values: Array, sigma: float) -> Array:
        return np.asarray(ndimage.gaussian_filter(values, sigma, radius=1, mode="reflect"))

    dy, dx = np.gradient(smooth(image, 1.2))
    a, b, c = smooth(dx * dx, 2), smooth(dx * dy, 2), smooth(dy * dy, 2)
    return np.asarray(np.sqrt((a - c) ** 2 + 4 * b * b))


def ript(
    image: Array,
    *,
    patch: int = 30,
    step: int = 10,
    sparsity: float = 0.7,
    prior: float = 1.0,
    stop: str = "support",
    iterations: int = 100,
) -> LowRank:
    grid = Grid.of(image.shape, patch=patch, step=step, flush=True)
    F = np.moveaxis(grid.cut(image), 0, 2).copy()
    edge = edges(image)
    edge = (edge - edge.min()) / (edge.max() - edge.min())
    W = W_LS = np.moveaxis(grid.cut(np.exp(prior * edge)), 0, 2).copy()
    weight, mu = sparsity / math.sqrt(min(F.shape)), 5 * F.std(ddof=1)
    T = np.zeros_like(F)
    L = [np.zeros_like(F)] * 3
    supports: list[int] = []
    end: End | None = None
    while end is None:
        B: list[Array] = []
        ranks: list[int] = []
        for i in range(3):
            unfolded = np.moveaxis(F + mu * L[i] - T, i, 0)
            low, rank = svt(unfolded.reshape(F.shape[i], -1), mu)
            B.append(np.moveaxis(low.reshape(unfolded.shape), 0, i))
            ranks.append(rank)
        T = np.maximum(np.mean([F + mu * L[i] - B[i] for i in range(3)], 0) - W * mu * weight / 3, 0)
        W = W_LS / (np.abs(T) + 0.01)
        L = [L[i] - (B[i] + T - F) / mu for i in range(3)]
        mu /= 1.5
        supports.append(int((T > 0).sum()))
        mean = np.mean(B, 0)
        if np.linalg.norm(F - mean - T) / np.linalg.norm(F) < 1e-7:
            end = "tolerance"
        elif stop == "support" and len(supports) > 1 and supports[-1] == supports[-2]:
            end = "support"
        elif len(supports) == iterations:
            end = "iterations"
    target, background = (grid.mean(np.moveaxis(X, 2, 0)) for X in (T, mean))
    return LowRank(target, background, len(supports), tuple(ranks), supports[-1], end)
