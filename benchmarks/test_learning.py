"""From samples to weights, and from scores to metrics: batches, training steps, counting."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ismallnet import config, devices
from ismallnet.data import augment
from ismallnet.data.loader import Pool
from ismallnet.data.synthetic import scene
from ismallnet.metrics import count_image, get_protocol
from ismallnet.train import Trainer
from ismallnet.types import Sample
from tiny import recipe, write_images


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [scene(seed, height=256, width=256).sample(str(seed)) for seed in range(8)]


@pytest.mark.parametrize("details", [False, True])
def test_counting_of_an_image(benchmark: Any, samples: list[Sample], details: bool) -> None:
    sample = samples[0]
    score = np.where(sample.mask, 0.9, 0.0).astype(np.float32)
    also = {"image": sample.image, "score": score} if details else {}
    counted = benchmark(count_image, score > 0.5, sample.mask, protocol=get_protocol("standard"), **also)
    assert counted.fp == counted.fn == 0


@pytest.mark.parametrize("kind", ["plain", "paste and clutter"])
def test_batch(benchmark: Any, samples: list[Sample], kind: str) -> None:
    """Eight crops of 256 × 256."""
    pool = Pool.of(samples, recipe="official")
    chosen = config.Augment() if kind == "plain" else config.Augment(paste=1.0, clutter=1.0)
    seeds = count()

    def cut() -> augment.Batch:
        generator = torch.Generator().manual_seed(next(seeds))
        plan = augment.draw(pool, torch.arange(8), 256, chosen, generator)
        return augment.cut(pool, plan, 256, soft_mask=False)

    assert benchmark(cut).image.shape == (8, 1, 256, 256)


def test_training_step(benchmark: Any, tmp_path: Path) -> None:
    """Of the compact network, two crops of 128 × 128: batch, forward, backward, optimiser, average."""
    values = config.to_dict(recipe(write_images(tmp_path / "set"), steps=10**6))
    values |= {"model": {"name": "ismallnet-s"}}
    values["training"]["stages"] = [{"sizes": [128], "batch": 2}]
    chosen = config.from_dict(values)
    trainer = Trainer(chosen, devices.launch(chosen.training), tmp_path / "run")
    try:
        benchmark(trainer.make_step)
    finally:
        trainer.history.close()
    assert trainer.step >= 1
