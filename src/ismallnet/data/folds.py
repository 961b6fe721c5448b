"""Validation folds cut from a train list: by hash of the image id, near-duplicates kept together.

Five folds rather than one hold-out: a tenth of 213 images decides nothing. The hash makes a fold depend on
the ids alone, not on the order of a list nor on a seed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ismallnet.data.dataset import Dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR_DUPLICATE_BITS = 8
"""Images whose perceptual hashes differ in at most this many of 64 bits are near-duplicates.

The distances on the public train lists leave a gap there: NUDT-SIRST (663 images) has 19 pairs at 8 or less,
none at 10, and from 12 on the tail of unrelated pairs (mode 32); NUAA-SIRST (213) one pair at 4, none at 6
to 12.
"""


def folds(dataset: Dataset, n: int = 5) -> tuple[tuple[str, ...], ...]:
    """Divide a data set's ids into n folds, the same on every machine.

    An image belongs to fold SHA-256(id) mod n; a group of near-duplicates (linked, directly or by others, by
    perceptual hashes at most `NEAR_DUPLICATE_BITS` apart) to the fold of its first id in sorted order.

    Args:
        dataset: The images; all of them are read.
        n: Number of folds, at least 2.

    Returns:
        n tuples of sorted ids; every id is in exactly one. Folds are only about equally large.

    Raises:
        ValueError: fewer than 2 folds, or a fold that would be empty.
    """
    if n < 2:
        raise ValueError(f"{n} folds cannot be validated on; at least 2")
    ids = sorted(dataset.ids)
    hashes = np.stack([perceptual_hash(dataset.read(id).image) for id in ids])
    first: dict[int, str] = {}
    parts: list[list[str]] = [[] for _ in range(n)]
    for id, group in zip(ids, _groups(near_duplicates(hashes), len(ids)), strict=True):
        parts[_hash(first.setdefault(group, id)) % n].append(id)
    if not all(parts):
        raise ValueError(f"{len(ids)} images of {dataset.name} leave one of {n} folds empty; use fewer folds")
    return tuple(map(tuple, parts))


def validation_split(dataset: Dataset, fold: int, n: int = 5) -> tuple[Dataset, Dataset]:
    """Cut a train list into the part to learn from and the part to choose by.

    Args:
        dataset: A train split.
        fold: Which of the n folds validates, from 0.
        n: Number of folds.

    Returns:
        (train, validation), each in the order of the list.

    Raises:
        ValueError: a split that is or holds a test list, or no such fold.
    """
    if dataset.holds_test_images:
        raise ValueError(
            f"{dataset.name} {dataset.split!r} holds test images; validation is cut from a train list only"
        )
    if not 0 <= fold < n:
        raise ValueError(f"fold {fold} of {n} does not exist; choose 0 to {n - 1}")
    held_out = set(folds(dataset, n)[fold])
    kept = [i for i in dataset.ids if i not in held_out]
    return (
        dataset.subset(kept, split=f"{dataset.split} without fold {fold} of {n}"),
        dataset.subset(
            [i for i in dataset.ids if i in held_out], split=f"{dataset.split} fold {fold} of {n}"
        ),
    )


def perceptual_hash(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """DCT hash: which of the 8x8 lowest frequencies at 32x32 (row and column 0 left out) exceed their median.

    Brightness, contrast, size and compression hardly change it; a shift or a crop does.

    Args:
        image: (H, W), at least 1x1.

    Returns:
        (64,).
    """
    small = cv2.resize(image.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[1:9, 1:9].ravel()
    signs: NDArray[np.bool_] = low > np.median(low)
    return signs


def near_duplicates(hashes: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs of images whose hashes are at most `NEAR_DUPLICATE_BITS` apart.

    Args:
        hashes: (N, 64) from `perceptual_hash`.

    Returns:
        (i, j) with i < j, in order of i, then j.
    """
    signs = hashes.astype(np.float32) * 2 - 1
    distance = (signs.shape[1] - signs @ signs.T) / 2
    i, j = np.nonzero(np.triu(distance <= NEAR_DUPLICATE_BITS, k=1))
    return list(zip(i.tolist(), j.tolist(), strict=True))


def _groups(pairs: list[tuple[int, int]], count: int) -> list[int]:
    """The number of each image's group, images being linked by pairs."""
    i, j = np.array(pairs, int).reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs)), (i, j)), shape=(count, count))
    return [int(group) for group in connected_components(links, directed=False)[1]]


def _hash(id: str) -> int:
    return int.from_bytes(hashlib.sha256(id.encode()).digest(), "big")
