"""A filter from outside the package: `pip install examples/plugin`, then `ismallnet detect --model dog`."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ismallnet.filters import Entry


def differences_of_gaussians(
    levels: NDArray[np.float64], *, narrow: float = 1.0, wide: float = 4.0
) -> NDArray[np.float64]:
    """Subtract a wide from a narrow Gaussian mean; the border is mirrored.

    Args:
        levels: (H, W) grey levels, 0-255.
        narrow: Standard deviation of the mean that keeps a target, in pixels.
        wide: That of the mean that is background.

    Returns:
        (H, W), positive where it is brighter than around.
    """
    target, background = (cv2.GaussianBlur(levels, (0, 0), sigma) for sigma in (narrow, wide))
    return target - background


FILTER = Entry(differences_of_gaussians, "differences of Gaussians, an example")
