"""The ablation of the compact network as a queue: a finished run is a row, a half-finished one goes on.

Any number of processes work on one queue, each on a run of its own. A run is claimed by a lock on a file in
its folder, which the system takes back from a process that ended, however it did.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ismallnet.benchmark.entrants import facts
from ismallnet.benchmark.store import Row, Store
from ismallnet.benchmark.verdicts import to_markdown
from ismallnet.checkpoint import CONFIG, write_text
from ismallnet.data.layouts import find_layout
from ismallnet.data.loader import Order, Timetable
from ismallnet.detector import load
from ismallnet.evaluate import provenance
from ismallnet.train import LAST, Result, train

if TYPE_CHECKING:
    from ismallnet.benchmark.variants import Run
    from ismallnet.config import Recipe

    Advance = Callable[[int, int, str], None]

FILE, PAGE = "ablation.csv", "ablation.md"
FAILED, LOCK = "failed.txt", ".lock"
KEY = ("variant", "seed")
RATES = ("iou", "niou", "pd", "fa")
OF_DATA = (*RATES, "n", "split_sha256")
"""Columns of every data set, after its name and an underscore: rates of the protocol `standard` on the fold
that judges, as fractions; its number of images; the checksum of its ids."""
_BEFORE = (*KEY, "overrides", "recipe_sha256", "fold", "protocol")
_AFTER = (
    "steps", "images", "parameters", "macs", "minutes", "weights_sha256", "date", "commit", "hardware",
)  # fmt: skip
"""`images` were seen in training, macs are at 256×256."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call did, and what is left of what it was asked for."""

    added: int
    """Rows that this call computed."""
    left: tuple[Run, ...]
    """Without a row: not begun, stopped, failed, or with another process."""
    failed: tuple[str, ...]
    """What went wrong in which of the chosen runs, in this call or an earlier one."""
    page: Path


def ablation(
    plan: Sequence[Run],
    chosen: Sequence[Run] | None = None,
    *,
    out: str | Path,
    runs: str | Path,
    max_minutes: float | None = None,
    advance: Advance | None = None,
) -> Outcome:
    """Train what has no row yet, and write the table and its page at every row.

    The last averaged weights are judged, on the fold of the train lists that the recipe leaves out of the
    training; nothing is selected, and no test list is opened. A run whose loss was no longer finite has the
    message in its folder, in failed.txt, and is not made again while it is there.

    Args:
        plan: All runs of the ablation, from `variants.plan`; those without a row are listed on the page.
        chosen: The runs to make, in this order; all where None.
        out: Folder of ablation.csv and ablation.md; made where absent, gone on with where it has them.
        runs: Folder of the runs' own folders.
        max_minutes: Stop after so much time, with the state of the run that is under way.
        advance: Called after every step with steps of all runs done, steps in all, and what there is to say.

    Raises:
        ValueError: a table of other data sets or of another kind of device, or `max_minutes` not positive.
        FileNotFoundError: the data are not there.
    """
    if max_minutes is not None and max_minutes <= 0:
        raise ValueError(f"max_minutes is {max_minutes}; give a positive number, or none for no limit")
    table, chosen = _Table(plan, Path(out), Path(runs)), tuple(plan if chosen is None else chosen)
    began, added = time.monotonic(), 0
    while True:
        left = None if max_minutes is None else max_minutes - (time.monotonic() - began) / 60
        if left is not None and left <= 0:
            break
        with _claimed(table, chosen) as run:
            if run is None:
                break
            table.require_kind(run)
            recipe = replace(run.recipe, training=replace(run.recipe.training, max_minutes=left))
            step = _about(run, len(chosen) - len(table.missing(chosen)), len(chosen), advance)
            try:
                result = train(recipe, out=Path(runs) / run.name, resume=True, advance=step)
            except FloatingPointError as error:
                write_text(Path(runs) / run.name / FAILED, f"{error}\n")
                continue
            if not result.finished:
                break
            table.add(_row(run, result))
            added += 1
    table.write()
    failed = tuple(f"{run.variant}, seed {run.seed}: {why}" for run, why in table.failed(chosen).items())
    return Outcome(added, tuple(table.missing(chosen)), failed, table.page)


class _Table:
    """The rows on the disk, which other processes add to as well."""

    def __init__(self, plan: Sequence[Run], out: Path, runs: Path) -> None:
        self.plan, self.out, self.runs, self.page = plan, out, runs, out / PAGE
        self._columns = columns(plan[0].recipe)
        self._store()  # a table of other columns is refused before a run is made

    def missing(self, runs: Iterable[Run]) -> list[Run]:
        """The runs that have no row of their recipe."""
        found = {(row["variant"], row["seed"], row["recipe_sha256"]) for row in self._store().rows}
        return [run for run in runs if (run.variant, str(run.seed), run.sha256) not in found]

    def failed(self, runs: Iterable[Run]) -> dict[Run, str]:
        """Those of the missing runs that failed, and why."""
        files = {run: self.runs / run.name / FAILED for run in self.missing(runs)}
        return {run: file.read_text("utf-8").strip() for run, file in files.items() if file.is_file()}

    def pending(self, runs: Iterable[Run]) -> list[Run]:
        """Those of the missing runs that did not fail."""
        missing = self.missing(runs)
        failed = self.failed(missing)
        return [run for run in missing if run not in failed]

    def require_kind(self, run: Run) -> None:
        """Refuse a run on a GPU beside rows of the CPU, and the other way round: they draw other crops.

        Raises:
            ValueError: There are rows of the other kind of device.
        """
        here = _has_gpu(_hardware(run))
        keys = {(each.variant, str(each.seed), each.sha256) for each in self.plan}
        for row in self._store().rows:
            of_plan = (row["variant"], row["seed"], row["recipe_sha256"]) in keys
            if of_plan and _has_gpu(row["hardware"]) != here:
                old, new = ("the CPU", "a GPU") if here else ("a GPU", "the CPU")
                raise ValueError(
                    f"{self.out / FILE} is of runs on {old}, and this one would be on {new}, where a "
                    "seed draws other crops; give another --out and --runs"
                )

    def add(self, row: Row) -> None:
        """Put a row in the place of any other of its variant and seed, and write the page."""
        with _locked(self.out, wait=True):
            store = self._store()
            store.replace({name: row[name] for name in KEY}, [row])
            self._write_page(store)

    def write(self) -> None:
        """Write the page."""
        with _locked(self.out, wait=True):
            self._write_page(self._store())

    def _write_page(self, store: Store) -> None:
        write_text(self.page, to_markdown(self.plan, store.rows, self.failed(self.plan)))

    def _store(self) -> Store:
        return Store(self.out / FILE, self._columns)


def columns(recipe: Recipe) -> tuple[str, ...]:
    """Return the columns of ablation.csv for the data sets of a recipe."""
    names = [find_layout(each.name).name for each in recipe.data.sets]
    return (*_BEFORE, *(f"{name}_{column}" for name in names for column in OF_DATA), *_AFTER)


@contextmanager
def _claimed(table: _Table, runs: Iterable[Run]) -> Iterator[Run | None]:
    """Give the first run that no other process has, for as long as the block lasts; None if there is none."""
    for run in table.pending(runs):
        with _locked(table.runs / run.name) as mine:
            if mine and table.pending([run]):  # it may have been finished a moment ago
                yield run
                return
    yield None


@contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Keep a folder from all other processes that ask; False where another has it and `wait` is not set."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)  # NFS locks what is open for writing
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def _row(run: Run, result: Result) -> Row:
    folder = Path(result.out) / LAST
    detector = load(folder, device="cpu")
    known = facts(detector)
    lists = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["data"]
    sets = len(run.recipe.data.sets)
    learnt, judges = lists[:sets], lists[sets:]
    judged: dict[str, str] = {}
    for judge in judges:
        name = judge["name"]
        judged |= {f"{name}_{rate}": f"{result.last[f'{name}_{rate}']:.6g}" for rate in RATES}
        judged |= {f"{name}_n": str(judge["images"]), f"{name}_split_sha256": judge["split_sha256"]}
    weights = [each.weight for each in run.recipe.data.sets]
    epoch = Order([each["images"] for each in learnt], weights, seed=0).epoch_length
    about = provenance()
    return {
        "variant": run.variant,
        "seed": str(run.seed),
        "overrides": " ".join(f"{key}={value}" for key, value in run.overrides.items()),
        "recipe_sha256": run.sha256,
        "fold": str(run.recipe.data.fold),
        "protocol": "standard",
        **judged,
        "steps": str(result.step),
        "images": str(Timetable.of(run.recipe.training, epoch).at(result.step)[1]),
        "parameters": str(known.parameters),
        "macs": str(known.macs),
        "minutes": f"{result.minutes:.2f}",
        "weights_sha256": str(detector.weights_sha256),
        **{name: str(about[name] or "") for name in ("date", "commit")},
        "hardware": _hardware(run),
    }


def _hardware(run: Run) -> str:
    """What a run here is made on: the GPU after a semicolon, where it is on one."""
    text = str(provenance()["hardware"])
    return text.split("; ")[0] if run.recipe.training.accelerator == "cpu" else text


def _has_gpu(hardware: str) -> bool:
    return "; " in hardware


def _about(run: Run, done: int, total: int, advance: Advance | None) -> Advance | None:
    """Progress within one run as progress within all of them."""
    if advance is None:
        return None
    what = f"{run.variant}, seed {run.seed}"
    return lambda step, steps, text: advance(done * steps + step, total * steps, f"{what}: {text}")
