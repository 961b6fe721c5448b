"""Detection shared out over processes or machines on one file system; the result is that of one process.

All that is unfinished lies in `.OUT.shared` beside the output folder OUT:

    plan.json          the files in their order, and the settings: made by the first process, read by all
    records/N.jsonl    what was found in file N; it is there when the file is done, pictures too
    tree/              the pictures and maps, as OUT will hold them

The process of rank r takes the files whose number leaves the rest r by the number of processes, and of them
those without a record. Who finds every record there, after its own share, folds them into the tables and
renames `tree` to OUT. So a process may end anywhere, be killed too: the same command, by any number of
processes, then goes on where it was. Two that merge at once write the same bytes, and one of their renames
succeeds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ismallnet.detect import FILES as OURS
from ismallnet.detect import Advance, DetectReport, check_kinds, head, look, plan_files
from ismallnet.listing import changes, find_images, states
from ismallnet.pictures import Job, Pictures
from ismallnet.publish import MARKER, check_replaceable, make_beside, publish, room
from ismallnet.tables import Record, Tables, from_line, to_line

if TYPE_CHECKING:
    from ismallnet.detector import Detector


class Place(NamedTuple):
    """Which of how many processes this one is."""

    rank: int
    world: int


_LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
"""The variables of torchrun and of SLURM."""


def find_place(environ: Mapping[str, str]) -> Place:
    """Read from the environment which process this is: the only one where no launcher says otherwise.

    Raises:
        ValueError: The variables are no numbers, or make no sense together.
    """
    for rank, world in _LAUNCHERS:
        if rank in environ and world in environ:
            try:
                place = Place(int(environ[rank]), int(environ[world]))
            except ValueError:
                place = Place(-1, 0)
            if not 0 <= place.rank < place.world:
                raise ValueError(
                    f"{rank}={environ[rank]!r} and {world}={environ[world]!r} are no place in a group: give "
                    f"0 <= {rank} < {world}, or unset both"
                )
            return place
    return Place(0, 1)


def take_device(environ: Mapping[str, str]) -> None:
    """Make the accelerator that the launcher means for this process the current one; nothing without any."""
    import torch

    local = next((environ[name] for name in ("LOCAL_RANK", "SLURM_LOCALID") if name in environ), "0")
    if count := torch.accelerator.device_count():
        torch.accelerator.set_device_index(int(local) % count)


def is_shared(place: Place, out: str | Path) -> bool:
    """Whether there are several processes, or an unfinished shared run to go on with."""
    if place.world > 1:
        return True
    with contextlib.suppress(PermissionError):  # writing there will say so
        return (_work(Path(os.path.abspath(out))) / "plan.json").is_file()
    return False


def detect_shared(
    sources: Sequence[str | Path],
    detector: Detector,
    *,
    place: Place,
    out: str | Path,
    save: Sequence[str] = ("overlay", "csv", "json"),
    range: tuple[float, float] | None = None,
    force: bool = False,
    advance: Advance | None = None,
) -> DetectReport:
    """Do one process's share of what `ismallnet.detect.detect_files` does, and the merge if it is the last.

    Args:
        sources: As in `detect_files`; the same for all processes.
        detector: As in `detect_files`; the same for all processes.
        place: Which process this is.
        out: As in `detect_files`; on a file system that all processes see.
        save: As in `detect_files`.
        range: As in `detect_files`.
        force: As in `detect_files`. A finished run of the same files and settings is not done again.
        advance: As in `detect_files`, of the share.

    Returns:
        Of the whole where this process merged, or everything was done; else of its share, with the number of
        files that are `left` to others.

    Raises:
        ValueError: An unfinished run with other settings is in the way; or as `detect_files`.
        OSError: As `detect_files`; what is finished stays for the next start.
    """
    check_kinds(save)
    out = Path(os.path.abspath(out))
    work = _work(out)
    _tidy(work, out)
    plan = _Plan.make(_list(sources, work), detector, save, range)
    with room(out, left=f"what is finished stays in {work} for the next start"):
        if not (work / "plan.json").is_file() and _is_finished(out, plan):
            return DetectReport(out, notes=[f"{out} holds this run, finished; delete it to run again"])
        check_replaceable(out, OURS.values(), force=force)
        make_beside(out, work.name, exist_ok=True)
        agreed = plan.agree(work)
        if plan.files and not plan.paths() & agreed.paths():
            raise ValueError(
                f"{work} is an unfinished run of other files: finish that one by its own command, or delete "
                "the folder"
            )
        jobs = plan_files([Path(path) for path, *_ in agreed.files])
        records = _Records(work / "records", jobs)
        mine = [job for n, job in enumerate(jobs) if n % place.world == place.rank and not records.has(job)]
        report = DetectReport(out)

        def add(job: Job, record: Record) -> None:
            report.add(record)
            records.add(job, record)

        pictures = Pictures(work / "tree", save)
        look(mine, detector, pictures, add, scratch=work, end=records.end, range=range, advance=advance)
        late = changes(agreed.states(), states(_list(sources, work)))
        report.left = sum(not records.has(job) for job in jobs)
        if not report.left:
            try:
                check_replaceable(out, OURS.values(), force=force)  # again: it was long ago
                report = _merge(work, jobs, records, save, head(detector), agreed, out)
            except (FileNotFoundError, FileExistsError):
                if not _is_finished(out, agreed, wait_s=5):  # else another process has merged meanwhile
                    raise
        report.notes += late
    return report


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a shared run does."""

    settings: dict[str, Any]
    files: list[list[Any]]
    """Path, bytes and time of the last change of each."""

    @classmethod
    def make(
        cls,
        paths: Sequence[Path],
        detector: Detector,
        save: Sequence[str],
        range: tuple[float, float] | None,
    ) -> _Plan:
        settings = {**head(detector), "save": sorted(set(save)), "range": range and list(map(float, range))}
        return cls(settings, [[path, *state] for path, state in states(paths).items()])

    def agree(self, work: Path) -> _Plan:
        """Make this the plan of all if there is none, and return the plan of all.

        Raises:
            ValueError: It has other settings.
        """
        path = work / "plan.json"
        (work / "records").mkdir(parents=True, exist_ok=True)
        (work / "tree").mkdir(exist_ok=True)
        (work / "tree" / MARKER).touch()
        if not path.is_file():
            with tempfile.NamedTemporaryFile("w", dir=work, encoding="utf-8") as file:
                file.write(self.text())
                file.flush()
                with contextlib.suppress(FileExistsError):
                    os.link(file.name, path)  # unlike a rename, never over another's
        agreed = _Plan(**json.loads(path.read_text("utf-8")))
        for key, value in self.settings.items():
            if agreed.settings.get(key) != value:
                raise ValueError(
                    f"{work} is an unfinished run with {key} {agreed.settings.get(key)!r}, and this one has "
                    f"{value!r}: finish that one by its own command, or delete the folder"
                )
        return agreed

    def paths(self) -> set[str]:
        return {path for path, *_ in self.files}

    def text(self) -> str:
        return json.dumps({"settings": self.settings, "files": self.files}, ensure_ascii=False)

    def digest(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()

    def states(self) -> dict[str, tuple[int, int]]:
        return {path: (size, time_ns) for path, size, time_ns in self.files}


class _Records:
    """What was found, a file of lines an input file; each appears whole."""

    def __init__(self, folder: Path, jobs: Sequence[Job]) -> None:
        self._paths = {job.name: folder / f"{number:06d}.jsonl" for number, job in enumerate(jobs)}
        self._file: IO[str] | None = None

    def has(self, job: Job) -> bool:
        """Whether the file is done."""
        return self._paths[job.name].is_file()

    def add(self, job: Job, record: Record) -> None:
        """Keep a record of the file at hand."""
        if self._file is None:
            self._file = self._partial(job).open("w", encoding="utf-8")  # closed by `end`
        self._file.write(to_line(record) + "\n")

    def end(self, job: Job) -> None:
        """The file is done."""
        if self._file:
            self._file.close()
        self._file = None
        self._partial(job).replace(self._paths[job.name])

    def read(self, job: Job) -> Iterator[Record]:
        """Give what was found in a file that is done."""
        with self._paths[job.name].open(encoding="utf-8") as file:
            yield from map(from_line, file)

    def _partial(self, job: Job) -> Path:
        return self._paths[job.name].with_suffix(f".{platform.node()}-{os.getpid()}")


def _merge(
    work: Path,
    jobs: Sequence[Job],
    records: _Records,
    save: Sequence[str],
    first: Mapping[str, Any],
    plan: _Plan,
    out: Path,
) -> DetectReport:
    """Fold all records into the tables, in the order of the files, and publish the whole."""
    report, tree = DetectReport(out), work / "tree"
    with tempfile.TemporaryDirectory(dir=work, prefix="merge-", ignore_cleanup_errors=True) as name:
        fresh = Path(name)
        with Tables(fresh, save, first) as tables:
            for job in jobs:
                for record in records.read(job):
                    tables.add(record)
                    report.add(record)
        (fresh / MARKER).write_text(plan.digest(), "utf-8")
        for file in fresh.iterdir():
            file.replace(tree / file.name)
    publish(tree, out)
    shutil.rmtree(work, ignore_errors=True)
    return report


def _list(sources: Sequence[str | Path], work: Path) -> list[Path]:
    """List the files; none where a source is gone that the plan knows: reading will say so."""
    try:
        return find_images(sources)
    except FileNotFoundError:
        if (work / "plan.json").is_file():
            return []
        raise


def _work(out: Path) -> Path:
    return out.with_name(f".{out.name}.shared")


def _tidy(work: Path, out: Path) -> None:
    """Remove what a process that was killed after it had published left behind."""
    try:
        old = _Plan(**json.loads((work / "plan.json").read_text("utf-8")))
    except OSError:
        return
    if _is_finished(out, old):
        shutil.rmtree(work, ignore_errors=True)


def _is_finished(out: Path, plan: _Plan, *, wait_s: float = 0) -> bool:
    """Whether the folder is that of the plan, or becomes it within some time."""
    end = time.monotonic() + wait_s
    while True:
        with contextlib.suppress(OSError):
            if (out / MARKER).read_text("utf-8") == plan.digest():
                return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)
