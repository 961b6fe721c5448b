"""A data set, a network and a recipe small enough to train within a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ismallnet import config

MODEL = {"name": "ismallnet-s", "options": {"widths": [4, 4, 4, 4, 4], "fusion_width": 4}}


def write_images(root: Path, *, count: int = 24, size: tuple[int, int] = (40, 48)) -> Path:
    """A generic folder: noisy images with one bright 4×4 target each, all but four in the train list."""
    random = np.random.default_rng(7)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for number in range(count):
        field = cv2.GaussianBlur(random.uniform(0, 255, size).astype(np.float32), (0, 0), 2)
        mask = np.zeros(size, np.uint8)
        y, x = (int(random.integers(0, side - 4)) for side in size)
        mask[y : y + 4, x : x + 4] = 255
        image = np.where(mask > 0, 250, field).astype(np.uint8)
        cv2.imwrite(str(root / "images" / f"{number:02d}.png"), image)
        cv2.imwrite(str(root / "masks" / f"{number:02d}.png"), mask)
    names = [f"{number:02d}" for number in range(count)]
    (root / "train.txt").write_text("\n".join(names[:-4]))
    (root / "test.txt").write_text("\n".join(names[-4:]))
    return root


def recipe(root: Path, **training: Any) -> config.Recipe:
    """A recipe of a few steps on the folder `root`; keywords go to `training`, `fold` to `data`."""
    fold = training.pop("fold", None)
    optimizer = training.pop("optimizer", {})
    length = {} if "epochs" in training else {"steps": 6}
    return config.from_dict(
        {
            "model": MODEL,
            "data": {"root": str(root), "sets": [{"name": "folder"}], "fold": fold},
            "optimizer": optimizer,
            "training": {
                "stages": [{"sizes": [32], "batch": 4}],
                "precision": "float32",
                "accelerator": "cpu",
                "log_every": 1,
                **length,
                **training,
            },
        }
    )
