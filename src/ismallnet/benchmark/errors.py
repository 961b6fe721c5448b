"""Which errors a detector makes, and what each kind of them costs in pooled IoU.

Targets and detections are paired as the evaluator does under the protocol `standard`, and every wrong pixel
belongs to one error of one kind:

- ``false alarm``: a detection without a target; its pixels off all targets are false positives.
- ``miss``: a target without a detection; its pixels that no detection covers are false negatives.
- ``shape``: a target that was found; its detection's pixels off all targets are false positives, its own
  pixels that no detection covers false negatives.

So the pixels of the three kinds add up to the evaluator's FP and FN, and, the union being
U = TP + FP + FN, their parts of the union to 1 - IoU. A kind is repaired when its wrong pixels are right:
IoU = (TP + FN of the kind) / (U - FP of the kind).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from ismallnet import metrics
from ismallnet.benchmark.entrants import Remembering
from ismallnet.evaluate import evaluate, log_test_evaluation, score_map
from ismallnet.metrics.pixel import iou
from ismallnet.metrics.target import Components, components, match, signal_to_clutter
from ismallnet.rules import Statistical

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.data import Dataset
    from ismallnet.detector import Detector
    from ismallnet.metrics.report import Report
    from ismallnet.types import Sample

    Advance = Callable[[int, int, str], None]

PROTOCOL = metrics.PROTOCOLS["standard"]
Kind = Literal["false alarm", "miss", "shape"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Change = Literal["", "new", "stays", "gone"]
"""Against another detector: this one's alone, both's, the other's alone; empty without another."""


class Error(NamedTuple):
    """One false alarm, missed target, or found target of another shape."""

    kind: Kind
    id: str
    """Name of the image."""
    number: int
    """Of the detection (false alarm) or the target among those of its image, from 0, in label order."""
    x: float
    y: float
    """Centroid in pixels, of the detection or the target."""
    box: tuple[int, int, int, int]
    """y0, x0, y1, x1, half-open, in pixels; of ``shape`` around target and detection."""
    size: int
    """Pixels of the detection or the target."""
    scr: float
    """Signal-to-clutter ratio of the same; nan where its ring is flat. The ring of a detection is without the
    pixels of any detection or target."""
    peak: float
    """Highest score in the detection; of a miss, in the target."""
    fp: int
    fn: int
    """Wrong pixels."""
    badness: float
    """The order of a page. ``false alarm``: the sum of the score over its pixels. ``miss``: size × SCR, so
    that a large target that stands out is the worst (size alone where the SCR is not defined). ``shape``: its
    wrong pixels."""
    change: Change = ""


class Cost(NamedTuple):
    """What one kind of errors costs over a list."""

    kind: Kind
    errors: int
    fp: int
    fn: int
    share: float
    """Its wrong pixels over the union of all predicted and true pixels; the kinds add up to 1 - IoU."""
    iou: float
    """Pooled IoU were these pixels alone right; nan where nothing is predicted or true."""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """All errors of a detector on a list."""

    report: Report
    errors: tuple[Error, ...]
    """Of each kind the worst first."""
    look: Callable[[Sample], tuple[NDArray[np.float32], NDArray[np.bool_]]]
    """From an image of the list to its score and mask."""
    unscaled: bool
    """The score is a response, no probability."""

    @property
    def costs(self) -> tuple[Cost, ...]:
        """One a kind, in the order of `KINDS`."""
        counts = self.report.counts
        tp, fp, fn = (sum(getattr(count, name) for count in counts) for name in ("tp", "fp", "fn"))
        return tuple(_cost(kind, self.errors, tp, fp, fn) for kind in KINDS)


def survey(
    detector: Detector,
    dataset: Dataset,
    *,
    purpose: str = "benchmark errors",
    log: str | Path = "results",
    advance: Advance | None = None,
) -> Survey:
    """Evaluate a detector on a list and collect its errors; a look at a test list is logged.

    Every score map is kept: 4 bytes a pixel.

    Args:
        detector: Network or filter.
        dataset: A list.
        purpose: Why a test list is opened; in the log.
        log: Folder of test_evaluations.csv.
        advance: Called with (images done, images in all, name of the image).

    Raises:
        ValueError: An empty list.
    """
    memory = Remembering(detector)
    report = evaluate(memory, dataset, protocol=PROTOCOL, bootstrap=0, advance=advance)
    if report.on_test_list:
        log_test_evaluation(report, log, purpose=purpose)

    def look(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        score = score_map(memory, sample.image, PROTOCOL, dataset.name)
        return score, detector.rule.apply(score)

    errors = [error for sample in dataset for error in find_errors(sample, *look(sample))]
    return Survey(report, worst_first(errors), look, isinstance(detector.rule, Statistical))


def find_errors(sample: Sample, score: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[Error, ...]:
    """Return the errors of one image: false alarms, misses, then shapes, each in label order.

    Args:
        sample: Image and truth.
        score: (H, W).
        mask: (H, W), what was decided on it.
    """
    truth = sample.mask
    true, found = components(truth), components(mask)
    partner = match(true.centroid, found.centroid, method=PROTOCOL.matching, distance_px=PROTOCOL.distance_px)
    excess = np.bincount(found.owner, ~truth[found.y, found.x], len(found)).astype(int)
    lack = np.bincount(true.owner, ~mask[true.y, true.x], len(true)).astype(int)
    total, peak = np.bincount(found.owner, score[found.y, found.x], len(found)), _peaks(score, found)
    contrast = signal_to_clutter(sample.image, truth | mask, found)
    errors = [
        _error("false alarm", sample.id, found, index, contrast, peak, excess[index], 0, float(total[index]))
        for index in sorted(set(range(len(found))) - set(partner.tolist()))
    ]
    contrast, own = signal_to_clutter(sample.image, truth, true), _peaks(score, true)
    for index in np.flatnonzero(partner < 0).tolist():
        known = 1.0 if math.isnan(contrast[index]) else float(contrast[index])
        badness = float(true.area[index]) * known
        errors.append(_error("miss", sample.id, true, index, contrast, own, 0, lack[index], badness))
    for index, other in enumerate(partner.tolist()):
        if other >= 0 and excess[other] + lack[index]:
            wrong = int(excess[other]), int(lack[index])
            error = _error("shape", sample.id, true, index, contrast, own, *wrong, float(sum(wrong)))
            box = _around(true.box[index], found.box[other])
            errors.append(error._replace(peak=float(peak[other]), box=box))
    return tuple(errors)


def worst_first(errors: Iterable[Error]) -> tuple[Error, ...]:
    """Order errors by kind, each by badness, then by name, so that the order is one."""
    return tuple(sorted(errors, key=lambda e: (KINDS.index(e.kind), -e.badness, e.id, e.number)))


def compare(after: Sequence[Error], before: Sequence[Error]) -> tuple[tuple[Error, ...], tuple[Error, ...]]:
    """Say which errors are new, stay or are gone.

    A miss or a shape stays where the same target has one before and after; a false alarm where the protocol
    would match the two detections.

    Args:
        after: The detector's errors.
        before: Another's, on the same list.

    Returns:
        The detector's errors, each new or one that stays; the other's that are gone; in their orders.
    """
    stays, kept = _same_targets(after, before)
    for id in {error.id for error in after} & {error.id for error in before}:
        now, then = (
            [i for i, error in enumerate(errors) if error.id == id and error.kind == "false alarm"]
            for errors in (after, before)
        )
        places = (
            np.array([(errors[i].y, errors[i].x) for i in indices]).reshape(-1, 2)
            for errors, indices in ((after, now), (before, then))
        )
        pairs = match(*places, method=PROTOCOL.matching, distance_px=PROTOCOL.distance_px)
        stays |= {now[i] for i in np.flatnonzero(pairs >= 0)}
        kept |= {then[i] for i in pairs[pairs >= 0]}
    marked = tuple(e._replace(change="stays" if i in stays else "new") for i, e in enumerate(after))
    return marked, tuple(e._replace(change="gone") for i, e in enumerate(before) if i not in kept)


def _same_targets(after: Sequence[Error], before: Sequence[Error]) -> tuple[set[int], set[int]]:
    """Positions of the misses and shapes that both have."""
    now, then = (
        {(e.kind, e.id, e.number): i for i, e in enumerate(errors) if e.kind != "false alarm"}
        for errors in (after, before)
    )
    both = now.keys() & then.keys()
    return {now[key] for key in both}, {then[key] for key in both}


def _error(
    kind: Kind,
    id: str,
    of: Components,
    index: int,
    contrast: NDArray[np.float64],
    peak: NDArray[np.float64],
    fp: int,
    fn: int,
    badness: float,
) -> Error:
    y, x = of.centroid[index].tolist()
    return Error(
        kind, id, index, x, y, _around(of.box[index]), int(of.area[index]), float(contrast[index]),
        float(peak[index]), int(fp), int(fn), badness,
    )  # fmt: skip


def _around(*boxes: NDArray[np.intp]) -> tuple[int, int, int, int]:
    stack = np.stack(boxes)
    y0, x0 = stack[:, :2].min(axis=0).tolist()
    y1, x1 = stack[:, 2:].max(axis=0).tolist()
    return y0, x0, y1, x1


def _peaks(score: NDArray[np.float32], of: Components) -> NDArray[np.float64]:
    peak = np.full(len(of), -np.inf)
    np.maximum.at(peak, of.owner, score[of.y, of.x])
    return peak


def _cost(kind: Kind, errors: Iterable[Error], tp: int, fp: int, fn: int) -> Cost:
    own = [error for error in errors if error.kind == kind]
    excess, lack = sum(error.fp for error in own), sum(error.fn for error in own)
    union = tp + fp + fn
    return Cost(
        kind,
        len(own),
        excess,
        lack,
        (excess + lack) / union if union else math.nan,
        float(iou(tp + lack, fp - excess, fn - lack)),
    )
