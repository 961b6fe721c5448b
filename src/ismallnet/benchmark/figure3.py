"""The field's figure: what every detector finds in some images, beside the truth.

Detections are matched with the truth as Pd of the protocol `standard` does: a circle is red for a target that
was found, yellow for a false alarm, green for a target that was missed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ismallnet import metrics
from ismallnet.benchmark.entrants import Missing, Remembering, enter, list_entrants
from ismallnet.draw import COLOURS, Kind, stretch
from ismallnet.evaluate import evaluate, log_test_evaluation, provenance, score_map
from ismallnet.metrics.plot import new_figure
from ismallnet.metrics.target import Components, components, match, signal_to_clutter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.data import Dataset
    from ismallnet.types import Sample

    Advance = Callable[[int, int, str], None]

PROTOCOL = metrics.PROTOCOLS["standard"]
RULE = (
    "of each list the image with the target of least signal-to-clutter ratio, that with the most targets, "
    "and that with the largest target; the first of equals, no image twice, no detector asked"
)
"""How images are chosen where none is given."""
INCH = 2.0
"""Side of a panel."""
ZOOM_PX = 24
"""Least side of what an inset enlarges."""
INSET = 0.38
"""Side of an inset, as a part of its panel."""
CELLS = 64
"""Most cells a side of a surface: each is the maximum of a block of pixels."""


class Mark(NamedTuple):
    """A circle around a component, in pixels."""

    kind: Kind
    x: float
    y: float
    radius: float


class Zoom(NamedTuple):
    """What an inset shows, in pixels, and the corner it is put in."""

    x: float
    y: float
    half: float
    corner: tuple[int, int]
    """0 left or 1 right; 0 top or 1 bottom."""


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """What one detector made of one image."""

    score: NDArray[np.float32]
    mask: NDArray[np.bool_]
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """An image with its truth and the detectors' answers; a row of the figure."""

    data: str
    split: str
    sample: Sample
    panels: dict[str, Panel] = field(default_factory=dict)


def choose(dataset: Dataset) -> tuple[str, ...]:
    """Choose up to three images of a list by `RULE`; those without a target only where there is no other.

    Raises:
        ValueError: An empty list.
    """
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name} {dataset.split} has no image")
    ranks: list[tuple[float, int, int]] = []
    for sample in dataset:
        found = components(sample.mask)
        contrast = signal_to_clutter(sample.image, sample.mask, found)
        known = contrast[~np.isnan(contrast)]
        ranks.append((float(-known.min(initial=np.inf)), len(found), int(found.area.max(initial=0))))
    chosen: list[int] = []
    for column in range(3):
        left = [index for index in range(len(ranks)) if index not in chosen]
        if left:
            chosen.append(max(left, key=lambda index: ranks[index][column]))
    return tuple(dataset.ids[index] for index in chosen)


def find_marks(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[Mark, ...]:
    """Circle what was detected and what is false in a mask, and what was missed of the truth.

    Args:
        mask: (H, W).
        truth: (H, W).
    """
    true, found = components(truth), components(mask)
    partner = match(true.centroid, found.centroid, method=PROTOCOL.matching, distance_px=PROTOCOL.distance_px)
    matched = set(partner[partner >= 0].tolist())
    least = max(mask.shape) / 32

    def mark(kind: Kind, of: Components, index: int) -> Mark:
        y, x = of.centroid[index]
        y0, x0, y1, x1 = of.box[index]
        return Mark(kind, float(x), float(y), max(least, float(np.hypot(y1 - y0, x1 - x0)) / 2 + 3))

    return (
        *(mark("detected" if index in matched else "false", found, index) for index in range(len(found))),
        *(mark("missed", true, int(index)) for index in np.flatnonzero(partner < 0)),
    )


def look(
    datasets: Sequence[Dataset],
    names: Sequence[str] | None = None,
    *,
    weights: Mapping[str, str] | None = None,
    purpose: str = "benchmark figure3",
    log: str | Path = "results",
    device: str = "auto",
    advance: Advance | None = None,
) -> tuple[list[Look], list[Missing]]:
    """Run the detectors on all images of these lists, which are short; a look at a test list is logged.

    Args:
        datasets: What to show, as `Dataset.subset` gives it.
        names: Detectors, in the order of their columns; all filters and networks where None.
        weights: As of `table1`.
        purpose: Why test images are shown; in the log.
        log: Folder of test_evaluations.csv.
        device: Of networks.
        advance: Called with (evaluations done, in all, what was done).

    Returns:
        The rows of the figure, and the detectors that cannot take part.
    """
    weights = dict(weights or {})
    names = list_entrants(names, weights)
    looks: list[Look] = []
    missing: list[Missing] = []
    done, total = 0, len(names) * len(datasets)
    for dataset in datasets:
        rows = [Look(dataset.name, dataset.split, sample) for sample in dataset]
        ready, absent = enter(names, dataset.name, weights, device=device)
        missing += absent
        for name, detector in ready.items():
            memory = Remembering(detector)
            report = evaluate(memory, dataset, protocol=PROTOCOL, bootstrap=0, details=False)
            if report.on_test_list:
                log_test_evaluation(report, log, purpose=purpose)
            for row in rows:
                score = score_map(memory, row.sample.image, PROTOCOL, dataset.name)
                mask = detector.rule.apply(score)
                row.panels[name] = Panel(score, mask, find_marks(mask, row.sample.mask))
            done += 1
            if advance is not None:
                advance(done, total, f"{name}, {dataset.name}")
        looks += rows
    return looks, missing


def draw(looks: Sequence[Look], out: str | Path, *, surface: bool = False) -> list[Path]:
    """Write figure3.png, figure3.pdf and figure3.json into a folder; with ``surface`` also the surfaces.

    Args:
        looks: Rows of the figure; at least one.
        out: Folder, made where absent. Pictures of public data sets are not to be committed.
        surface: Also figure3-surface.png and .pdf: every score as a surface. Of networks from 0 to 1; of
            filters, whose response has no scale, from the least to the largest of the image.

    Returns:
        The files.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: No row.
    """
    if not looks:
        raise ValueError("no image to draw; give at least one")
    names = list(dict.fromkeys(name for each in looks for name in each.panels))
    figures = {"figure3": _masks(looks, names)} | (
        {"figure3-surface": _surfaces(looks, names)} if surface else {}
    )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for stem, figure in figures.items():
        for suffix in ("png", "pdf"):
            paths.append(out / f"{stem}.{suffix}")
            figure.savefig(paths[-1], dpi=150)
    images = [
        {"data": each.data, "split": each.split, "id": each.sample.id}
        | {name: _counts(panel) for name, panel in each.panels.items()}
        for each in looks
    ]
    paths.append(out / "figure3.json")
    text = json.dumps({"protocol": PROTOCOL.name, "images": images, "provenance": provenance()}, indent=1)
    paths[-1].write_text(text + "\n", encoding="utf-8")
    return paths


def _counts(panel: Panel) -> dict[str, int]:
    return {kind: sum(mark.kind == kind for mark in panel.marks) for kind in COLOURS}


def _masks(looks: Sequence[Look], names: Sequence[str]) -> Any:
    """The figure proper: the image, a column a detector, the truth."""
    columns = ["image", *names, "truth"]
    shapes = [each.sample.mask.shape for each in looks]
    heights = [height / width for height, width in shapes]
    figure = new_figure(INCH * len(columns), INCH * sum(heights) + 0.4)
    grid = figure.subplots(len(looks), len(columns), squeeze=False, height_ratios=heights)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize="small")
    for row, each in zip(grid, looks, strict=True):
        zoom = _zoom(each)
        for axes, name in zip(row, columns, strict=True):
            axes.set(xticks=[], yticks=[])
            if name in ("image", "truth"):
                _show(axes, stretch(each.sample.image) if name == "image" else each.sample.mask, (), zoom)
            elif name in each.panels:
                _show(axes, each.panels[name].mask, each.panels[name].marks, zoom)
            else:
                axes.axis("off")
        row[0].set_ylabel(f"{each.data}\n{each.sample.id}", fontsize="small")
    text = "red: detected, yellow: false alarm, green: missed; matched as Pd of the protocol standard"
    figure.supxlabel(text, fontsize="small")
    return figure


def _show(axes: Any, picture: NDArray[Any], marks: Sequence[Mark], zoom: Zoom | None) -> None:
    from matplotlib.patches import Circle

    axes.imshow(picture, cmap="gray", interpolation="nearest")
    for mark in marks:
        blue, green, red = (level / 255 for level in COLOURS[mark.kind])
        circle = Circle(
            (mark.x, mark.y), mark.radius, fill=False, linestyle=":", linewidth=1.2, color=(red, green, blue)
        )
        axes.add_patch(circle)
    if zoom is None:
        return
    left, top = ((1 - INSET) * at for at in zoom.corner)
    inset = axes.inset_axes([left, 1 - INSET - top, INSET, INSET])
    inset.imshow(picture, cmap="gray", interpolation="nearest")
    inset.set(
        xlim=(zoom.x - zoom.half, zoom.x + zoom.half),
        ylim=(zoom.y + zoom.half, zoom.y - zoom.half),
        xticks=[],
        yticks=[],
        anchor=("NS"[zoom.corner[1]] + "WE"[zoom.corner[0]]),
    )
    for spine in inset.spines.values():
        spine.set_color("white")


def _zoom(each: Look) -> Zoom | None:
    """Zoom on the smallest target, the first of equals, from the corner that hides the fewest circles.

    What it shows lies within the image.
    """
    true = components(each.sample.mask)
    if len(true) == 0:
        return None
    index = int(true.area.argmin())
    height, width = each.sample.mask.shape
    y, x, half = zoom_on(true.centroid[index], true.box[index], (height, width))
    marks = [(mark.x / width, mark.y / height) for panel in each.panels.values() for mark in panel.marks]
    marks += [(x / width, y / height) for y, x in true.centroid]

    def hidden(corner: tuple[int, int]) -> int:
        inside = [
            all(abs(at - side) < INSET for at, side in zip(mark, corner, strict=True)) for mark in marks
        ]
        return sum(inside)

    return Zoom(x, y, half, min(((0, 1), (1, 1), (1, 0), (0, 0)), key=hidden))


def zoom_on(
    centre: Sequence[float], box: Sequence[int], shape: tuple[int, int], *, least_px: int = ZOOM_PX
) -> tuple[float, float, float]:
    """Return the square around a component that is shown enlarged: y and x of its centre, half of its side.

    Twice the component's longer side, at least ``least_px``, moved into the image; in pixels.

    Args:
        centre: y, x.
        box: y0, x0, y1, x1, half-open.
        shape: (H, W) of the image.
        least_px: Least side, where the image has it.
    """
    height, width = shape
    y0, x0, y1, x1 = box
    half = min(max(least_px, 2 * max(y1 - y0, x1 - x0)), height, width) / 2
    y, x = (min(max(at, half - 0.5), side - half - 0.5) for at, side in zip(centre, shape, strict=True))
    return float(y), float(x), float(half)


def _surfaces(looks: Sequence[Look], names: Sequence[str]) -> Any:
    figure = new_figure(INCH * len(names), INCH * len(looks) + 0.3)
    for row, each in enumerate(looks):
        for column, name in enumerate(names):
            if name not in each.panels:
                continue
            axes = figure.add_subplot(len(looks), len(names), row * len(names) + column + 1, projection="3d")
            heights = _blocks(each.panels[name].score)
            x, y = np.meshgrid(np.arange(heights.shape[1]), np.arange(heights.shape[0]))
            axes.plot_surface(x, y, heights, cmap="viridis", rcount=CELLS, ccount=CELLS, linewidth=0)
            axes.set(xticks=[], yticks=[])
            axes.tick_params(labelsize=5)
            axes.set_title(f"{name}\n{each.sample.id}", fontsize="x-small")
    return figure


def _blocks(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maxima of square blocks, at most `CELLS` a side, so that a target of one pixel remains."""
    block = -(-max(score.shape) // CELLS)
    height, width = (-(-side // block) * block for side in score.shape)
    padding = ((0, height - score.shape[0]), (0, width - score.shape[1]))
    padded = np.pad(score, padding, "edge")
    return np.asarray(padded.reshape(height // block, block, width // block, block).max(axis=(1, 3)))
