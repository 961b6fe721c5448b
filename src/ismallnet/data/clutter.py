"""Backgrounds of infrared scenes: random fields with a 1/f spectrum, shaped into clouds, a sea or terrain.

The power of natural radiance falls with frequency as f^-1.5 to f^-4.5 (90 % of the NUAA-SIRST and NUDT-SIRST
train images, median 3), so that every generator starts from such a field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Field = NDArray[np.float64]

Clutter = Literal["cloud", "sea", "terrain"]


def random_field(rng: Generator, height: int, width: int, *, exponent: float, stretch: float = 1.0) -> Field:
    """A periodic Gaussian field whose power falls with frequency as f^-exponent.

    Args:
        rng: Source of randomness.
        height: Rows.
        width: Columns.
        exponent: Of the power spectrum.
        stretch: How much longer structures are along x than along y.

    Returns:
        (H, W), mean 0, standard deviation 1.
    """
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.fft.rfftfreq(width)[None] * stretch
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * frequency ** (-exponent / 2)
    field = np.fft.irfft2(spectrum, s=(height, width))
    return np.asarray((field - field.mean()) / field.std())


def cloud(rng: Generator, height: int, width: int) -> Field:
    """A sky that brightens downwards and clouds with ragged edges, drawn out by wind.

    Returns:
        (H, W), about 0.1 to 0.8.
    """
    sky = rng.uniform(0.12, 0.25) + rng.uniform(0.05, 0.2) * np.linspace(0, 1, height)[:, None] ** 1.5
    base = random_field(rng, height, width, exponent=3.4, stretch=rng.uniform(1.0, 2.5))
    wind = [random_field(rng, height, width, exponent=3.6) * rng.uniform(4, 12) for _ in range(2)]
    base = _warp(base, *wind)
    detail = random_field(rng, height, width, exponent=2.6)
    cover = _smoothstep(base + 0.18 * detail, rng.uniform(-0.3, 0.6), width=rng.uniform(1.0, 2.0))
    thickness = 0.75 + 0.12 * detail + 0.13 * _warp(detail, *wind)
    return np.asarray(sky + rng.uniform(0.25, 0.5) * cover * thickness)


def sea(rng: Generator, height: int, width: int) -> Field:
    """A horizon, haze above it, and waves in perspective below with a path of glint.

    Returns:
        (H, W), about 0.1 to 0.8.
    """
    horizon = height * rng.uniform(0.2, 0.4)
    y = np.arange(height)[:, None] + np.zeros(width)
    below = np.maximum(y - horizon, 0.5)
    distance = height / below  # about 1 at the lower border
    x = (np.arange(width)[None] - width / 2) * distance
    texture = random_field(rng, 1024, 1024, exponent=2.6, stretch=2.5)
    swell = _sample(texture, 0.5 * x, 75 * distance) / (1 + 0.05 * distance)
    ripple = _sample(texture, 1.7 * x + 300, 260 * distance) / (1 + 0.1 * distance)
    water = rng.uniform(0.2, 0.32) + 0.055 * swell + 0.035 * ripple
    sun = (np.arange(width)[None] - width * rng.uniform(0.2, 0.8)) / (0.06 * width + 0.12 * below)
    glint = np.exp(-(sun**2)) * np.maximum(0.7 * swell + ripple - 0.4, 0)
    water = water + rng.uniform(0.04, 0.12) * glint + 0.08 * np.exp(-below / (0.08 * height))
    haze = rng.uniform(0.35, 0.5) - rng.uniform(0.1, 0.25) * np.clip((horizon - y) / horizon, 0, 1) ** 0.6
    sky = haze + 0.02 * random_field(rng, height, width, exponent=3.4, stretch=3)
    return np.where(y < horizon, sky, water)


def terrain(rng: Generator, height: int, width: int) -> Field:
    """Wooded ridges one behind the other under a cold sky, and a few warm buildings.

    Returns:
        (H, W), about 0.05 to 0.8.
    """
    y = np.arange(height)[:, None] + np.zeros(width)
    image = (
        rng.uniform(0.06, 0.2)
        + rng.uniform(0.02, 0.12) * np.linspace(0, 1, height)[:, None]
        + np.zeros(width)
    )
    image += 0.015 * random_field(rng, height, width, exponent=3.2, stretch=2)
    ridges = int(rng.integers(2, 5))
    for ridge in range(ridges):
        near = (ridge + 1) / ridges
        relief = random_field(rng, 1, 2 * width, exponent=rng.uniform(2.2, 3.0))[0, :width]
        outline = height * (0.25 + 0.55 * ridge / ridges + 0.06 * relief) + near * rng.standard_normal(width)
        ground = (
            rng.uniform(0.28, 0.34)
            + 0.14 * near
            + _wood(rng, height, width, crown=2 + 5 * near, contrast=near)
        )
        image = np.where(y > outline[None], ground, image)
        if ridge == ridges - 2 or rng.random() < 0.3:
            _build(rng, image, top=int(outline.max()))
    return image


def _wood(rng: Generator, height: int, width: int, *, crown: float, contrast: float) -> Field:
    """Tree crowns about so many pixels wide, warm above and cool below, in stands of different warmth."""
    stands = random_field(rng, height, width, exponent=2.8, stretch=1.6)
    bumps = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), crown / 3)
    bumps = bumps / bumps.std()
    shade = bumps - np.roll(bumps, max(round(crown / 3), 1), axis=0)
    return np.asarray(0.035 * stands + contrast * (0.035 * np.maximum(bumps, -0.5) + 0.03 * shade))


CLUTTER: dict[Clutter, Callable[[Generator, int, int], Field]] = {
    "cloud": cloud,
    "sea": sea,
    "terrain": terrain,
}


def _build(rng: Generator, image: Field, *, top: int) -> None:
    """Draw warm buildings with windows on the ground at a row, in place."""
    height, width = image.shape
    for _ in range(int(rng.integers(1, 4))):
        tall = int(rng.integers(height // 32 + 2, height // 7))
        wide = int(rng.integers(width // 32 + 2, width // 6))
        y, x = min(top, height - 1 - tall), int(rng.integers(0, width - wide))
        wall = rng.uniform(0.45, 0.68)
        rows, columns = np.arange(tall)[:, None], np.arange(wide)[None]
        front = wall - 0.08 * rows / tall + 0.02 * rng.standard_normal((1, wide))
        glass = (
            rng.uniform(-0.16, 0.06, (tall // 5 + 1, wide // 5 + 1)).repeat(5, 0).repeat(5, 1)[:tall, :wide]
        )
        front += np.where((rows % 5 > 2) & (columns % 5 > 2), glass, 0)
        front[:2] += 0.1
        image[y : y + tall, x : x + wide] = front


def _smoothstep(field: Field, edge: float, *, width: float) -> Field:
    """0 below the edge, 1 above edge + width, a cubic between."""
    t = np.clip((field - edge) / width, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _warp(field: Field, dx: Field, dy: Field) -> Field:
    height, width = field.shape
    return _sample(field, np.arange(width)[None] + dx, np.arange(height)[:, None] + dy)


def _sample(field: Field, x: Field, y: Field) -> Field:
    """Read a periodic field at real positions, bilinearly."""
    height, width = field.shape
    maps = (np.mod(x, width).astype(np.float32), np.mod(y, height).astype(np.float32))
    return np.asarray(cv2.remap(field, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))
