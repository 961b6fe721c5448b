"""ROC curves of all detectors in one plot a data set, from exact sweeps under the protocol `standard`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ismallnet.benchmark.entrants import enter, limited, list_entrants
from ismallnet.benchmark.store import Row, Store
from ismallnet.evaluate import evaluate, log_test_evaluation
from ismallnet.metrics.plot import new_figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ismallnet.data import Dataset
    from ismallnet.detector import Detector
    from ismallnet.metrics.curves import Curve
    from ismallnet.metrics.report import Report

    Advance = Callable[[int, int, str], None]

PROTOCOL = "standard"
COLUMNS = (
    "detector", "data", "weights_sha256", "decision", "split", "split_sha256", "n", "limit", "roc_area",
    "pr_area", "froc_area", "date", "commit", "hardware",
)  # fmt: skip
"""Of roc.csv; areas as in docs/metrics.md."""
POINTS = ("detector", "data", "fpr", "tpr")
_GRID = np.concatenate([[0.0], np.logspace(-7, 0, 281)])
"""False positive rates at which a curve is kept: 40 a decade."""


class Curves:
    """roc.csv (areas) and points.csv in a folder, a curve a detector and data set.

    Args:
        out: The folder; made with the first curve.
        limit: As `table1`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The folder has curves of another limit, or other columns.
    """

    def __init__(self, out: str | Path, *, limit: int | None = None) -> None:
        new_figure()  # before hours of work
        self._out, self._limit = Path(out), str(limit or "")
        self._areas, self._points = (
            Store(self._out / "roc.csv", COLUMNS),
            Store(self._out / "points.csv", POINTS),
        )
        self._areas.require_limit(limit)

    def has(self, name: str, detector: Detector, dataset: Dataset) -> bool:
        """Whether there is a curve of these weights or this filter, this decision and this list."""
        return any(self._about(name, detector, dataset).items() <= row.items() for row in self._areas.rows)

    def keep(self, name: str, detector: Detector, dataset: Dataset, report: Report) -> None:
        """Keep the curve of a report under `PROTOCOL`, in the place of an older one.

        Args:
            name: Of the curve.
            detector: What was evaluated.
            dataset: The list it was evaluated on.
            report: Of `evaluate`, with curves.
        """
        found = report.curves
        assert found is not None
        areas = {f"{kind}_area": f"{getattr(found, kind).area:.6g}" for kind in ("roc", "pr", "froc")}
        source = {column: str(report.provenance[column] or "") for column in ("date", "commit", "hardware")}
        key = {"detector": name, "data": dataset.name}
        points = [key | {"fpr": f"{x:.6g}", "tpr": f"{y:.6g}"} for x, y in _kept(found.roc)]
        self._points.replace(key, points)
        self._areas.replace(key, [self._about(name, detector, dataset) | areas | source])

    def draw(self, names: Iterable[str]) -> list[Path]:
        """Draw roc-DATA.png and .pdf of each data set; all files of the folder."""
        rows = self._areas.rows, self._points.rows
        drawn = [path for name in names for path in _draw(name, *rows, self._out)]
        return [self._areas.path, self._points.path, *drawn]

    def _about(self, name: str, detector: Detector, dataset: Dataset) -> dict[str, str]:
        return {
            "detector": name,
            "data": dataset.name,
            "weights_sha256": detector.weights_sha256 or "",
            "decision": str(detector.rule),
            "split": dataset.split,
            "split_sha256": dataset.split_sha256,
            "n": str(len(dataset)),
            "limit": self._limit,
        }


def curves(
    datasets: Sequence[Dataset],
    names: Sequence[str] | None = None,
    *,
    out: str | Path,
    weights: Mapping[str, str] | None = None,
    limit: int | None = None,
    purpose: str = "benchmark curves",
    log: str | Path = "results",
    device: str = "auto",
    advance: Advance | None = None,
) -> list[Path]:
    """Fill roc.csv and points.csv in a folder and draw roc-DATA.png and .pdf; arguments as `table1`.

    What was swept before with the same weights, decision and list, by `table1` too, is not swept again.

    Returns:
        The files of the folder.

    Raises:
        ImportError: matplotlib is not installed; nothing is swept.
        ValueError: As `table1`.
    """
    kept, weights = Curves(out, limit=limit), dict(weights or {})
    names = list_entrants(names, weights)
    for dataset in datasets:
        shown = limited(dataset, limit)
        for name, detector in enter(names, dataset.name, weights, device=device)[0].items():
            if kept.has(name, detector, shown):
                continue
            step = None if advance is None else _about(f"{name}, {dataset.name}", advance)
            report = evaluate(
                detector, shown, protocol=PROTOCOL, bootstrap=0, curves=True, details=False, advance=step
            )
            if report.on_test_list:
                log_test_evaluation(report, log, purpose=purpose)
            kept.keep(name, detector, shown, report)
    return kept.draw(each.name for each in datasets)


def _about(what: str, advance: Advance) -> Advance:
    return lambda done, total, id: advance(done, total, f"{what}: {id}")


def _kept(roc: Curve) -> NDArray[np.float64]:
    """(K, 2) false and true positive rates: the exact curve's last corner at or below each of the grid."""
    last = np.searchsorted(roc.x, _GRID, side="right") - 1
    index = np.unique(np.append(last[last >= 0], len(roc.x) - 1))
    return np.stack([roc.x[index], roc.y[index]], axis=1)


def _draw(data: str, areas: Sequence[Row], points: Sequence[Row], out: Path) -> list[Path]:
    own = [row for row in areas if row["data"] == data]
    if not own:
        return []
    figure = new_figure(7, 5)
    axes = figure.subplots()
    for number, row in enumerate(own):
        curve = [each for each in points if (each["detector"], each["data"]) == (row["detector"], data)]
        fpr, tpr = ([float(each[name]) for each in curve] for name in ("fpr", "tpr"))
        x = np.union1d(_GRID, fpr)  # straight between corners on a linear axis, so bent on this one
        y = np.interp(x, fpr, tpr)
        style = ("-", "--", ":")[number // 10 % 3]  # ten colours
        axes.plot(x, y, style, label=f"{row['detector']} ({float(row['roc_area']):.4f})")
    axes.set_xscale("symlog", linthresh=1e-6)  # background is nearly everything: only small rates matter
    limits = " and ".join(sorted({f", first {row['limit']} images" for row in own if row["limit"]}))
    axes.set(
        xlim=(0, 1),
        ylim=(-0.02, 1.02),
        xlabel="false positive rate (pixels)",
        ylabel="true positive rate (pixels)",
        title=f"{data} {own[0]['split'].rsplit('/', 1)[-1]}{limits}",
    )
    axes.grid(alpha=0.3)
    axes.legend(title="area", fontsize="small")
    paths = [out / f"roc-{data}.{suffix}" for suffix in ("png", "pdf")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths
