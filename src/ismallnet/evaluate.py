"""Score a detector on a data set under a named protocol, and keep the result with all it depends on.

A detector is anything with a name, a decision rule and a function from an image to a score map, so
networks and filters are evaluated by the same lines. The protocol decides the geometry that is
scored; the detector brings the rule. Nothing here selects anything.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from ismallnet import metrics
from ismallnet.checkpoint import written_whole
from ismallnet.metrics.plot import save_curves
from ismallnet.metrics.report import PER_IMAGE, Report
from ismallnet.rules import Fixed, Rule, Statistical, mean_and_deviation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from ismallnet.types import Sample

    Advance = Callable[[int, int, str], None]

BOX_FLOOR = 0.05
"""Probabilities above this make the components of box AP and FROC."""
LOG_NAME = "test_evaluations.csv"
LOG_COLUMNS = (
    "date", "purpose", "detector", "weights_sha256", "rule", "data", "split", "split_sha256", "n", "protocol",
    "iou", "niou", "precision", "recall", "f1", "pd", "fa", "commit", "hardware", "notes",
)  # fmt: skip


class Scorer(Protocol):
    """What an evaluation needs of a detector."""

    @property
    def name(self) -> str:
        """Name in reports."""

    @property
    def rule(self) -> Rule:
        """Decision on the score map; other than `Statistical`, the score is taken as a probability."""

    def score(
        self, image: NDArray[np.float32], *, input_size: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """(H, W) score map of an (H, W) image in [0, 1], seen by the network at ``input_size``."""


class Images(Protocol):
    """What an evaluation needs of a data set."""

    @property
    def name(self) -> str:
        """Name of the data set."""

    @property
    def split(self) -> str:
        """Name of the list of images."""

    @property
    def split_sha256(self) -> str:
        """Checksum of the list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...


def evaluate(
    detector: Scorer,
    dataset: Images,
    *,
    protocol: str | metrics.Protocol = "standard",
    bootstrap: int = 1000,
    curves: bool = False,
    details: bool = True,
    seed: int = 0,
    advance: Advance | None = None,
) -> Report:
    """Score every image of a data set and count.

    For validation inside a training run: ``bootstrap=0, details=False`` counts pixels and targets only.

    Args:
        detector: network or filter; a fixed rule is taken as a threshold on probabilities.
        dataset: images with masks, in the order of the list.
        protocol: a name of `metrics.PROTOCOLS`, or a protocol of your own.
        bootstrap: replicates of the 95 % intervals over images; 0: none.
        curves: sweep the threshold for ROC, PR and FROC; keeps every score (4 bytes a pixel).
        details: also count boxes, targets by size, eccentricity and contrast, and what a filter makes of the
            clutter around them.
        seed: of the bootstrap.
        advance: called with (images done, images in all, name of the image).

    Raises:
        ValueError: the protocol is unknown, the data set is empty, ``bootstrap`` is negative, or a score map
            is not finite or not of the image's size.
    """
    scoring = metrics.get_protocol(protocol)
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name} {dataset.split} has no image; choose a split with images")
    if bootstrap < 0:
        raise ValueError(f"bootstrap is {bootstrap}; pass a number of replicates, 0 for none")
    sweep = metrics.Sweep(floor=_floor(detector.rule)) if curves else None
    counts, score_s, count_s = [], 0.0, 0.0
    for done, sample in enumerate(dataset, start=1):
        start = time.perf_counter()
        image, truth = _view(sample, scoring)
        score = score_map(detector, image, scoring, dataset.name)
        scored = time.perf_counter()
        counts.append(
            metrics.count_image(
                _decide(detector.rule, score, scoring),
                truth,
                protocol=scoring,
                id=sample.id,
                data=dataset.name,
                image=image if details else None,
                score=_swept(detector.rule, score) if details else None,
                floor=_floor(detector.rule, boxes=True),
                response=score if details and isinstance(detector.rule, Statistical) else None,
            )
        )
        if sweep is not None:
            sweep.add(_swept(detector.rule, score), truth)
        count_s += time.perf_counter() - scored
        score_s += scored - start
        if advance is not None:
            advance(done, len(dataset), sample.id)
    return Report(
        detector=detector.name,
        rule=_rule_in_words(detector.rule, scoring),
        protocol=scoring,
        data=dataset.name,
        split=dataset.split,
        split_sha256=dataset.split_sha256,
        counts=tuple(counts),
        bootstrap=bootstrap,
        seed=seed,
        curves=sweep.curves() if sweep is not None else None,
        notes=(*_departures(detector.rule, scoring, dataset.split), *_otherwise(detector)),
        provenance={
            **provenance(),
            "weights_sha256": getattr(detector, "weights_sha256", None),
            "runtime": getattr(detector, "runtime", None),
            "precision": getattr(detector, "precision", None),
            "views": getattr(detector, "views", 1),
            "confirm": getattr(detector, "confirm", False),
            "score_s": round(score_s, 3),
            "count_s": round(count_s, 3),
        },
    )


def _view(sample: Sample, protocol: metrics.Protocol) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Image and mask in the geometry that is scored."""
    if protocol.size is None or sample.image.shape == protocol.size:
        return sample.image, sample.mask
    height, width = protocol.size
    mask = cv2.resize(sample.mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return _resize(sample.image, protocol.size), mask.astype(bool)


def _resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bilinear, with antialiasing where it shrinks, rounded to 8 bits: what PIL does in DNANet and ACM."""
    import torch
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
    resized = interpolate(pixels, size=size, mode="bilinear", antialias=True)[0, 0]
    grey: NDArray[np.uint8] = resized.round().clamp(0, 255).to(torch.uint8).numpy()
    return grey


def score_map(
    detector: Scorer, image: NDArray[np.uint8], protocol: metrics.Protocol, data: str
) -> NDArray[np.float32]:
    """Score an image as the protocol shows it to a detector.

    Args:
        detector: network or filter.
        image: (H, W) grey levels, 0-255, in the geometry that is scored.
        protocol: its padding and its size of the input are used.
        data: name of the data set, on which that size may depend.

    Returns:
        (H, W).

    Raises:
        ValueError: a score map that is not finite, or not of the image's size.
    """
    height, width = image.shape
    multiple = protocol.pad_multiple
    padded = np.pad(image, ((0, -height % multiple), (0, -width % multiple)))
    pixels = padded.astype(np.float32) / np.float32(255)
    score = detector.score(pixels, input_size=protocol.input_size(data))
    if score.shape != pixels.shape:
        raise ValueError(f"{detector.name} gave a score of {score.shape} for an image of {pixels.shape}")
    score = score[:height, :width]
    if not np.isfinite(score).all():
        raise ValueError(f"{detector.name} gave a score map with nan or infinite values; check its weights")
    return score


def _decide(rule: Rule, score: NDArray[np.float32], protocol: metrics.Protocol) -> NDArray[np.bool_]:
    if isinstance(rule, Fixed) and protocol.eight_bit:
        rounded: NDArray[np.float32] = np.rint(255 * score)
        return np.asarray(rounded != 0)
    return rule.apply(score)


def _swept(rule: Rule, score: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map whose threshold a curve sweeps: the probability, or a filter's number of deviations."""
    if not isinstance(rule, Statistical):
        return score
    mean, deviation = mean_and_deviation(score)
    if deviation == 0:
        return np.full(score.shape, -np.inf, np.float32)
    deviations: NDArray[np.float32] = ((score - mean) / deviation).astype(np.float32)
    return deviations


def _floor(rule: Rule, *, boxes: bool = False) -> float:
    if not isinstance(rule, Statistical):
        return BOX_FLOOR
    return rule.k if boxes else min(rule.k, 1.0)


def _rule_in_words(rule: Rule, protocol: metrics.Protocol) -> str:
    if isinstance(rule, Statistical):
        return f"score > mean + {rule.k:g} std of the image's own response"
    if isinstance(rule, Fixed):
        return "round(255 * score) != 0" if protocol.eight_bit else f"score > {rule.value:g}"
    return str(rule)


def _departures(rule: Rule, protocol: metrics.Protocol, split: str) -> tuple[str, ...]:
    notes = []
    if isinstance(rule, Fixed) and protocol.eight_bit and rule != Fixed():
        notes.append(f"threshold {rule.value:g} is not used: `{protocol.name}` has a decision of its own")
    if isinstance(rule, Fixed) and not protocol.eight_bit and rule.value != protocol.threshold:
        notes.append(
            f"threshold {rule.value:g} of the detector, not {protocol.threshold:g} of `{protocol.name}`"
        )
    if protocol.split is not None and not split.startswith(f"{protocol.split}/"):
        notes.append(f"protocol `{protocol.name}` belongs to the lists {protocol.split}/, not {split}")
    return tuple(notes)


def _otherwise(detector: Scorer) -> tuple[str, ...]:
    """Say so where images were not scored as for published numbers: once, a network by PyTorch in float32."""
    notes = []
    runtime, precision = (getattr(detector, name, None) for name in ("runtime", "precision"))
    if (runtime, precision) not in ((None, None), ("torch", "fp32")):
        notes.append(f"scored by {runtime} in {precision}, not by torch in fp32")
    if (views := getattr(detector, "views", 1)) > 1:
        notes.append(f"test-time augmentation: the mean over {views} flips and quarter turns of each image")
    if getattr(detector, "confirm", False):
        notes.append("test-time augmentation: targets confirmed by the image enlarged or shrunk 1.25 times")
    return tuple(notes)


def provenance() -> dict[str, object]:
    """Date, commit of this package's checkout, hardware and versions of what a number depends on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "hardware": _hardware(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in ("ismallnet", "torch", "numpy", "scipy")}
        | {"opencv": cv2.__version__},
    }


def package_version(package: str) -> str | None:
    """Return the version of a package that is installed; None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout this file is in, ``-dirty`` where files differ; None outside a checkout."""
    source = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):  # installed into somebody else's repository
            return None
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _hardware() -> str:
    import torch

    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        processor = names[0] if names else processor
    text = f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{text}; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else text


def write_report(report: Report, out: str | Path, *, force: bool = False) -> list[Path]:
    """Write report.json, report.md, per_image.csv and, where curves were swept, their pictures.

    The folder appears complete or not at all; with ``force`` in an existing folder every file does.

    Args:
        report: the result.
        out: folder to make.
        force: write into an existing folder; other files in it are left alone.

    Returns:
        The files written.

    Raises:
        FileExistsError: the folder holds something and ``force`` is not set.
        ImportError: there are curves and matplotlib is not installed; the other files are written.
    """
    missing: ImportError | None = None
    with written_whole(Path(out), force=force) as made:
        (made / "report.json").write_text(report.to_json(), encoding="utf-8")
        (made / "report.md").write_text(report.to_markdown(), encoding="utf-8")
        rows = ([getattr(count, name) for name in PER_IMAGE] for count in report.counts)
        (made / "per_image.csv").write_text(_csv([PER_IMAGE, *rows]), encoding="utf-8")
        if report.curves is not None:
            try:
                save_curves(report.curves, made, title=f"{report.detector}, {report.data} {report.split}")
            except ImportError as error:
                missing = error
        names = sorted(path.name for path in made.iterdir())
    if missing is not None:
        raise ImportError(f"{missing}; the rest of the report is in {out}") from missing
    return [Path(out) / name for name in names]


def log_test_evaluation(report: Report, results_dir: str | Path, *, purpose: str) -> Path:
    """Append one row on an evaluation on a test list to ``test_evaluations.csv``.

    Looking at a test list again and again is a way of training on it, so every look is on record.

    Args:
        report: of a test list.
        results_dir: folder of the log, made where absent.
        purpose: why the test list was opened.

    Raises:
        ValueError: no purpose, the report is not of a test list, or the log has other columns.
    """
    if not purpose.strip():
        raise ValueError("purpose is empty; say why the test list was opened")
    if not report.on_test_list:
        raise ValueError(f"{report.data} {report.split} is not a test list; only those are logged")
    path = Path(results_dir) / LOG_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    header = _csv([LOG_COLUMNS])
    if path.exists():
        with path.open(encoding="utf-8") as log:
            if log.readline() != header:
                raise ValueError(f"{path} has other columns than {', '.join(LOG_COLUMNS)}; move it away")
    parts = report.provenance.get("parts", [report.provenance])
    last = parts[-1] if isinstance(parts, list) else {}
    values = {
        **{name: last.get(name) for name in ("date", "weights_sha256", "commit", "hardware")},
        **{name: getattr(report, name) for name in ("detector", "rule", "data", "split", "split_sha256")},
        **{name: f"{rate.value:.6g}" for name, rate in report.headline.items()},
        "purpose": purpose,
        "n": len(report.counts),
        "protocol": report.protocol.name,
        "notes": "; ".join(report.notes),
    }
    row = _csv([[values[name] for name in LOG_COLUMNS]])
    with path.open("a", encoding="utf-8", newline="") as log:  # one write, so that two runs do not mix
        log.write(row if log.tell() else header + row)
    return path


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
