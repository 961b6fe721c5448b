"""Label decoupling: a mask becomes an interior map and a boundary map.

Both maps come from the distance of a target pixel to the background, after J. Wei et al., "Label
Decoupling Framework for Salient Object Detection", CVPR 2020. Three recipes make them:

==========  ======================  ==================  ==========================  =================
recipe      from                    normalised per      outside the mask            1-pixel target
==========  ======================  ==================  ==========================  =================
official    the iSmallNet code      image               interior spills by 2 px     boundary all zero
ldf         the paper, Section 3.1  image               both zero                   boundary all zero
target      ours                    target (component)  both zero                   both 255
==========  ======================  ==================  ==========================  =================

In every recipe an empty mask gives two zero maps, and a mask without any background (no distance
exists) gives interior 255 and boundary 0. What lies beyond the frame is unknown, not background: a
target cut by the frame has no outline there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ismallnet import targets
from ismallnet.types import Labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def decouple(mask: NDArray[np.generic], *, recipe: str = "official") -> Labels:
    """Decouple a mask into the interior and boundary maps.

    Args:
        mask: (H, W) bool, or numbers that are all 0 and 1, or all 0 and 255.
        recipe: A name in ``RECIPES``.

    Returns:
        Two (H, W) uint8 maps, 0-255.

    Raises:
        ValueError: If the recipe is unknown, or the mask is not (H, W), has no pixel or is not binary.
    """
    if recipe not in RECIPES:
        raise ValueError(f"unknown label recipe {recipe!r}; choose from {', '.join(RECIPES)}")
    return RECIPES[recipe](_binary(mask))


def official(mask: NDArray[np.bool_]) -> Labels:
    """The recipe of the iSmallNet code (and of the label-decoupling code before it).

    Box blur 5×5 of the 0/255 mask, L2 distance transform (5×5 chamfer mask) of what is above zero, that
    is of the mask dilated by 2 px, square root, divided by the maximum of the image, times 255, floor.
    ``boundary = max(0, mask - interior)``, so it is dark even on the outline: at most 35 for a 3×3 target
    and 89 for a 9×9 one, and zero for 1×1 and 2×2.

    The interior and boundary of a 3×3 target, the middle 5×5 pixels::

        180 180 180 180 180        0   0   0   0   0
        180 220 220 220 180        0  35  35  35   0
        180 220 255 220 180        0  35   0  35   0
        180 220 220 220 180        0  35  35  35   0
        180 180 180 180 180        0   0   0   0   0

    Args:
        mask: (H, W).
    """
    picture = mask.astype(np.uint8) * np.uint8(255)
    distance = np.asarray(cv2.distanceTransform(cv2.blur(picture, (5, 5)), cv2.DIST_L2, 5))
    root = np.sqrt(distance)
    interior = np.floor(root / max(root.max(), 1) * 255).astype(np.uint8)
    return Labels(interior, np.asarray(cv2.subtract(picture, interior), np.uint8))


def ldf(mask: NDArray[np.bool_]) -> Labels:
    """The formula printed in the label-decoupling paper: linear, no blur, ``interior + boundary = mask``.

    ``I'(p) = min ‖p - q‖`` over the background pixels q, scaled linearly from [min, max] of the image to
    [0, 1] (the minimum is the background's 0); ``interior = mask · I'``, ``boundary = mask · (1 - I')``. In
    uint8 the sum is 255 on every target pixel, exactly.

    A 3×3 target::

          0   0   0   0   0        0   0   0   0   0
          0 128 128 128   0        0 127 127 127   0
          0 128 255 128   0        0 127   0 127   0
          0 128 128 128   0        0 127 127 127   0
          0   0   0   0   0        0   0   0   0   0

    Args:
        mask: (H, W).
    """
    distance = _distance(mask)
    interior = _levels(distance / max(distance.max(), 1))
    return Labels(interior, np.where(mask, 255 - interior, 0).astype(np.uint8))


def target(mask: NDArray[np.bool_]) -> Labels:
    """Ours: every target on its own scale, nothing outside the mask, a boundary for the smallest targets.

    With d the distance of a target pixel to the nearest background pixel (centre to centre, so d ≥ 1) and
    D the largest d of its 8-connected component,

        ``interior = d / D`` and ``boundary = (D + 1 - d) / D``,

    a mirror pair: the interior is 1 in the middle and 1/D on the outline, the boundary the other way
    round. Both are positive on every target pixel, and a target without a middle (1×1, 2×2, a line) is all
    outline and all interior. Their sum 1 + 1/D tends to the mask, the sum of ``ldf``, as targets grow.

    A 3×3 target (D = 2)::

          0   0   0   0   0        0   0   0   0   0
          0 128 128 128   0        0 255 255 255   0
          0 128 255 128   0        0 255 128 255   0
          0 128 128 128   0        0 255 255 255   0
          0   0   0   0   0        0   0   0   0   0

    A 1×1 and a 2×2 target (D = 1), interior and boundary alike::

        255   0   0   0   0      255   0   0   0   0
          0   0   0   0   0        0   0   0   0   0
          0   0   0   0   0        0   0   0   0   0
          0   0   0 255 255        0   0   0 255 255
          0   0   0 255 255        0   0   0 255 255

    Targets that touch, be it by a corner, are one component and share D.

    Args:
        mask: (H, W).
    """
    if mask.all():
        return ldf(mask)
    distance = _distance(mask)
    count, component = targets.label(mask)
    largest = np.ones(count + 1, np.float32)
    np.maximum.at(largest, component[mask], distance[mask])
    scale = largest[component]
    return Labels(_levels(distance / scale), _levels(mask * (scale + 1 - distance) / scale))


RECIPES: dict[str, Callable[[NDArray[np.bool_]], Labels]] = {
    "official": official,
    "ldf": ldf,
    "target": target,
}


def write_label_pictures(
    mask: NDArray[np.generic], folder: str | Path, name: str, *, recipe: str = "official", zoom: int = 4
) -> tuple[Path, ...]:
    """Write the maps of one mask as 8-bit PNG pictures, for inspection.

    ``NAME_interior.png`` and ``NAME_boundary.png`` hold the maps as they are; ``NAME_labels.png`` shows mask,
    interior and boundary side by side, each pixel a square, grey lines between.

    Args:
        mask: (H, W), as ``decouple`` takes it.
        folder: Where to write; it exists.
        name: What the files' names begin with.
        recipe: A name in ``RECIPES``.
        zoom: Side of a pixel's square in ``NAME_labels.png``.

    Returns:
        The three files.

    Raises:
        ValueError: As in ``decouple``.
        OSError: A file cannot be written.
    """
    labels = decouple(mask, recipe=recipe)
    shown = (_binary(mask).astype(np.uint8) * np.uint8(255), *labels)
    line = np.full((zoom * mask.shape[0], zoom), 128, np.uint8)
    row = [part for each in shown for part in (line, each.repeat(zoom, 0).repeat(zoom, 1))]
    pictures = {"interior": labels.interior, "boundary": labels.boundary, "labels": np.hstack(row[1:])}
    files = {kind: Path(folder) / f"{name}_{kind}.png" for kind in pictures}
    for kind, picture in pictures.items():
        if not cv2.imwrite(str(files[kind]), picture):
            raise OSError(f"cannot write {files[kind]}; does the folder exist, is the disk full?")
    return tuple(files.values())


def _binary(mask: NDArray[np.generic]) -> NDArray[np.bool_]:
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"a mask is (H, W) with at least one pixel, got shape {mask.shape}")
    if mask.dtype == np.bool_:
        return mask.astype(np.bool_)
    levels = np.unique(mask)
    if not (np.isin(levels, (0, 1)).all() or np.isin(levels, (0, 255)).all()):
        seen = ", ".join(f"{level:g}" for level in levels[:8]) + (", …" if len(levels) > 8 else "")
        raise ValueError(
            f"a mask is bool, 0 and 1, or 0 and 255, got {len(levels)} levels ({seen}); threshold it first"
        )
    return np.asarray(mask != 0)


def _distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The exact Euclidean distance to the nearest background pixel; 1 everywhere where there is none."""
    if mask.all():
        return np.ones(mask.shape, np.float32)
    transform = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(transform, np.float32)


def _levels(share: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """[0, 1] to 0-255, rounded."""
    return np.asarray(np.rint(share * 255), np.uint8)
