"""The field's table: every detector on the test lists under named protocols, beside the paper's numbers.

A finished row is kept with all that it depends on. A further call computes what is missing, or was computed
with other weights, another decision or another list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ismallnet import metrics
from ismallnet.benchmark.curves import PROTOCOL as SWEPT
from ismallnet.benchmark.curves import Curves
from ismallnet.benchmark.entrants import (
    Facts,
    Missing,
    Remembering,
    enter,
    facts,
    limited,
    list_entrants,
    untrained,
)
from ismallnet.benchmark.store import Row, Store
from ismallnet.evaluate import evaluate, log_test_evaluation

if TYPE_CHECKING:
    from ismallnet.data import Dataset
    from ismallnet.detector import Detector
    from ismallnet.metrics.rates import Rate
    from ismallnet.metrics.report import Report

    Advance = Callable[[int, int, str], None]

PROTOCOLS = ("ismallnet", "standard")
RATES = (
    "iou", "niou", "mean_iou", "precision", "recall", "f1", "mean_precision", "mean_recall", "f1_of_means",
    "pd", "fa", "false_components", "ap50", "ap", "scr_gain", "suppression",
)  # fmt: skip
KEY = ("detector", "data", "protocol")
_DEPENDS = ("weights_sha256", "decision", "split", "split_sha256", "n", "bootstrap")
_RATE_COLUMNS = tuple(f"{name}{end}" for name in RATES for end in ("", "_low", "_high"))
_FACTS = ("calibrated", "network", "parameters", "macs", "trained_on", "training_seed")
_PROVENANCE = ("date", "commit", "hardware")
COLUMNS = (
    *KEY, *_DEPENDS, "bootstrap_seed", "limit", *_RATE_COLUMNS, "iou_without_doubtful", "rule", *_FACTS,
    "ms_per_image", *_PROVENANCE, "notes",
)  # fmt: skip
"""Of table1.csv. Rates are fractions, ``_low`` and ``_high`` their 95 % interval; macs are at 256×256.
SCR gain and background suppression are filters' alone.
``iou_without_doubtful`` is the protocol's own IoU without the images of `metrics.report.DOUBTFUL`."""
STRATA_COLUMNS = (
    *KEY, "property", "bin", "targets", "pd", "pd_low", "pd_high", "recall", "recall_low", "recall_high",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """What a benchmark has by now."""

    rows: tuple[Row, ...]
    """Of table1.csv: everything in it, this call's or not."""
    strata: tuple[Row, ...]
    """Of strata.csv."""
    missing: tuple[Missing, ...]
    """Of the detectors of this call."""
    untrained: tuple[Missing, ...]
    """All other networks without weights."""
    computed: int
    """Rows that this call added; the others were there."""


def table1(
    datasets: Sequence[Dataset],
    names: Sequence[str] | None = None,
    *,
    out: str | Path,
    weights: Mapping[str, str] | None = None,
    protocols: Sequence[str] = PROTOCOLS,
    limit: int | None = None,
    bootstrap: int = 1000,
    curves: str | Path | None = None,
    purpose: str = "benchmark table1",
    log: str | Path = "results",
    device: str = "auto",
    advance: Advance | None = None,
) -> Table:
    """Fill table1.csv and strata.csv in a folder, a row a detector, data set and protocol.

    Args:
        datasets: Lists to evaluate on.
        names: Detectors; all filters and networks where None.
        out: Folder of the two files; made where absent, gone on with where it has them.
        weights: By NAME, or NAME:DATA for one data set, a folder of weights for that row.
        protocols: Names of `metrics.PROTOCOLS`.
        limit: The first so many images of each list only, for a rehearsal; the rows say so.
        bootstrap: Replicates of the intervals; 0: none.
        curves: Folder of `benchmark.curves`, which then has the curve of every row under `standard` that is
            computed, at no further look at the list.
        purpose: Why the test lists are opened; in the log.
        log: Folder of test_evaluations.csv.
        device: Of networks.
        advance: Called with (images done, images in all, what is being done).

    Raises:
        ImportError: Curves without matplotlib; nothing is computed.
        ValueError: A detector or a data set given twice, an unknown protocol, a limit below 1, or a table
            that was made with another limit.
        FileNotFoundError: Neither a known detector nor a folder with weights.
    """
    out, weights = Path(out), dict(weights or {})
    if len({each.name for each in datasets}) < len(datasets):
        raise ValueError("a data set is given twice; give one list of each")
    scorings = [metrics.get_protocol(name) for name in dict.fromkeys(protocols)]
    names = list_entrants(names, weights)
    table, strata = Store(out / "table1.csv", COLUMNS), Store(out / "strata.csv", STRATA_COLUMNS)
    table.require_limit(limit)
    sweeps = None if curves is None else Curves(curves, limit=limit)
    missing: list[Missing] = []
    others = [name for name in list_entrants(None, weights) if name not in names]
    without = [each for dataset in datasets for each in untrained(others, dataset.name, weights)]
    pending: list[tuple[str, Detector, Dataset, list[metrics.Protocol]]] = []
    for dataset in datasets:
        shown = limited(dataset, limit)
        ready, absent = enter(names, dataset.name, weights, device=device)
        missing += absent
        for name, detector in ready.items():
            done = {
                row["protocol"]
                for row in table.rows
                if row["detector"] == name
                and row["data"] == dataset.name
                and all(row[key] == value for key, value in _depends(detector, shown, bootstrap).items())
            }
            pending.append((name, detector, shown, [each for each in scorings if each.name not in done]))
    total, finished = sum(len(shown) * len(left) for _, _, shown, left in pending), 0
    for name, detector, shown, left in pending:
        known = facts(detector) if left else None
        memory = Remembering(detector)
        for scoring in left:
            assert known is not None
            sweep = sweeps if scoring.name == SWEPT else None
            report = evaluate(
                memory,
                shown,
                protocol=scoring,
                bootstrap=bootstrap,
                curves=sweep is not None,
                advance=_from(finished, total, f"{name}, {shown.name}, {scoring.name}", advance),
            )
            finished += len(shown)
            if report.on_test_list:  # before the figures are kept
                log_test_evaluation(report, log, purpose=purpose)
            if sweep is not None:
                sweep.keep(name, detector, shown, report)
            speed = memory.milliseconds(scoring.input_size(shown.name))
            key = dict(zip(KEY, (name, shown.name, scoring.name), strict=True))
            row = key | _depends(detector, shown, bootstrap) | _measured(report, known, speed, limit)
            strata.replace(key, _strata(key, report))
            table.replace(key, [row])
    if sweeps is not None:
        sweeps.draw(each.name for each in datasets)
    computed = sum(len(left) for *_, left in pending)
    return Table(tuple(table.rows), tuple(strata.rows), tuple(missing), tuple(without), computed)


def _depends(detector: Detector, dataset: Dataset, bootstrap: int) -> dict[str, str]:
    """What a row was computed from: where any of it differs, the row is computed again."""
    values = (
        detector.weights_sha256,
        detector.rule,
        dataset.split,
        dataset.split_sha256,
        len(dataset),
        bootstrap,
    )
    return {name: _text(value) for name, value in zip(_DEPENDS, values, strict=True)}


def _measured(report: Report, known: Facts, speed: float, limit: int | None) -> dict[str, str]:
    overall, reduced = report.rates.overall, report.doubtful
    rates = {
        f"{name}{end}": _text(number)
        for name in RATES
        for end, number in zip(("", "_low", "_high"), overall.get(name, (None, None, None)), strict=True)
    }
    return {
        **rates,
        **{name: _text(value) for name, value in asdict(known).items()},
        **{name: _text(report.provenance[name]) for name in _PROVENANCE},
        "iou_without_doubtful": _text(reduced and replace(reduced, bootstrap=0).headline["iou"].value),
        "rule": report.rule,
        "ms_per_image": f"{speed:.3f}",
        "bootstrap_seed": _text(report.seed),
        "limit": _text(limit),
        "notes": "; ".join(report.all_notes()),
    }


def _strata(key: Mapping[str, str], report: Report) -> list[Row]:
    def columns(name: str, rate: Rate) -> dict[str, str]:
        return {f"{name}{end}": _text(n) for end, n in zip(("", "_low", "_high"), rate, strict=True)}

    return [
        {
            **key,
            "property": each.property,
            "bin": each.label,
            "targets": _text(each.targets),
            **columns("pd", each.pd),
            **columns("recall", each.recall),
        }
        for each in report.rates.strata
    ]


def _text(value: object) -> str:
    """A cell: empty for what is not there or not defined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _from(done: int, total: int, what: str, advance: Advance | None) -> Advance | None:
    """Progress within one evaluation as progress within all of them."""
    if advance is None:
        return None
    return lambda here, _, id: advance(done + here, total, f"{what}: {id}")
