"""Detection over files: images, stacks and videos in; a folder of pictures, maps and tables out, or nothing.

Reading, detecting and writing go on at once, a frame in each hand: memory holds a few frames, whatever their
number. A TIFF file too large to be held is read by rows, unless the detector has no tiling or tifffile is not
installed. The folder is written beside its place and renamed when it is whole. A file or a frame that cannot
be read is reported and passed over.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ismallnet import pictures as pictures_module
from ismallnet import tables as tables_module
from ismallnet.listing import changes, find_images, list_again, states
from ismallnet.media import Image, ImageError
from ismallnet.pictures import Job, Pictures, plan
from ismallnet.pipeline import Ahead, Behind
from ismallnet.publish import check_replaceable, published_whole, room
from ismallnet.raster import is_large
from ismallnet.streams import Damage, Stream
from ismallnet.tables import COLUMNS, Failure, FrameResult, Record, Tables

if TYPE_CHECKING:
    from ismallnet.detector import Detector
    from ismallnet.large import Found
    from ismallnet.raster import Raster
    from ismallnet.types import Detection

__all__ = ["COLUMNS", "FILES", "DetectReport", "Failure", "FrameResult", "detect_files"]

Kind = Literal["overlay", "mask", "score", "interior", "boundary", "csv", "json", "jsonl", "coco"]
FILES: dict[str, str] = {**pictures_module.FOLDERS, **tables_module.FILES}
"""What can be saved and where in the output folder: see `ismallnet.pictures` and `ismallnet.tables`."""
KEPT = 10_000
"""Frames, failures and warnings of which a report holds all; of longer runs it holds the first."""

Advance = Callable[[int, int, str], None]


@dataclass(slots=True)
class DetectReport:
    """What `detect_files` did."""

    out: Path
    frames: list[FrameResult] = field(default_factory=list)
    """The frames that were read, in the order of the sources: the first `KEPT`."""
    failed: list[Failure] = field(default_factory=list)
    """What could not be read: the first `KEPT`."""
    notes: list[str] = field(default_factory=list)
    """What is doubtful about a file, and how the sources changed on the way: the first `KEPT`."""
    count: int = 0
    """Frames that were read."""
    targets: int = 0
    """Targets in them."""
    failures: int = 0
    """Files and frames that could not be read."""
    left: int = 0
    """Files that other processes of a shared run have still to do."""

    def add(self, record: Record) -> None:
        """Count a record, and keep it among the first."""
        if isinstance(record, Failure):
            self.failures += 1
            if len(self.failed) < KEPT:
                self.failed.append(record)
            return
        self.count += 1
        self.targets += len(record.targets)
        if len(self.frames) < KEPT:
            self.frames.append(record)
        note = f"{record.image}: {record.warning}"
        if record.warning and len(self.notes) < KEPT and note not in self.notes[-1:]:
            self.notes.append(note)


def detect_files(
    sources: Sequence[str | Path],
    detector: Detector,
    *,
    out: str | Path,
    save: Sequence[str] = ("overlay", "csv", "json"),
    range: tuple[float, float] | None = None,
    force: bool = False,
    advance: Advance | None = None,
) -> DetectReport:
    """Find the targets in files and write what was found to a folder.

    Args:
        sources: Files, globs, and folders, as `find_images` takes them.
        detector: From `ismallnet.load`, or any other.
        out: The folder to write. It appears when everything is done, or not at all.
        save: What to write: keys of `FILES`.
        range: Intensities that become 0 and 1; by default as `ismallnet.media` says, file by file.
        force: Replace `out` if an earlier run wrote it; a folder with anything else in it is never replaced.
        advance: Called with the number of frames done, the number of all (a file that is not opened yet
            counts as one), and the name of the file.

    Returns:
        The targets of every frame that could be read, and what could not.

    Raises:
        FileNotFoundError: A source that does not exist, or holds no image.
        FileExistsError: `out` is not empty, without `force`; or it is not from an earlier run.
        OSError: The output cannot be written, as on a full disk; nothing of it is left.
        ValueError: Something to save that does not exist, here or in this detector; or a wrong range.
    """
    check_kinds(save)
    out = Path(os.path.abspath(out))
    check_replaceable(out, FILES.values(), force=force)
    paths = find_images(sources)
    before = states(paths)
    report = DetectReport(out)
    with room(out), published_whole(out) as folder, Tables(folder, save, head(detector)) as tables:

        def add(job: Job, record: Record) -> None:
            del job
            report.add(record)
            tables.add(record)

        jobs = plan_files(paths)
        look(jobs, detector, Pictures(folder, save), add, scratch=folder, range=range, advance=advance)
        report.notes += changes(before, states(list_again(sources)))
        check_replaceable(out, FILES.values(), force=force)  # again: it may be long ago
    return report


def check_kinds(save: Sequence[str]) -> None:
    """Raise a `ValueError` unless all of these can be saved."""
    for kind in save:
        if kind not in FILES:
            raise ValueError(f"unknown output {kind!r}; choose from {', '.join(FILES)}")


def plan_files(paths: Sequence[Path]) -> list[Job]:
    """Name what is saved of each file by its path below the folder that holds them all."""
    return plan(paths, Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths])))


def head(detector: Detector) -> dict[str, Any]:
    """Return what `detections.json` says of the detector and the program."""
    from ismallnet import __version__

    return {
        "ismallnet": __version__,
        "model": detector.name,
        "weights_sha256": detector.weights_sha256,
        "runtime": detector.runtime,
        "precision": detector.precision,
        "decision": repr(detector.rule),
        "tiling": repr(detector.tiling),
        "views": detector.views,
        "confirm": detector.confirm,
    }


class _Begin(NamedTuple):
    """A file is opened."""

    job: Job
    length: int = 1
    many: bool = False
    rate: Fraction | None = None


class _Large(NamedTuple):
    """A file is to be looked at by rows."""

    job: Job


class _Found(NamedTuple):
    """A frame was looked at."""

    image: Image
    detection: Detection


class _End(NamedTuple):
    """A file is done."""

    job: Job


def look(
    jobs: Sequence[Job],
    detector: Detector,
    pictures: Pictures,
    add: Callable[[Job, Record], None],
    *,
    scratch: Path,
    end: Callable[[Job], None] | None = None,
    range: tuple[float, float] | None = None,
    advance: Advance | None = None,
) -> None:
    """Find the targets of files: one thread reads, this one detects, one writes.

    Args:
        jobs: The files, in the order of the records.
        detector: As in `detect_files`.
        pictures: Takes what is saved of the frames, in the writing thread.
        add: Takes every record, in the writing thread.
        scratch: A folder for what is no longer needed in the end.
        end: Called in the writing thread when all of a file is written.
        range: As in `detect_files`.
        advance: As in `detect_files`.
    """
    job = Job(Path(), "")

    def write(item: _Begin | _Found | FrameResult | Failure | _End) -> None:
        nonlocal job
        if isinstance(item, _Begin):
            job = item.job
            pictures.begin(job.name, many=item.many, rate=item.rate)
        elif isinstance(item, _Found):
            pictures.add(*item)
            image, found = item
            add(job, _result(job.path, image.frame, image.pixels.shape, image, found))
        elif isinstance(item, FrameResult):
            add(job, item)
        elif isinstance(item, Failure):
            pictures.miss()
            add(job, item)
        else:
            pictures.end()
            if end:
                end(job)

    done, seen, begun = 0, 0, _Begin(job)
    by_rows = detector.tiling is not None and find_spec("tifffile") is not None
    with Ahead(_read(jobs, range, by_rows=by_rows), _weight) as items, Behind(write, _weight) as writer:
        for left, item in _countdown(items, len(jobs)):
            if isinstance(item, _Begin):
                begun, seen = item, 0
            elif isinstance(item, _End):
                done += max(begun.length, seen)
            else:
                seen += begun.many
            if advance and (isinstance(item, _Begin) or (begun.many and not isinstance(item, _End))):
                advance(done + seen, done + max(begun.length, seen) + left, begun.job.path.name)
            if isinstance(item, _Large):
                within = advance and functools.partial(_advance_within, advance, done, done + 1 + left)
                for record in _look_by_rows(item.job, detector, pictures, range, scratch, within):
                    writer.put(record)
            else:
                writer.put(_Found(item, detector(item)) if isinstance(item, Image) else item)
    if advance:
        advance(done, done, "")


def _advance_within(advance: Advance, done: int, all: int, name: str, part: float) -> None:
    advance(done, all, f"{name} {part:.0%}")


def _look_by_rows(
    job: Job,
    detector: Detector,
    pictures: Pictures,
    range: tuple[float, float] | None,
    scratch: Path,
    advance: Callable[[str, float], None] | None,
) -> Iterator[FrameResult | Failure]:
    """Find the targets of a file that is read by rows; its maps are written on the way."""
    from ismallnet.large import detect_pages

    def tell(part: float) -> None:
        if advance:
            advance(job.path.name, part)

    with tempfile.TemporaryDirectory(dir=scratch, prefix=".score-") as folder:
        score = Path(folder) / "score.tif"
        try:
            found = detect_pages(
                job.path,
                detector,
                functools.partial(pictures.places, job.name),
                range=range,
                scratch=score,
                advance=tell,
            )
        except ImageError as error:
            yield Failure(str(job.path), reason(error, job.path))
            return
    for frame, page in enumerate(found):
        if isinstance(page, ImageError):
            yield Failure(str(job.path), reason(page, job.path), frame)
        else:
            image, answer = page
            yield _result(job.path, frame, image.shape, image, answer)


def _countdown(
    items: Ahead[_Begin | Image | _Large | Failure | _End], files: int
) -> Iterator[tuple[int, _Begin | Image | _Large | Failure | _End]]:
    """Give with every item how many files are not begun."""
    for item in items:
        files -= isinstance(item, _Begin)
        yield files, item


def _read(
    jobs: Sequence[Job], range: tuple[float, float] | None, *, by_rows: bool
) -> Iterator[_Begin | Image | _Large | Failure | _End]:
    """Read the frames of all files, each between a begin and an end; what cannot be read is a failure."""
    for job in jobs:
        path, begun = job.path, False
        if by_rows and is_large(path):
            yield from (_Begin(job), _Large(job), _End(job))
            continue
        try:
            stream = Stream(path, range=range)
            yield _Begin(job, stream.count or 1, stream.count != 1 or stream.rate is not None, stream.rate)
            begun = True
            for item in stream:
                yield Failure(str(path), item.reason, item.frame) if isinstance(item, Damage) else item
        except (OSError, ImageError) as error:
            if not begun:
                yield _Begin(job)
            yield Failure(str(path), reason(error, path))
        yield _End(job)


def _weight(item: _Begin | _Found | Image | _Large | FrameResult | Failure | _End) -> int:
    """Return the bytes of the arrays that an item holds."""
    if isinstance(item, Image):
        return item.pixels.nbytes
    if isinstance(item, _Found):
        found = item.detection
        maps = (found.score, found.mask, found.interior, found.boundary)
        return item.image.pixels.nbytes + sum(0 if values is None else values.nbytes for values in maps)
    return 0


def reason(error: Exception, path: Path) -> str:
    """Say why a file could not be read, without its path, which is named beside it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.removeprefix(f"{path}: ")


def _result(
    path: Path, frame: int, shape: tuple[int, ...], image: Image | Raster, found: Detection | Found
) -> FrameResult:
    height, width = shape
    window = (image.dtype, image.low, image.high, image.rule, image.warning)
    return FrameResult(str(path), frame, height, width, *window, found.threshold, found.targets)
