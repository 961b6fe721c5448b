"""The benchmark as a page: what was measured, beside what the paper printed, and under which conditions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ismallnet.benchmark.entrants import NO_WEIGHTS
from ismallnet.benchmark.published import BOUND, Published, find_published, published
from ismallnet.benchmark.seeds import HEADER, LEAST, spreads, to_cells
from ismallnet.metrics.report import DOUBTFUL
from ismallnet.metrics.strata import STRATA

if TYPE_CHECKING:
    from ismallnet.benchmark.entrants import Missing
    from ismallnet.benchmark.store import Row
    from ismallnet.benchmark.table1 import Table

_OF_MEANS = ("mean_iou", "mean_precision", "mean_recall", "f1_of_means")
_POOLED = ("iou", "niou", "precision", "recall", "f1", "pd")
_SHOWN = {stratum.name: stratum for stratum in STRATA if stratum.name in ("area", "eccentricity")}


def to_markdown(table: Table) -> str:
    """Write the page: for each data set and protocol a table, then strata, thresholds, what is missing."""
    lines = ["# Table 1, measured", ""]
    limits = {row["limit"] for row in table.rows} - {""}
    if limits:
        n = min(limits)
        lines += [f"**A rehearsal on the first {n} images of each list: no result, not to be quoted.**", ""]
    lines += [
        "Rates in per cent, Fa × 1e-6; in brackets the 95 % bootstrap interval over images. The columns "
        "*paper* are the numbers that the iSmallNet paper (ICASSP 2023, Table 1) printed, not ours; it chose "
        f"its best epoch on the test list. † marks cells of the paper that no mask can have: {BOUND}. "
        "ms an image is the median on the wall, with whatever else the machine was doing.",
    ]
    places = dict.fromkeys((row["data"], row["split"]) for row in table.rows)
    for data, split in places:
        rows = [row for row in table.rows if (row["data"], row["split"]) == (data, split)]
        lines += _of_data_set(data, split, rows, table)
    lines += _absent(_missing(table))
    lines += _thresholds(table.rows)
    lines += _provenance(table.rows)
    return "\n".join(lines) + "\n"


def _of_data_set(data: str, split: str, rows: Sequence[Row], table: Table) -> list[str]:
    lines = ["", f"## {data} {split}, {rows[0]['n']} images"]
    measured = {row["detector"] for row in rows}
    missing = [e for e in _missing(table) if e.data == data and e.name not in measured]
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        own = _in_order([row for row in rows if row["protocol"] == protocol])
        lines += ["", f"### Protocol `{protocol}`", ""]
        if protocol == "ismallnet":
            lines += _beside_the_paper(data, own, missing)
        else:
            lines += _pooled(own, [each.name for each in missing if NO_WEIGHTS in each.reason])
            lines += _clutter(own)
        lines += _without_doubtful(own)
        lines += _over_seeds(own)
    return lines + _strata(data, table.strata)


def _missing(table: Table) -> list[Missing]:
    return [*table.missing, *table.untrained]


def _beside_the_paper(data: str, rows: Sequence[Row], missing: Iterable[Missing]) -> list[str]:
    """Rows of the paper and rows of ours, one a detector; those without weights say so."""
    measured = {row["detector"]: row for row in rows}
    absent = {each.name: each.reason for each in missing}
    names = _ordered([*measured, *absent])
    names = [*names, *(row.detector for row in published() if row.data == data and row.detector not in names)]
    lines = []
    for name in _ordered(names):
        printed = find_published(name, data)
        ours = (
            [_interval(measured[name], "mean_iou"), *(_percent(measured[name], r) for r in _OF_MEANS[1:])]
            if name in measured
            else [NO_WEIGHTS if NO_WEIGHTS in absent.get(name, "") else "–", *"–––"]
        )
        lines.append([name, *_printed(printed), *ours])
    header = ["detector", "method of the paper", "paper mIoU", "paper P", "paper R", "paper F1"]
    return to_table([*header, "mIoU", "P", "R", "F1"], lines)


def _absent(missing: Iterable[Missing]) -> list[str]:
    places: dict[tuple[str, str], list[str]] = {}
    for each in missing:
        places.setdefault((each.name, each.reason), []).append(each.data)
    lines = [f"- {name} on {' and '.join(data)}: {reason}" for (name, reason), data in places.items()]
    return ["", "## Not measured", "", *lines] if lines else []


def _printed(row: Published | None) -> list[str]:
    if row is None:
        return ["–"] * 5
    mark = "" if row.feasible else " †"
    return [f"{row.method} ({row.reference})", f"{row.miou}{mark}", row.precision, row.recall, row.f1]


def _pooled(rows: Sequence[Row], untrained: Sequence[str]) -> list[str]:
    header = [
        "detector",
        "IoU",
        "nIoU",
        "P",
        "R",
        "F1",
        "Pd",
        "Fa",
        "parameters",
        "GMAC at 256×256",
        "ms an image",
    ]
    lines = []
    for row in rows:
        fa = f"{1e6 * float(row['fa']):.1f}" if row["fa"] else "–"
        cost = (
            [f"{int(row['parameters']):,}", f"{int(row['macs']) / 1e9:.2f}"]
            if row["parameters"]
            else ["–", "–"]
        )
        rates = [_interval(row, "iou"), *(_percent(row, name) for name in _POOLED[1:])]
        lines.append([row["detector"], *rates, fa, *cost, f"{float(row['ms_per_image']):.1f}"])
    lines += [[name, NO_WEIGHTS, *"–" * (len(header) - 2)] for name in _ordered(untrained)]
    return to_table(header, lines)


def _clutter(rows: Sequence[Row]) -> list[str]:
    """What the filters make of the clutter around the targets."""
    names = ("scr_gain", "suppression")
    cells = [
        [row["detector"], *(f"{float(row[name]):.3g}" if row[name] else "–" for name in names)]
        for row in rows
        if any(row[name] for name in names)
    ]
    title = "SCR gain and background suppression of the filters: the median image."
    header = ["detector", "SCR gain", "background suppression"]
    return ["", title, "", *to_table(header, cells)] if cells else []


def _without_doubtful(rows: Sequence[Row]) -> list[str]:
    reduced = [
        f"{row['detector']} {_percent(row, 'iou_without_doubtful')}"
        for row in rows
        if row["iou_without_doubtful"]
    ]
    ids = ", ".join(sorted(id for _, id in DOUBTFUL))
    return (
        ["", f"The first column without {ids}, whose mask does not fit: {', '.join(reduced)}."]
        if reduced
        else []
    )


def _over_seeds(rows: Sequence[Row]) -> list[str]:
    """The networks' rows, those of one detector together."""
    cells = [to_cells(spread) for spread in spreads(rows)]
    note = (
        f"Networks over the seeds of their training. With fewer than {LEAST} seeds a row claims nothing; it "
        "is above or below the paper's number where the interval over images (bootstrap) and that over "
        "seeds (Student's t) both are."
    )
    return ["", note, "", *to_table(HEADER, cells)] if cells else []


def _strata(data: str, strata: Sequence[Row]) -> list[str]:
    """Pd and pixel recall by size and eccentricity, under `standard`."""
    lines = []
    for name, stratum in _SHOWN.items():
        own = [
            row
            for row in strata
            if (row["data"], row["property"], row["protocol"]) == (data, name, "standard")
        ]
        if not own:
            continue
        found: dict[str, dict[str, Row]] = {}
        for row in own:
            found.setdefault(row["detector"], {})[row["bin"]] = row
        counts = next(iter(found.values()))
        header = ["detector", *(f"{label} (n = {counts[label]['targets']})" for label in stratum.labels)]
        cells = [
            [
                who,
                *(
                    f"{_percent(bins[label], 'pd')} / {_percent(bins[label], 'recall')}"
                    for label in stratum.labels
                ),
            ]
            for who, bins in ((name, found[name]) for name in _ordered(found))
        ]
        title = f"Pd / pixel recall by {stratum.title}, protocol `standard`; n: targets."
        lines += ["", title, "", *to_table(header, cells)]
    return lines


def _thresholds(rows: Sequence[Row]) -> list[str]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        protocols = found.setdefault((row["detector"], row["rule"], row["calibrated"]), [])
        protocols += [row["protocol"]] if row["protocol"] not in protocols else []
    cells = [[name, rule, ", ".join(protocols), origin] for (name, rule, origin), protocols in found.items()]
    header = ["detector", "a pixel is target where", "protocol", "chosen"]
    return ["", "## Thresholds", "", *to_table(header, cells)] if cells else []


def _provenance(rows: Sequence[Row]) -> list[str]:
    cells = dict.fromkeys(
        (row["detector"], row["network"] or "–", row["weights_sha256"][:12] or "–", row["trained_on"] or "–",
         row["training_seed"] or "–", row["date"][:10], short_commit(row["commit"]), row["hardware"])
        for row in rows
    )  # fmt: skip
    header = ["detector", "network", "weights SHA-256", "trained on", "seed", "date", "commit", "hardware"]
    notes = dict.fromkeys(
        f"- {row['detector']}, {row['data']}, `{row['protocol']}`: {row['notes']}"
        for row in rows
        if row["notes"]
    )
    lines = ["", "## Provenance", "", *to_table(header, cells)] if cells else []
    return [*lines, *(["", *notes] if notes else [])]


def _in_order(rows: Sequence[Row]) -> list[Row]:
    place = _ordered([row["detector"] for row in rows])
    return sorted(rows, key=lambda row: place.index(row["detector"]))


def _ordered(names: Iterable[str]) -> list[str]:
    """The paper's order, then the others as they come."""
    paper = list(dict.fromkeys(row.detector for row in published()))
    names = list(dict.fromkeys(names))
    return [name for name in paper if name in names] + [name for name in names if name not in paper]


def short_commit(commit: str) -> str:
    """Return a commit by its first ten digits, and whether it was dirty; a dash where there is none."""
    return commit.replace(commit[10:40], "") if commit else "–"


def _percent(row: Row, name: str) -> str:
    return f"{100 * float(row[name]):.2f}" if row[name] else "–"


def _interval(row: Row, name: str) -> str:
    if not row[f"{name}_low"]:
        return _percent(row, name)
    return f"{_percent(row, name)} [{_percent(row, f'{name}_low')}, {_percent(row, f'{name}_high')}]"


def to_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines]
