"""Tiny data sets on the disk, in the layouts of the public ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

Maker = Callable[..., Path]


@pytest.fixture
def write() -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, array: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), array)

    return write


@pytest.fixture
def make(tmp_path: Path, write: Callable[[Path, np.ndarray], None]) -> Maker:
    """make(ids, ...) -> the data set's folder: random 24x32 images, each with one 3x3 target."""

    def make(
        ids: list[str],
        *,
        folder: str = "mine",
        images: str = "images",
        masks: str = "masks",
        suffix: str = "",
        lists: dict[str, list[str]] | None = None,
    ) -> Path:
        root = tmp_path / folder
        for number, id in enumerate(ids):
            rng = np.random.default_rng((number, *id.encode()))
            field = cv2.GaussianBlur(rng.uniform(0, 255, (24, 32)), (0, 0), 1)
            mask = np.zeros((24, 32), np.uint8)
            mask[4:7, number : number + 3] = 255
            write(root / images / f"{id}.png", field.astype(np.uint8))
            write(root / masks / f"{id}{suffix}.png", mask)
        for name, members in (lists or {}).items():
            path = root / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(members) + "\n")
        return root

    return make
