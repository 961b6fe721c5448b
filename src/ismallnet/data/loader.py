"""All images of a run in the device's memory as uint8, and the order in which they are drawn.

A pixel is one 32-bit word: grey level, mask, interior, boundary. One gather fetches all four, and 876 images
take 0.25 GB. The order is a pure function of the seed and the position in it, so resuming needs no state and
several devices take their shares without talking.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ismallnet import labels, targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.config import Stage, Training
    from ismallnet.types import Sample


def seed_of(*numbers: int) -> int:
    """One well-mixed 63-bit seed from a few numbers of at least 0, such as run, purpose and step."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """N images of any sizes on one device, P pixels together, row by row, one image after the other."""

    pixels: Tensor
    """(P,) int32, its bytes, the lowest first, being grey level, mask, interior and boundary, each 0-255."""
    start: Tensor
    """(N,) int64: where an image's pixels begin."""
    size: Tensor
    """(N, 2) int64: width and height."""
    grey: Tensor
    """(N, 3) float32 in [0, 1]: mean, 0.1 percentile and 99.9 percentile of the grey levels."""
    centres: Tensor
    """(T, 2) float32: x and y of all targets' centroids, in pixels, image by image."""
    first: Tensor
    """(N,) int64: where an image's targets begin."""
    count: Tensor
    """(N,) int64: how many targets an image has."""
    turns: Tensor
    """(N,) bool: whether flips, quarter turns and rotations apply to an image."""

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def of(
        cls,
        samples: Iterable[Sample],
        *,
        recipe: str,
        device: str | torch.device = "cpu",
        turns: Sequence[bool] | None = None,
    ) -> Pool:
        """Decouple the masks and move everything to the device.

        Args:
            samples: Images with their masks.
            recipe: Label recipe, a key of `ismallnet.labels.RECIPES`.
            device: Where the images will live.
            turns: Whether flips and turns apply, one an image; None: to all.

        Raises:
            ValueError: there are no samples, or `turns` has another length.
        """
        packed: list[NDArray[np.uint8]] = []
        sizes, greys, centres, counts = [], [], [], []
        for sample in samples:
            decoupled = labels.decouple(sample.mask, recipe=recipe)
            mask = sample.mask.astype(np.uint8) * np.uint8(255)
            planes = np.stack([sample.image, mask, decoupled.interior, decoupled.boundary], axis=-1)
            packed.append(planes.reshape(-1, 4))
            sizes.append(sample.mask.shape[::-1])
            greys.append([sample.image.mean() / 255, *np.percentile(sample.image, (0.1, 99.9)) / 255])
            found = targets.find(sample.mask)
            centres += [[target.x, target.y] for target in found]
            counts.append(len(found))
        if not packed:
            raise ValueError("got no images; a run needs at least one")
        if turns is not None and len(turns) != len(packed):
            raise ValueError(f"got {len(turns)} values of turns for {len(packed)} images; give one an image")
        size = torch.tensor(sizes)
        beyond = np.zeros((int(size[:, 0].max()) + 1, 4), np.uint8)  # read, with weight 0, by the last image
        count = torch.tensor(counts)
        return cls(
            pixels=torch.from_numpy(np.concatenate([*packed, beyond])).view(torch.int32).flatten().to(device),
            start=_starts(size.prod(1)).to(device),
            size=size.to(device),
            grey=torch.tensor(greys, dtype=torch.float32).to(device),
            centres=torch.tensor(centres, dtype=torch.float32).reshape(-1, 2).to(device),
            first=_starts(count).to(device),
            count=count.to(device),
            turns=torch.tensor([True] * len(packed) if turns is None else turns).to(device),
        )


class Order:
    """An endless order of image numbers: epochs that show each image as often as its set's weight says.

    An epoch holds every image of a set `floor(weight)` times, and a fresh random part of them once more for
    the fraction that is left, all shuffled.

    Args:
        sizes: Number of images of each data set, in the order of the pool.
        weights: One positive number a data set.
        seed: Seed of the run.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], *, seed: int) -> None:
        self.sizes, self.weights, self.seed = tuple(sizes), tuple(weights), seed
        self.epoch_length = sum(
            round(size * weight) for size, weight in zip(self.sizes, self.weights, strict=True)
        )
        if self.epoch_length == 0:
            raise ValueError(f"sets of {self.sizes} images with weights {self.weights} make an empty epoch")
        self._cached: tuple[int, Tensor] | None = None

    def take(self, position: int, count: int) -> Tensor:
        """(count,) int64 image numbers, from `position` (counted from the run's first image) on."""
        parts = []
        while count > 0:
            epoch, within = divmod(position, self.epoch_length)
            parts.append(self._epoch(epoch)[within : within + count])
            position += len(parts[-1])
            count -= len(parts[-1])
        return torch.cat(parts)

    def _epoch(self, epoch: int) -> Tensor:
        if self._cached is None or self._cached[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, 0, epoch))
            chosen, offset = [], 0
            for size, weight in zip(self.sizes, self.weights, strict=True):
                wanted = round(size * weight)
                rounds = -(-wanted // size)
                copies = [torch.randperm(size, generator=generator) for _ in range(rounds)]
                chosen.append(offset + torch.cat(copies)[:wanted])
                offset += size
            together = torch.cat(chosen)
            self._cached = epoch, together[torch.randperm(len(together), generator=generator)]
        return self._cached[1]


def _starts(lengths: Tensor) -> Tensor:
    """(N,) int64: the sum of all lengths before each."""
    return lengths.cumsum(0) - lengths


@dataclass(frozen=True, slots=True)
class Timetable:
    """Which stage a step belongs to and how many images came before it."""

    stages: tuple[Stage, ...]
    steps: int
    """Length of the run."""
    epoch_length: int
    """Images of an epoch."""
    first: tuple[int, ...]
    """The step each stage begins with."""
    seen: tuple[int, ...]
    """Images before each stage."""

    @classmethod
    def of(cls, training: Training, epoch_length: int) -> Timetable:
        """Lay out a recipe's stages; `epochs` become the steps that show as many images.

        Raises:
            ValueError: neither `steps` nor `epochs` is given.
        """
        stages = training.stages
        shares = [stage.fraction / sum(s.fraction for s in stages) for stage in stages]
        if training.steps is not None:
            steps = training.steps
        elif training.epochs is not None:
            batch = sum(share * stage.batch for share, stage in zip(shares, stages, strict=True))
            steps = max(1, round(training.epochs * epoch_length / batch))
        else:
            raise ValueError("the recipe has no length; set training.steps or training.epochs")
        ends = [round(steps * share) for share in accumulate(shares)]
        first = (0, *ends[:-1])
        images = [(end - begin) * s.batch for begin, end, s in zip(first, ends, stages, strict=True)]
        return cls(stages, steps, epoch_length, first, tuple(accumulate([0, *images[:-1]])))

    @property
    def epochs(self) -> int:
        """Number of epochs that the run at least begins."""
        return self.epoch(self.steps - 1) + 1

    def at(self, step: int) -> tuple[Stage, int]:
        """The stage of a step and the position of its first image in the order."""
        number = max(i for i, first in enumerate(self.first) if first <= step)
        stage = self.stages[number]
        return stage, self.seen[number] + (step - self.first[number]) * stage.batch

    def epoch(self, step: int) -> int:
        """The epoch of a step, from 0."""
        return self.at(step)[1] // self.epoch_length
