"""How fast a recipe trains: the field's plain loop and ours, in turns in one run, with where the time goes.

Both train the same network by the same loss and the same optimiser on batches of the same size. The plain
way is that of the scripts of the field: float32, the default memory format, and every image read, cropped,
mirrored and decoupled one after another for every batch. Ours is the loop of `ismallnet.train`, as a run has
it. Each lives in a process of its own; while one makes its steps the other waits.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from ismallnet import config, data, devices
from ismallnet.benchmark.processes import processes
from ismallnet.benchmark.speed import circumstances, origins
from ismallnet.benchmark.store import Row, Store
from ismallnet.runtimes import device_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.config import Recipe
    from ismallnet.data import Dataset

PARTS = "batches", "forward", "backward", "optimiser"
"""Of a step. The loss belongs to the forward part, clipping and the weights' average to the optimiser's."""
WAYS = "plain", "ours"
COLUMNS = (
    "recipe", "model", "way", "precision", "size_px", "batch", "rounds", "steps", "threads",
    "images_s", "times_as_fast", *(f"{part}_ms" for part in (*PARTS, "validation")),
    "date", "commit", "hardware", "versions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained, and how much of it at a time."""

    recipe: Recipe
    """Of one stage; with a fold, whose images are the validation."""
    steps: int
    """A round."""
    validate: int
    """Images a round."""


Times = dict[str, float]
"""Seconds by part, of all steps of a round; and `validation`."""


def training_speed(
    recipes: Sequence[str | Path],
    *,
    out: str | Path,
    root: str | Path,
    batch: int | None = None,
    rounds: int = 5,
    steps: int = 4,
    validate: int = 8,
    advance: Callable[[int, int, str], None] | None = None,
) -> list[Row]:
    """Measure both ways at every stage of every recipe, and write training.csv.

    Args:
        recipes: Files; supervised ones. Only train lists are opened.
        out: Folder of training.csv; rows of the same recipe, size and batch are replaced.
        root: Where the data sets are.
        batch: Images a step in place of the recipe's, where they are too many for the machine.
        rounds: Times that each way makes its steps, after one that is not counted.
        steps: Of a round.
        validate: Images a round that are scored and counted.
        advance: Called with what is done, how much there is, and a text.

    Raises:
        FileNotFoundError: No such recipe or data.
        ValueError: A number below 1, a recipe that is not supervised, or the file has other columns.
    """
    for name, value in (("rounds", rounds), ("steps", steps), ("validate", validate), ("batch", batch or 1)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1")
    store = Store(Path(out) / "training.csv", COLUMNS)
    jobs = [
        (str(path), Job(stage, steps, validate)) for path in recipes for stage in _stages(path, root, batch)
    ]
    for done, (path, job) in enumerate(jobs):
        (stage,) = job.recipe.training.stages
        if advance:
            advance(done, len(jobs), f"{path}, {stage.batch} of {stage.sizes[0]}")
        times = _in_turns(job, rounds)
        about = {"recipe": path, "size_px": str(stage.sizes[0]), "batch": str(stage.batch)}
        store.replace(about, _rows(about, job, times))
    if advance:
        advance(len(jobs), len(jobs), "")
    return store.rows


def _stages(path: str | Path, root: str | Path, batch: int | None) -> Iterator[Recipe]:
    """One recipe for each crop and batch size that a recipe has, its largest crop where it draws one."""
    recipe = config.load(path, overrides={"data.root": str(root)})
    recipe = replace(recipe, training=devices.settled(recipe.training))
    if recipe.objective.name != "supervised":
        raise ValueError(f"{path} has the objective {recipe.objective.name}; give a supervised recipe")
    seen = {(max(s.sizes), batch or s.batch): s for s in recipe.training.stages}
    fold = 0 if recipe.data.fold is None else recipe.data.fold
    for (size, count), stage in seen.items():
        only = replace(stage, sizes=(size,), batch=count, fraction=1.0)
        training = replace(recipe.training, stages=(only,), steps=10**9, epochs=None)
        yield replace(recipe, data=replace(recipe.data, fold=fold), training=training)


def _rows(about: dict[str, str], job: Job, times: dict[str, list[Times]]) -> list[Row]:
    images = job.steps * int(about["batch"])
    rates = {
        way: statistics.median(images / sum(each[part] for part in PARTS) for each in own)
        for way, own in times.items()
    }
    rows: list[Row] = []
    for way, own in times.items():
        row = about | {"model": job.recipe.model.name, "way": way, "rounds": str(len(own))}
        row |= {"precision": "float32" if way == "plain" else job.recipe.training.precision}
        row |= {"steps": str(job.steps), "images_s": f"{rates[way]:.2f}"}
        row |= {"times_as_fast": f"{rates[way] / rates['plain']:.2f}"}
        for part, count in (*((part, images) for part in PARTS), ("validation", job.validate)):
            row[f"{part}_ms"] = f"{1000 * statistics.median(each[part] for each in own) / count:.3f}"
        rows.append(row | circumstances())
    return rows


def _in_turns(job: Job, rounds: int) -> dict[str, list[Times]]:
    """The times of each way, a round after another; the first is left out."""
    with tempfile.TemporaryDirectory() as scratch:
        starts = {way: partial(_worker, way, job, Path(scratch) / "run") for way in WAYS}
        with processes(starts) as ask:
            turns = [{way: ask[way](None) for way in WAYS} for _ in range(1 + rounds)]
    return {way: [turn[way] for turn in turns[1:]] for way in WAYS}


def _worker(way: str, job: Job, out: Path) -> Callable[[None], Times]:
    """What makes a round whenever asked."""
    worker: Worker = Plain(job) if way == "plain" else Ours(job, out)

    def make_round(_: None) -> Times:
        clock = Clock(worker.synchronise)
        for _step in range(job.steps):
            worker.step(clock)
        with clock("validation"):
            worker.validate()
        return clock.spent

    return make_round


class Clock:
    """Adds up where time goes.

    Args:
        synchronise: Waits for the device.
    """

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self.spent: Times = dict.fromkeys((*PARTS, "validation"), 0.0)
        self.synchronise = synchronise

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time what is done inside."""
        self.synchronise()
        began = time.perf_counter()
        yield
        self.synchronise()
        self.spent[part] += time.perf_counter() - began


class Worker(Protocol):
    """A way to train."""

    def step(self, clock: Clock) -> None:
        """Make one step."""

    def validate(self) -> None:
        """Score the validation images and count."""

    def synchronise(self) -> None:
        """Wait for the device."""


class Plain:
    """The plain loop.

    Args:
        job: What to train.
    """

    def __init__(self, job: Job) -> None:
        import torch

        from ismallnet import optim
        from ismallnet.losses import LabelDecouplingLoss
        from ismallnet.models import create_model

        recipe = job.recipe
        (self.stage,) = recipe.training.stages
        self.recipe = recipe
        pairs = [
            data.validation_split(data.load(s.name, recipe.data.root, "train"), 0) for s in recipe.data.sets
        ]
        self.learn = [(learn, id) for learn, _ in pairs for id in learn.ids]
        self.judge = _first(pairs[0][1], job.validate)
        torch.manual_seed(0)
        self.device = device_of(recipe.training.accelerator)
        self.network = create_model(recipe.model.name, **recipe.model.options).to(self.device).train()
        self.criterion = LabelDecouplingLoss(**dataclasses.asdict(recipe.loss))
        self.optimizer = optim.make_optimizer(self.network, recipe.optimizer)
        self.random = np.random.default_rng(0)

    def step(self, clock: Clock) -> None:
        """See `Worker`."""
        import torch

        with clock("batches"):
            chosen = self.random.integers(len(self.learn), size=self.stage.batch)
            maps = np.stack([self._crop(*self.learn[index]) for index in chosen])
            image, *truth = torch.from_numpy(maps).to(self.device).unsqueeze(2).unbind(1)
        with clock("forward"):
            loss = self.criterion(self.network(image), *truth)
        with clock("backward"):
            self.optimizer.zero_grad()
            loss.backward()
        with clock("optimiser"):
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimizer.clip or math.inf)
            self.optimizer.step()

    def _crop(self, dataset: Dataset, id: str) -> NDArray[np.float32]:
        """(4, S, S): a crop of an image and its label maps, mirrored or not; a smaller image is enlarged."""
        from ismallnet.labels import decouple

        sample, size = dataset.read(id), self.stage.sizes[0]
        decoupled = decouple(sample.mask, recipe=self.recipe.labels)
        maps = np.stack([sample.image, sample.mask.astype(np.uint8) * np.uint8(255), *decoupled], axis=2)
        if min(maps.shape[:2]) < size:
            factor = size / min(maps.shape[:2])
            maps = cv2.resize(maps, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        y, x = (int(self.random.integers(side - size + 1)) for side in maps.shape[:2])
        crop = maps[y : y + size, x : x + size, :]
        crop = crop[:, :: 1 - 2 * int(self.random.integers(2))]
        return np.ascontiguousarray(crop.transpose(2, 0, 1), np.float32) / np.float32(255)

    def validate(self) -> None:
        """See `Worker`."""
        from ismallnet.detector import Detector
        from ismallnet.evaluate import evaluate

        detector = Detector.from_model(self.network, name=self.recipe.model.name, device=self.device)
        evaluate(detector, self.judge, bootstrap=0, details=False)
        self.network.train()

    def synchronise(self) -> None:
        """See `Worker`."""
        _synchronise(self.device)


class Ours:
    """The loop of `ismallnet.train`, its parts timed.

    Args:
        job: What to train.
        out: Folder of the run.
    """

    def __init__(self, job: Job, out: Path) -> None:
        from ismallnet import devices
        from ismallnet.train import Trainer

        self.trainer = Trainer(job.recipe, devices.launch(job.recipe.training), out)
        self.trainer.judges = [_first(self.trainer.judges[0], job.validate)]

    def step(self, clock: Clock) -> None:
        """See `Worker`."""
        self.trainer.clock = clock  # type: ignore[method-assign, assignment]
        self.trainer.make_step()

    def validate(self) -> None:
        """See `Worker`."""
        self.trainer.score()

    def synchronise(self) -> None:
        """See `Worker`."""
        _synchronise(str(self.trainer.fabric.device))


def _first(dataset: Dataset, count: int) -> Dataset:
    return dataset.subset(dataset.ids[:count])


def _synchronise(device: str) -> None:
    if device != "cpu":
        import torch

        torch.accelerator.synchronize()


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a page."""
    lines = [
        "# Training speed",
        "",
        "Steps of the plain loop (float32, default memory format, images read, cropped and decoupled one by "
        "one) and of ours, in turns in one run; medians over the rounds. Milliseconds are of one image.",
        "",
        "| recipe | network | crops | way | precision | images/s | times as fast "
        f"| {' | '.join((*PARTS, 'validation'))} |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = " | ".join(row[f"{part}_ms"] for part in (*PARTS, "validation"))
        lines.append(
            f"| {Path(row['recipe']).stem} | {row['model']} | {row['batch']} of {row['size_px']}² "
            f"| {row['way']} | {row['precision']} | {row['images_s']} | {row['times_as_fast']} | {times} |"
        )
    lines += ["", *origins(rows)]
    return "\n".join(lines) + "\n"
