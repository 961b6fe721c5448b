"""A detector's errors as a page with pictures, a summary without, and a table.

The pictures are parts of the data set's images: the page is not to be committed where those are not.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from ismallnet.benchmark.errors import KINDS, Error, Kind, Survey, compare
from ismallnet.benchmark.figure3 import zoom_on
from ismallnet.benchmark.page import short_commit, to_table
from ismallnet.checkpoint import written_whole
from ismallnet.draw import COLOURS, enlarge, outline, panel, stretch
from ismallnet.metrics.report import format_rate
from ismallnet.metrics.strata import STRATA, Stratum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.data import Dataset
    from ismallnet.types import Sample

COLUMNS = (
    "change", "kind", "place", "data", "split", "id", "x", "y", "size", "scr", "peak", "fp", "fn", "badness",
)  # fmt: skip
"""Of errors.csv: fields of `errors.Error`; ``place`` counts the errors of a kind, 1 the worst."""
FILES = ("errors.html", "errors.md", "errors.csv")
CONTEXT_PX = 48
"""Least side of what a picture shows of the image."""
SIDE_PX = 240
"""A picture is enlarged by the largest whole factor that keeps it within this."""
_TITLES: dict[Kind, str] = {
    "false alarm": "false alarms",
    "miss": "misses",
    "shape": "shapes of found targets",
}
_BINNED = {stratum.name: stratum for stratum in STRATA if stratum.name in ("area", "scr")}
_TEST = (
    "These are images of a test list. The page reports on finished work; it must not choose a network, a "
    "recipe, a checkpoint or a threshold. The look is in the log of test evaluations."
)
_COSTS = (
    "In points of pooled IoU. Lost: the wrong pixels of the kind over the union of all predicted and true "
    "pixels; the three add up to 100 - IoU. IoU without: with these pixels alone made right, false positives "
    "removed and false negatives filled in."
)


class Block(NamedTuple):
    """A table of the summary."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_errors(
    survey: Survey,
    dataset: Dataset,
    out: str | Path,
    *,
    before: Survey | None = None,
    top: int = 30,
    force: bool = False,
) -> list[Path]:
    """Write errors.html, errors.md and errors.csv into a folder; all of them, or none after an exception.

    Args:
        survey: The detector's errors.
        dataset: The list that they are of.
        out: Folder, made where absent.
        before: Another detector's errors on the same list, to say which are new and which are gone.
        top: Pictures a kind, the worst; the table has all errors.
        force: Write into a folder that holds something.

    Returns:
        The files.

    Raises:
        FileExistsError: The folder holds something and ``force`` is not set.
        ValueError: ``top`` below 0.
    """
    if top < 0:
        raise ValueError(f"top is a number of pictures, 0 or more; got {top}")
    errors, gone = (survey.errors, ()) if before is None else compare(survey.errors, before.errors)
    title, facts = _heading(survey, before)
    tables = blocks(survey, before)
    shown = [(f"Worst {_TITLES[kind]}", _of(errors, kind)) for kind in KINDS]
    if before is not None:
        shown += [
            (f"Gone {_TITLES[kind]}, of {before.report.detector}", _of(gone, kind)) for kind in KINDS[:2]
        ]
    with written_whole(Path(out), force=force) as made:
        (made / "errors.csv").write_text(_csv(survey, errors, gone), encoding="utf-8")
        (made / "errors.md").write_text(_markdown(title, facts, tables), encoding="utf-8")
        with (made / "errors.html").open("w", encoding="utf-8") as page:
            page.write(_head(title, facts, tables))
            for heading, own in shown:
                page.write(f"<h2>{escape(heading)}: {min(top, len(own))} of {len(own)}</h2>\n")
                for place, error in enumerate(own[:top], 1):
                    page.write(_figure(place, error, dataset.read(error.id), survey, before))
            page.write("</body></html>\n")
    return [Path(out) / name for name in FILES]


def blocks(survey: Survey, before: Survey | None = None) -> list[Block]:
    """Return the tables above the pictures: what each kind costs, and errors by size and contrast."""
    tables = [_costs("What each kind of errors costs", survey)]
    if before is not None:
        tables += [_costs(f"Before: {before.report.detector}", before), _changes(survey, before)]
    return tables + [_strata(stratum, survey, before) for stratum in _BINNED.values()]


def _costs(title: str, survey: Survey) -> Block:
    header = ("kind", "errors", "false px", "missed px", "lost", "IoU without", "gain")
    now = survey.report.rates.overall["iou"].value
    costs = survey.costs
    parts = [(_TITLES[cost.kind], cost[1:]) for cost in costs]
    parts.append(("all", (*(sum(column) for column in list(zip(*costs, strict=True))[1:5]), 1.0)))
    rows = [
        [name, *map(str, counts), *(f"{100 * value:.2f}" for value in (share, iou, iou - now))]
        for name, (*counts, share, iou) in parts
    ]
    return Block(title, _COSTS, header, rows)


def _changes(survey: Survey, before: Survey) -> Block:
    """How many errors of each kind are new, stay and are gone."""
    errors = [error for part in compare(survey.errors, before.errors) for error in part]
    names = ("new", "stays", "gone")
    rows = [
        [_TITLES[kind], *(str(sum(e.change == name for e in _of(errors, kind))) for name in names)]
        for kind in KINDS
    ]
    note = (
        "A miss or a shape stays where the same target has one in both; a false alarm where the two "
        "detections are as near as a match has to be."
    )
    return Block("Changes", note, ("kind", *names), rows)


def _strata(stratum: Stratum, survey: Survey, before: Survey | None) -> Block:
    truth = np.concatenate([getattr(count.details, stratum.name) for count in survey.report.counts])
    header, columns = [stratum.title, "targets"], [_tally(truth, stratum)]
    for title, each in (("", survey), ("before: ", before)):
        if each is not None:
            header += [f"{title}missed", f"{title}false alarms"]
            columns += [_binned(each.errors, kind, stratum) for kind in ("miss", "false alarm")]
    labels = (*stratum.labels, "not defined", "all")
    rows = [[label, *map(str, counts)] for label, *counts in zip(labels, *columns, strict=True)]
    rows = [row for row in rows if row[0] != "not defined" or set(row[1:]) != {"0"}]
    return Block(f"By {stratum.title}", "A false alarm is counted by its own.", header, rows)


def _binned(errors: Iterable[Error], kind: Kind, stratum: Stratum) -> list[int]:
    field = "size" if stratum.name == "area" else stratum.name
    return _tally(np.array([getattr(error, field) for error in _of(errors, kind)], float), stratum)


def _tally(values: NDArray[np.float64], stratum: Stratum) -> list[int]:
    """Counts by bin, then of values that are not defined, then of all."""
    bins = stratum.bins(values)
    inside = [int((bins == index).sum()) for index in range(len(stratum.labels))]
    return [*inside, int((bins < 0).sum()), len(values)]


def _of(errors: Iterable[Error], kind: Kind) -> list[Error]:
    return [error for error in errors if error.kind == kind]


def _heading(survey: Survey, before: Survey | None) -> tuple[str, list[str]]:
    report = survey.report
    facts = [_TEST] if report.on_test_list else []
    for title, each in (("", survey), ("Before: ", before)):
        if each is None:
            continue
        of, rates = each.report, each.report.rates.overall
        named = (("IoU", "iou"), ("nIoU", "niou"), ("Pd", "pd"), ("Fa", "fa"))
        figures = ", ".join(f"{name} {format_rate(key, rates[key])[0]}" for name, key in named)
        weights, date, commit = (
            str(of.provenance[key] or "") for key in ("weights_sha256", "date", "commit")
        )
        facts.append(
            f"{title}{of.detector} (weights SHA-256 {weights[:12] or '–'}; {of.rule}): {figures}; {date}, "
            f"commit {short_commit(commit)}."
        )
    facts.append(
        f"{len(report.counts)} images of {report.data} {report.split} (list SHA-256 "
        f"{report.split_sha256[:12]}), protocol {report.protocol.name}."
    )
    return f"Errors of {report.detector} on {report.data} {report.split}", facts


def _csv(survey: Survey, errors: Sequence[Error], gone: Sequence[Error]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    place = [f"{survey.report.data}", survey.report.split]
    for part in (errors, gone):
        for kind in KINDS:
            for rank, error in enumerate(_of(part, kind), 1):
                numbers = (f"{value:.6g}" for value in (error.x, error.y))
                scr = "" if np.isnan(error.scr) else f"{error.scr:.4g}"
                tail = (error.size, scr, f"{error.peak:.4g}", error.fp, error.fn, f"{error.badness:.6g}")
                writer.writerow([error.change, kind, rank, *place, error.id, *numbers, *tail])
    return text.getvalue()


def _markdown(title: str, facts: Sequence[str], tables: Sequence[Block]) -> str:
    lines = [f"# {title}"]
    for fact in facts:
        lines += ["", fact]
    for block in tables:
        lines += ["", f"## {block.title}", "", block.note, "", *to_table(block.header, block.rows)]
    return "\n".join(lines) + "\n"


def _head(title: str, facts: Sequence[str], tables: Sequence[Block]) -> str:
    """The page up to its pictures."""
    style = (
        "body{font-family:sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse}"
        "td,th{padding:.2em .7em;border-bottom:1px solid #ccc;text-align:right}"
        "td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:.5em 1em .5em 0}"
        "figcaption{font-size:small}"
    )
    lines = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{style}</style></head><body><h1>{escape(title)}</h1>",
        *(f"<p>{escape(fact)}</p>" for fact in facts),
    ]
    for block in tables:
        cells = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in block.rows]
        head = "".join(f"<th>{escape(cell)}</th>" for cell in block.header)
        lines += [f"<h2>{escape(block.title)}</h2><p>{escape(block.note)}</p>", f"<table><tr>{head}</tr>"]
        lines += [*cells, "</table>"]
    return "\n".join(lines) + "\n"


def _figure(place: int, error: Error, sample: Sample, survey: Survey, before: Survey | None) -> str:
    """One error: the image, what was decided beside the truth, and the score; where it was, and how bad."""
    window = _window(error, sample.mask.shape)
    factor = max(1, SIDE_PX // (window[0].stop - window[0].start))
    grey = enlarge(stretch(sample.image[window]), factor)
    image = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    pictures, captions = [image], ["image"]
    for title, each in (("", survey), ("before: ", before)):
        if each is None:
            continue
        score, mask = each.look(sample)
        decided = image.copy()
        outline(decided, sample.mask[window], COLOURS["missed"])
        outline(decided, mask[window], COLOURS["detected"])
        pictures += [decided, enlarge(_levels(score[window], each), factor)]
        captions += [f"{title}mask, truth", f"{title}score"]
    ok, png = cv2.imencode(".png", panel(pictures, captions), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert ok
    data = base64.b64encode(png.tobytes()).decode()
    scr = "–" if np.isnan(error.scr) else f"{error.scr:.2f}"
    text = (
        f"{place}. {sample.id} at x {error.x:.1f}, y {error.y:.1f}: {error.size} px, SCR {scr}, peak "
        f"{error.peak:.2f}, {error.fp} false and {error.fn} missed px, badness {error.badness:.4g}"
        + (f" · {error.change}" if error.change else "")
    )
    alt = f"{error.kind} in {sample.id}"
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
        f"<figcaption>{escape(text)}</figcaption></figure>\n"
    )


def _window(error: Error, shape: tuple[int, ...]) -> tuple[slice, slice]:
    height, width = shape
    y, x, half = zoom_on((error.y, error.x), error.box, (height, width), least_px=CONTEXT_PX)
    top, left, side = round(y - half + 0.5), round(x - half + 0.5), round(2 * half)
    return slice(top, top + side), slice(left, left + side)


def _levels(score: NDArray[Any], survey: Survey) -> NDArray[np.uint8]:
    """A score as grey levels: 0 to 1 black to white, or stretched where it has no scale."""
    if survey.unscaled:
        return stretch(score)
    return np.asarray(np.round(255 * np.clip(score, 0, 1)), np.uint8)
