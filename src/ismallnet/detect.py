"""Detection over files: images in, one folder of pictures, maps and tables out, all of it or nothing.

The folder is written beside its place and renamed when it is whole. A file that cannot be read is reported
and passed over.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from ismallnet.draw import overlay
from ismallnet.media import SUFFIXES, Image, ImageError, RangeWarning, Rule, frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.detector import Detector
    from ismallnet.types import Detection, Target

Kind = Literal["overlay", "mask", "score", "interior", "boundary", "csv", "json", "coco"]
FILES: dict[Kind, str] = {
    "overlay": "overlay",
    "mask": "mask",
    "score": "score",
    "interior": "interior",
    "boundary": "boundary",
    "csv": "detections.csv",
    "json": "detections.json",
    "coco": "coco.json",
}
"""What can be saved and where in the output folder: the first five are folders with a file an image.

Overlays and masks (0 and 255) are 8-bit PNG; score, interior and boundary are float32 TIFF, unaltered.
"""
COLUMNS = ("image", "frame", "id", "x0", "y0", "x1", "y1", "x", "y", "area", "peak", "mean")
"""The columns of `detections.csv`, one row a target; frame counts from 0, id from 1 as in the overlay."""
_MARKER = ".ismallnet-detect"


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What was found in one image, or in one page of a file of several."""

    image: str
    """The file."""
    frame: int
    """Page of the file, from 0."""
    height: int
    width: int
    dtype: str
    """The file's own type."""
    low: float
    high: float
    rule: Rule
    """The intensity range that was mapped to [0, 1], and where it came from; see `ismallnet.media`."""
    warning: str
    """What is doubtful about the range; empty where nothing is."""
    threshold: float
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be read."""

    image: str
    reason: str


@dataclass(frozen=True, slots=True)
class DetectReport:
    """What `detect_files` did."""

    out: Path
    frames: tuple[FrameResult, ...]
    """Every image that was read, in the order of the sources."""
    failed: tuple[Failure, ...]


def detect_files(
    sources: Sequence[str | Path],
    detector: Detector,
    *,
    out: str | Path,
    save: Sequence[Kind] = ("overlay", "csv", "json"),
    range: tuple[float, float] | None = None,
    force: bool = False,
    advance: Callable[[int, int, str], None] | None = None,
) -> DetectReport:
    """Find the targets in files and write what was found to a folder.

    Args:
        sources: Files, globs, and folders, as `find_images` takes them.
        detector: From `ismallnet.load`, or any other.
        out: The folder to write. It appears when everything is done, or not at all.
        save: What to write: keys of `FILES`.
        range: Intensities that become 0 and 1; by default as `ismallnet.media` says, file by file.
        force: Replace `out` if an earlier run wrote it; a folder with anything else in it is never replaced.
        advance: Called with the number of files done, the number of all, and the name of the file.

    Returns:
        The targets of every image that could be read, and the files that could not.

    Raises:
        FileNotFoundError: A source that does not exist, or holds no image.
        FileExistsError: `out` is not empty, without `force`; or it is not from an earlier run.
        ValueError: Something to save that does not exist, here or in this detector; or a wrong range.
    """
    for kind in save:
        if kind not in FILES:
            raise ValueError(f"unknown output {kind!r}; choose from {', '.join(FILES)}")
    out = Path(os.path.abspath(out))
    _check_replaceable(out, force)
    paths = find_images(sources)
    common = Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))
    results: list[FrameResult] = []
    failed: list[Failure] = []
    with _published_whole(out) as folder:
        names: set[str] = set()
        for done, path in enumerate(paths):
            if advance:
                advance(done, len(paths), path.name)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RangeWarning)  # it is in the result
                    images = frames(path, range=range)
            except (OSError, ImageError) as error:
                failed.append(Failure(str(path), reason(error, path)))
                continue
            stem = Path(os.path.abspath(path)).relative_to(common).with_suffix("")
            first, second = next(images), next(images, None)
            for frame, image in enumerate((first,) if second is None else chain((first, second), images)):
                found = detector(image)
                results.append(_result(path, frame, image, found))
                name = _unused(str(stem if second is None else stem / f"{frame:04d}"), names)
                _save_maps(folder, name, save, image, found)
        _save_tables(folder, save, detector, results, failed)
        if advance:
            advance(len(paths), len(paths), "")
    return DetectReport(out, tuple(results), tuple(failed))


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """List the files that sources stand for, each once, in the order of the sources.

    A file stands for itself, whatever its suffix. A folder stands for the images directly inside, in the
    order of their names: files with one of `SUFFIXES`, hidden ones left out. A glob stands for the images it
    matches; ``**`` goes into folders.

    Raises:
        FileNotFoundError: A source that does not exist, or holds no image.
    """
    found: dict[str, Path] = {}
    for source in sources:
        path = Path(source)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = _images_among(path.iterdir())
            if not files:
                raise FileNotFoundError(
                    f"no {', '.join(SUFFIXES)} file in {path}; for its folders give '{path / '**' / '*'}'"
                )
        elif glob.has_magic(str(source)):
            files = _images_among(Path(match) for match in glob.glob(str(source), recursive=True))
            if not files:
                raise FileNotFoundError(f"{source} matches no {', '.join(SUFFIXES)} file")
        else:
            raise FileNotFoundError(f"no file or folder {source}")
        found.update({os.path.abspath(file): file for file in files})
    if not found:
        raise FileNotFoundError("nothing to detect in; give files, folders or globs")
    return list(found.values())


def _images_among(paths: Iterator[Path]) -> list[Path]:
    ours = (p for p in paths if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
    return sorted(ours)


def reason(error: Exception, path: Path) -> str:
    """Say why a file could not be read, without its path, which is named beside it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.removeprefix(f"{path}: ")


def _result(path: Path, frame: int, image: Image, found: Detection) -> FrameResult:
    height, width = image.pixels.shape
    window = (image.dtype, image.low, image.high, image.rule, image.warning)
    return FrameResult(str(path), frame, height, width, *window, found.threshold, found.targets)


def _unused(name: str, names: set[str]) -> str:
    """Return the name, or the name with a number where a file has it already (case counts on no system)."""
    number, candidate = 1, name
    while candidate.casefold() in names:
        number += 1
        candidate = f"{name}_{number}"
    names.add(candidate.casefold())
    return candidate


def _save_maps(folder: Path, name: str, save: Sequence[Kind], image: Image, found: Detection) -> None:
    """Write the pictures and maps of one image."""
    if "overlay" in save:
        _write(folder / FILES["overlay"] / f"{name}.png", overlay(image.pixels, found.targets))
    if "mask" in save:
        _write(folder / FILES["mask"] / f"{name}.png", found.mask.astype(np.uint8) * 255)
    maps: dict[Kind, NDArray[np.float32] | None] = {
        "score": found.score,
        "interior": found.interior,
        "boundary": found.boundary,
    }
    for kind, values in maps.items():
        if kind not in save:
            continue
        if values is None:
            raise ValueError(f"this detector has no {kind} map; leave {kind} out of what is saved")
        _write(folder / FILES[kind] / f"{name}.tif", values)


def _write(path: Path, picture: NDArray[Any]) -> None:
    """Encode by the suffix and write; unlike cv2.imwrite, paths of any script and an error where it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())


def _save_tables(
    folder: Path, save: Sequence[Kind], detector: Detector, results: list[FrameResult], failed: list[Failure]
) -> None:
    """Write what is one file for all images."""
    if "csv" in save:
        with (folder / FILES["csv"]).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for result in results:
                for number, target in enumerate(result.targets, 1):
                    cells = (f"{v:.6g}" if isinstance(v, float) else v for v in asdict(target).values())
                    table.writerow((result.image, result.frame, number, *cells))
    if "json" in save:
        _write_json(folder / FILES["json"], _everything(detector, results, failed))
    if "coco" in save:
        _write_json(folder / FILES["coco"], _coco(results))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _everything(detector: Detector, results: list[FrameResult], failed: list[Failure]) -> dict[str, Any]:
    """Return the content of `detections.json`."""
    from ismallnet import __version__

    images = []
    for result in results:
        fields = asdict(result)
        window = {name: fields.pop(name) for name in ("low", "high", "rule", "warning")}
        targets = [{"id": number, **target} for number, target in enumerate(fields.pop("targets"), 1)]
        images.append({**fields, "range": window, "targets": targets})
    return {
        "ismallnet": __version__,
        "model": detector.name,
        "weights_sha256": detector.weights_sha256,
        "runtime": detector.runtime,
        "precision": detector.precision,
        "decision": repr(detector.rule),
        "images": images,
        "failed": [asdict(failure) for failure in failed],
    }


def _coco(results: list[FrameResult]) -> dict[str, Any]:
    """Return a COCO data set whose annotations carry a score, the peak, so that they serve as results too."""
    images = [
        {"id": n, "file_name": r.image, "frame": r.frame, "width": r.width, "height": r.height}
        for n, r in enumerate(results, 1)
    ]
    found = [(n, target) for n, result in enumerate(results, 1) for target in result.targets]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": 1,
            "bbox": [t.x0, t.y0, t.x1 - t.x0, t.y1 - t.y0],
            "area": t.area,
            "iscrowd": 0,
            "score": t.peak,
        }
        for number, (image, t) in enumerate(found, 1)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "target"}]}


def _check_replaceable(out: Path, force: bool) -> None:
    """Raise unless `out` is missing, empty, or (with force) an earlier run's and nothing else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file; give a folder that does not exist yet")
    if not force:
        raise FileExistsError(
            f"{out} exists and is not empty; give another, or replace it with force=True (--force)"
        )
    foreign = {entry.name for entry in out.iterdir()} - {_MARKER, *FILES.values()}
    if foreign or not (out / _MARKER).is_file():
        what = f"holds {min(foreign)}, which" if foreign else "holds files that"
        raise FileExistsError(
            f"{out} {what} detect did not write, so it is not replaced; give another folder"
        )


@contextmanager
def _published_whole(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to write to; it becomes `out`, or after an exception nothing."""
    fresh, old = (out.with_name(f".{out.name}.{what}-{os.getpid()}") for what in ("unfinished", "replaced"))
    fresh.mkdir(parents=True)
    try:
        (fresh / _MARKER).touch()
        yield fresh
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
