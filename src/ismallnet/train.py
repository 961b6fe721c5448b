"""The training loop: resident images, a batch a step, now and then a look at the validation fold.

What is trained and by which losses is the objective's; the loop makes the batch, the steps and the files.

Everything random about a step is a function of the recipe's seed and the step's number, so a run that was
killed goes on from its last state to the same weights, bit for bit (on the same kind and number of devices).

A run's folder holds `recipe.yaml`; `state-*/`, to go on from; `last/` and, with validation, `best/`, model
folders for `ismallnet detect` and `evaluate`; `history.csv`, `curves.png`, `tensorboard/`; `result.json`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import ismallnet
from ismallnet import checkpoint, config, data, devices, optim
from ismallnet.catalogue import find_weights
from ismallnet.data import augment
from ismallnet.data.loader import Order, Pool, Timetable, seed_of
from ismallnet.history import History, Tally
from ismallnet.models import create_model
from ismallnet.objectives import Objective, Part, Turn, make_objective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ismallnet.config import Recipe
    from ismallnet.data import Dataset
    from ismallnet.data.augment import Batch

Advance = Callable[[int, int, str], None]
"""Told after every step: steps done, steps in all, what there is to say."""
RECIPE, RESULT, LAST, BEST = "recipe.yaml", "result.json", "last", "best"
_INIT, _AUGMENT, _LAYERS = 1, 2, 3  # purposes of the random streams; 0 is the order of the images


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    out: str
    step: int
    """Number of steps done."""
    finished: bool
    """False: it stopped at `max_minutes`."""
    minutes: float
    """Time of the run, all its parts together."""
    shares: dict[str, float]
    """Shares of that time that went into making batches, validation and saving."""
    last: dict[str, float]
    """Validation of the last weights; empty without validation."""
    best: dict[str, float]
    """Validation of the best weights, with their step."""


def train(recipe: Recipe, *, out: str | Path, resume: bool = False, advance: Advance | None = None) -> Result:
    """Train a network by a recipe.

    Only train lists are opened. With `data.fold` set, that fold of each is left out of the training and
    judges the averaged weights now and then; without it nothing is selected: the last ones are the result.

    Args:
        recipe: What to do.
        out: Folder of the run; made once the data and all that the recipe names were found.
        resume: Go on with the run that is there, from its last state; start where there is none.
        advance: Called after every step, on the first process.

    Raises:
        FileExistsError: `out` holds something and `resume` is not set.
        ValueError: a batch that the devices cannot share equally, a recipe without a length, an objective
            that cannot train the network, crops or a batch too small for it, or another recipe than that
            of the run to be resumed.
        FloatingPointError: the loss is no longer finite.
    """
    recipe = dataclasses.replace(recipe, training=devices.settled(recipe.training))
    fabric = devices.launch(recipe.training)
    out = Path(out)
    if fabric.is_global_zero:
        _check_out(out, recipe, resume=resume)
    trainer = Trainer(recipe, fabric, out)
    try:
        finished = trainer.run(advance)
    finally:
        trainer.history.close()
    result = Result(
        out=str(out),
        step=trainer.step,
        finished=finished,
        minutes=trainer.minutes,
        shares={name: spent / 60 / max(trainer.minutes, 1e-9) for name, spent in trainer.spent.items()},
        last=trainer.last,
        best=trainer.best,
    )
    if fabric.is_global_zero:
        checkpoint.write_text(out / RESULT, json.dumps(dataclasses.asdict(result), indent=2) + "\n")
    return result


class Trainer:
    """One run on this process: what it works with, and what changes from step to step."""

    def __init__(self, recipe: Recipe, fabric: Fabric, out: Path) -> None:
        self.recipe, self.fabric, self.out = recipe, fabric, out
        learn, self.judges = _datasets(recipe.data)
        self.sources = [*learn, *self.judges]
        offsets = [s.mask_offset for s, part in zip(recipe.data.sets, learn, strict=True) for _ in part.ids]
        samples = chain.from_iterable(learn)
        self.pool = Pool.of(samples, recipe=recipe.labels, device=fabric.device, offsets=offsets)
        weights = [chosen.weight for chosen in recipe.data.sets]
        self.order = Order([len(d) for d in learn], weights, seed=recipe.training.seed)
        self.table = Timetable.of(recipe.training, self.order.epoch_length)
        for stage in self.table.stages:
            devices.check_share(stage.batch, fabric.world_size)
        self.objective = _objective(recipe, fabric)
        self.network = self.objective.network
        self.average = optim.Average(self.network, decay=recipe.training.ema)
        modules = self.objective.parts()
        optimizers = {part: optim.make_optimizer(m, recipe.optimizer) for part, m in modules.items()}
        self.step, self.minutes = 0, 0.0
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.spent = dict.fromkeys(("batches", "validation", "saving"), 0.0)
        if fabric.is_global_zero:
            out.mkdir(parents=True, exist_ok=True)
            checkpoint.write_text(out / RECIPE, config.to_yaml(recipe))
        fabric.barrier()
        self._resume(optimizers)
        self.parts, self.optimizers = {}, {}
        for part, module in modules.items():
            if recipe.training.compile:
                module.compile()
            model, self.optimizers[part] = fabric.setup(module, optimizers[part])
            self.parts[part] = Part(module, model, partial(fabric.no_backward_sync, model))
        self.history = History(out, self._columns(), step=self.step, active=fabric.is_global_zero)
        self.tally = Tally(fabric.device, self.parts)

    def run(self, advance: Advance | None) -> bool:
        """Make the steps that are left; False where the time was up before."""
        training, text = self.recipe.training, ""
        began = saved = time.perf_counter()
        earlier = self.minutes

        def tick() -> None:
            self.minutes = earlier + (time.perf_counter() - began) / 60

        while self.step < self.table.steps:
            self.make_step()
            tick()
            done = self.step == self.table.steps
            stop = False
            if done or self.step % training.log_every == 0:
                text = self._log()
                stop = self._is_time_up(self.minutes - earlier)
            if self.judges and (done or self.step % training.validate_every == 0):
                self._validate()
                tick()
            idle = time.perf_counter() - saved
            if done or stop or self.step % training.save_every == 0 or idle > 60 * training.save_minutes:
                self._save()
                tick()
                saved = time.perf_counter()
            if advance is not None and self.fabric.is_global_zero:
                advance(self.step, self.table.steps, text)
            if stop and not done:
                return False
        return True

    def make_step(self) -> None:
        """Make a batch and step every part."""
        recipe, table = self.recipe, self.table
        epoch = table.epoch(self.step)
        factor = optim.rate(recipe.schedule, self.step, table.steps, epoch=epoch, epochs=table.epochs)
        self.rate = recipe.optimizer.lr * factor
        for part, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rate * self.objective.factor(part)
        with self.clock("batches"):
            batch = self._batch()
        torch.manual_seed(seed_of(recipe.training.seed, _LAYERS, self.step, self.fabric.global_rank))
        self._set_mode(table.at(self.step)[0].batch_norm)
        losses: dict[str, Tensor] = {}
        norms: list[Tensor] = []
        logits: Tensor | None = None
        turns = self.objective.turns(self.parts, batch, self.step / table.steps)
        while turn := self._next(turns):
            losses[turn.part] = turn.loss.detach()
            norms.append(self._take(turn))
            logits = logits if turn.logits is None else turn.logits.detach()
        self.step += 1
        with self.clock("optimiser"):
            self.average.update(self.network, self.step)
        self.seen = batch, logits
        self.tally.add(losses, torch.stack(norms).norm(), *self.seen)

    def _next(self, turns: Iterator[Turn]) -> Turn | None:
        with self.clock("forward"):
            return next(turns, None)

    def _take(self, turn: Turn) -> Tensor:
        """Step a part by its loss; the norm of its gradient."""
        optimizer = self.optimizers[turn.part]
        with self.clock("backward"):
            optimizer.zero_grad()
            self.fabric.backward(turn.loss)
        with self.clock("optimiser"):
            weights = self.parts[turn.part].module.parameters()
            norm = nn.utils.clip_grad_norm_(weights, self.recipe.optimizer.clip or math.inf)
            optimizer.step()
        return norm

    def _batch(self) -> Batch:
        """This process's part of the step's batch."""
        recipe, fabric = self.recipe, self.fabric
        stage, position = self.table.at(self.step)
        seed = seed_of(recipe.training.seed, _AUGMENT, self.step)
        generator = torch.Generator(fabric.device).manual_seed(seed)
        size = stage.sizes[seed % len(stage.sizes)]
        index = self.order.take(position, stage.batch).to(fabric.device)
        plan = augment.draw(self.pool, index, size, recipe.augment, generator)
        share = stage.batch // fabric.world_size
        plan = plan.part(slice(share * fabric.global_rank, share * (fabric.global_rank + 1)))
        soft = recipe.augment.soft_mask or recipe.augment.mode == "paper"
        return augment.cut(self.pool, plan, size, soft_mask=soft)

    def _set_mode(self, batch_norm: str) -> None:
        self.objective.train()
        if batch_norm == "frozen":
            for module in self.objective.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _log(self) -> str:
        """Close a stretch of steps: a row of the history, a line for the progress bar."""
        row = self.tally.close(self.fabric.world_size)
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss became {row['loss']} before step {self.step}; lower optimizer.lr or set "
                f"optimizer.clip. The last state in {self.out} may be from before it"
            )
        epoch = self.table.at(self.step - 1)[1] / self.table.epoch_length
        self.history.add({"step": self.step, "epoch": epoch, "minutes": self.minutes, "lr": self.rate, **row})
        iou = f"IoU {row['iou']:.3f} · " if "iou" in row else ""
        text = f"loss {row['loss']:.3f} · {iou}{row['images_s']:.0f} images/s"
        return text + (f" · val {self.last['val_iou']:.3f}" if self.last else "")

    def _is_time_up(self, minutes: float) -> bool:
        limit = self.recipe.training.max_minutes
        return limit is not None and bool(self.fabric.broadcast(minutes >= limit))

    def _validate(self) -> None:
        """Score the validation folds by the averaged weights; keep those weights where they are the best."""
        if not self.fabric.is_global_zero:
            return
        with self.clock("validation"):
            row = self.score()
        self.history.add({"step": self.step, **row})
        self.last = {"step": self.step, **row}
        if row["val_iou"] > self.best.get("val_iou", -1):
            self.best = self.last
            self._save_model(BEST)
        self.tally.restart()

    def score(self) -> dict[str, float]:
        """Rates of the averaged weights on the validation folds, and `val_iou`: the mean pooled IoU."""
        from ismallnet.detector import Detector
        from ismallnet.evaluate import evaluate

        detector = Detector.from_model(
            self.average.module,
            name=self.recipe.model.name,
            device=str(self.fabric.device),
            precision="bf16" if self.recipe.training.precision == "bf16" else "float32",
        )
        row: dict[str, float] = {}
        for fold in self.judges:
            report = evaluate(detector, fold, bootstrap=0, details=False)
            row |= {f"{fold.name}_{metric}": report.rates.overall[metric].value for metric in _VALIDATED}
        return {**row, "val_iou": sum(row[f"{fold.name}_iou"] for fold in self.judges) / len(self.judges)}

    def _save(self) -> None:
        """Write the model of this moment and all that is needed to go on."""
        if not self.fabric.is_global_zero:
            return
        with self.clock("saving"):
            self._save_model(LAST)
            groups = {"objective": self.objective.state_dict(), "average": self.average.module.state_dict()}
            groups |= {_memory(part): optim.state_tensors(o) for part, o in self.optimizers.items()}
            tensors = {f"{group}.{key}": t for group, values in groups.items() for key, t in values.items()}
            info = {name: getattr(self, name) for name in ("minutes", "last", "best", "spent")}
            checkpoint.save_state(self.out, checkpoint.State(self.step, tensors, info))
            batch, logits = self.seen
            panels = [batch.image, batch.target, *([] if logits is None else [logits.sigmoid()])]
            self.history.picture("crop", self.step, [p[0, 0].float().cpu().numpy() for p in panels])
        self.tally.restart()

    def _save_model(self, folder: str) -> None:
        recipe = self.recipe
        keys = ("name", "split", "split_sha256")
        data = [{"images": len(s), **{key: getattr(s, key) for key in keys}} for s in self.sources]
        metadata = {
            "step": self.step,
            "weights": "average" if recipe.training.ema else "last",
            "validation": self.best if folder == BEST else self.last,
            "data": data,
            "recipe": config.to_dict(recipe),
            "versions": {"ismallnet": ismallnet.__version__, "torch": torch.__version__},
        }
        model = self.average.module
        name, options = recipe.model.name, recipe.model.options
        checkpoint.save_model(self.out / folder, model, name=name, options=options, metadata=metadata)

    def _resume(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """Take up the run's newest state, if there is one."""
        state = checkpoint.load_state(self.out)
        if state is None:
            return
        groups: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, tensor in state.tensors.items():
            group, name = key.split(".", 1)
            groups[group][name] = tensor
        self.objective.load_state_dict(groups["objective"])
        self.average.module.load_state_dict(groups["average"])
        for part, optimizer in optimizers.items():
            optim.restore(optimizer, groups[_memory(part)])
        self.step = state.step
        for name, value in state.info.items():
            setattr(self, name, value)

    def _columns(self) -> list[str]:
        names = ["step", "epoch", "minutes", "lr", "loss", "iou", "gradient", "images_s"]
        names += [f"loss_{part}" for part in self.parts if len(self.parts) > 1]
        names += [f"{d.name}_{metric}" for d in self.judges for metric in _VALIDATED]
        return [*names, "val_iou"] if self.judges else names

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Time a part of the run. Those of a step but the batches are not: a GPU has not done them yet."""
        began = time.perf_counter()
        yield
        if name in self.spent:
            self.spent[name] += time.perf_counter() - began


_VALIDATED = ("iou", "niou", "pd", "fa")


def _datasets(chosen: config.Data) -> tuple[list[Dataset], list[Dataset]]:
    """The sets to learn from and, where a fold is chosen, those that judge."""
    sets = [data.load(entry.name, chosen.root, "train") for entry in chosen.sets]
    if chosen.fold is None:
        return sets, []
    pairs = [data.validation_split(entry, chosen.fold) for entry in sets]
    return [learn for learn, _ in pairs], [judge for _, judge in pairs]


def _objective(recipe: Recipe, fabric: Fabric) -> Objective:
    """All that is trained, with its first weights, on the device."""
    torch.manual_seed(seed_of(recipe.training.seed, _INIT))
    network = create_model(recipe.model.name, **recipe.model.options)
    if recipe.model.weights is not None:
        _start_from(network, recipe.model.weights)
    synced = fabric.world_size > 1 and fabric.device.type == "cuda"
    objective = make_objective(network, recipe, shares=1 if synced else fabric.world_size)
    if synced:
        objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)  # type: ignore[no-untyped-call]
    layout = torch.channels_last if recipe.training.channels_last else torch.contiguous_format
    return objective.to(fabric.device, memory_format=layout)  # type: ignore[call-overload,no-any-return]


def _memory(part: str) -> str:
    """The name in a state of what a part's optimiser remembers."""
    return f"optimizer-{part}"


def _start_from(network: nn.Module, weights: str) -> None:
    """Give a network the weights of a model folder."""
    other, saved = checkpoint.load_model(folder := find_weights(weights))
    try:
        network.load_state_dict(other.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"model.weights: {folder} holds {saved.name}, another network than the recipe's; give the recipe "
            f"the same name and its options, {dict(saved.options)}"
        ) from error


def _check_out(out: Path, recipe: Recipe, *, resume: bool) -> None:
    """Refuse a folder that holds something, unless it is the run to go on with."""
    if out.exists() and any(out.iterdir()):
        if not resume:
            raise FileExistsError(
                f"{out} is not empty; add --resume to go on with its run, or choose another --out"
            )
        if (out / RECIPE).exists():
            _check_same(config.load(out / RECIPE), recipe, out)


def _check_same(before: Recipe, now: Recipe, out: Path) -> None:
    old, new = (config.to_dict(config.decisive(recipe)) for recipe in (before, now))
    for part in old:
        if old[part] != new[part]:
            raise ValueError(
                f"{out} was begun with {part} {old[part]}, and is to go on with {new[part]}; "
                f"resume with {out / RECIPE}, or start a new run"
            )
