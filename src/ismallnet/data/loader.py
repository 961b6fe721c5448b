"""All images of a run in the device's memory as uint8, and the order in which they are drawn.

A pixel is one 32-bit word: grey level, mask, interior, boundary. One gather fetches all four, and 876 images
take 0.25 GB. The order is a pure function of the seed and the position in it, so resuming needs no state and
several devices take their shares without talking.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ismallnet import labels, targets
from ismallnet.data import offsets as side

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.config import MaskOffset, Stage, Training
    from ismallnet.types import Sample


def seed_of(*numbers: int) -> int:
    """One well-mixed 63-bit seed from a few numbers of at least 0, such as run, purpose and step."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """N images of any sizes on one device, P pixels together, row by row, one image after the other.

    The images of the run come first. Behind them are turned forms of those whose masks have an orientation:
    images with labels of their own, which are drawn in their place.
    """

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
    forms: Tensor
    """(M, F) int64: the images that may be drawn for each of the run's M images, which are the first M."""
    turns: Tensor
    """(N,) bool: whether an image may be turned where it is drawn; false of those with forms."""
    targets: int
    """How many of the T targets are of the first M images."""

    def __len__(self) -> int:
        """The number of the run's images, M."""
        return len(self.forms)

    @classmethod
    def of(
        cls,
        samples: Iterable[Sample],
        *,
        recipe: str,
        device: str | torch.device = "cpu",
        offsets: Sequence[MaskOffset | None] | None = None,
    ) -> Pool:
        """Decouple the masks and move everything to the device.

        Args:
            samples: Images with their masks.
            recipe: Label recipe, a key of `ismallnet.labels.RECIPES`.
            device: Where the images will live.
            offsets: One an image: how masks lie beside their targets; None: not at all.

        Raises:
            ValueError: there are no samples, or `offsets` has another length.
        """
        rows, turned = [], []
        chosen: list[MaskOffset | None] = []
        for number, sample in enumerate(samples):
            off = offsets[number] if offsets is not None and number < len(offsets) else None
            chosen.append(off)
            rows.append(_Row.of(sample, recipe))
            if off is not None:
                turned += [_Row.of(side.turned(sample, turn, off), recipe) for turn in range(1, side.TURNS)]
        if not rows:
            raise ValueError("got no images; a run needs at least one")
        if offsets is not None and len(offsets) != len(rows):
            raise ValueError(f"got {len(offsets)} offsets for {len(rows)} images; give one an image")
        shown = sum(len(row.centres) for row in rows)
        own = torch.arange(len(rows))[:, None]
        aside = torch.tensor([off is not None for off in chosen])
        forms = own
        if turned:
            behind = len(rows) + torch.arange(len(turned)).view(-1, side.TURNS - 1)
            forms = own.repeat(1, side.TURNS)
            forms[aside, 1:] = behind
        turns = torch.cat([~aside, torch.zeros(len(turned), dtype=torch.bool)])
        rows += turned
        size = torch.tensor([row.size for row in rows])
        beyond = np.zeros((int(size[:, 0].max()) + 1, 4), np.uint8)  # read, with weight 0, by the last image
        count = torch.tensor([len(row.centres) for row in rows])
        pixels = np.concatenate([*(row.pixels for row in rows), beyond])
        centres = [centre for row in rows for centre in row.centres]
        return cls(
            pixels=torch.from_numpy(pixels).view(torch.int32).flatten().to(device),
            start=_starts(size.prod(1)).to(device),
            size=size.to(device),
            grey=torch.tensor([row.grey for row in rows], dtype=torch.float32).to(device),
            centres=torch.tensor(centres, dtype=torch.float32).reshape(-1, 2).to(device),
            first=_starts(count).to(device),
            count=count.to(device),
            forms=forms.to(device),
            turns=turns.to(device),
            targets=shown,
        )


class _Row(NamedTuple):
    """One image of a pool."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    grey: tuple[float, float, float]
    centres: list[tuple[float, float]]

    @classmethod
    def of(cls, sample: Sample, recipe: str) -> _Row:
        decoupled = labels.decouple(sample.mask, recipe=recipe)
        mask = sample.mask.astype(np.uint8) * np.uint8(255)
        planes = np.stack([sample.image, mask, decoupled.interior, decoupled.boundary], axis=-1)
        height, width = sample.mask.shape
        low, high = np.percentile(sample.image, (0.1, 99.9)) / 255
        return cls(
            pixels=planes.reshape(-1, 4),
            size=(width, height),
            grey=(sample.image.mean() / 255, low, high),
            centres=[(target.x, target.y) for target in targets.find(sample.mask)],
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
