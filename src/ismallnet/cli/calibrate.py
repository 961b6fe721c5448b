"""``ismallnet calibrate``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import ismallnet
from ismallnet.cli.parser import DATA_SETS, Parser, add_detector, add_out
from ismallnet.cli.screen import OK, progress, say, table, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

SUMMARY = "choose the threshold of a network, or the k of a filter, on train lists"
_CRITERIA = ("iou", "niou", "f1")
_TITLES = {"iou": "IoU", "niou": "nIoU", "f1": "F1", "pd": "Pd", "fa": "Fa"}
_ROWS = 11
"""Values of the sweep that the table shows, beside the chosen one; all of them are in the file."""


def add(parser: Parser) -> None:
    """Add the options of the verb."""
    add_detector(parser, "model")
    parser.add_argument("--data", required=True, nargs="+", metavar="NAME", help=DATA_SETS)
    parser.add_argument("--root", default="data", metavar="DIR", help="where they are (default: %(default)s)")
    parser.add_argument("--split", default="train", help="which list of them; no test list (default: train)")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--criterion",
        choices=_CRITERIA,
        default="iou",
        help="what is to be highest: pooled IoU, nIoU or pooled F1 (default: %(default)s)",
    )
    choice.add_argument(
        "--fa",
        type=float,
        metavar="BUDGET",
        help="the lowest value that stays within so many false-alarm pixels a pixel, such as 10e-6",
    )
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="part of each list that is scored, drawn at random, for slow detectors (default: 1, all of it)",
    )
    add_out(parser, "calibration", "calibration.json, sweep.csv and sweep.png")


def run(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet import data
    from ismallnet.calibrate import calibrate, write_calibration
    from ismallnet.checkpoint import check_out
    from ismallnet.filters import list_filters

    check_out(options.out, force=options.force)
    any_k = 1.0 if options.model in list_filters() else None  # a new filter has none bundled
    detector = ismallnet.load(options.model, device=options.device, k=any_k)
    datasets = [data.load(name, options.root, options.split) for name in options.data]
    with progress("calibrating") as advance:
        result = calibrate(
            detector,
            datasets,
            criterion=options.criterion,
            fa=options.fa,
            share=options.share,
            advance=advance,
        )
    every = range(0, len(result.values), len(result.values) // (_ROWS - 1))
    table(
        (result.variable, *_TITLES.values()),
        [
            (f"{result.values[i]:g}", *_cells({name: result.sweep[name][i] for name in _TITLES}))
            for i in sorted({*every, result.index})
        ],
        title=f"{result.detector} on {'; '.join(f'{each.name} {each.split}' for each in result.data)}",
    )
    rows = [(each.name, str(each.n), *_cells(each.rates)) for each in result.data]
    rows.append(("together", str(sum(each.n for each in result.data)), *_cells(result.rates)))
    title = f"{result.variable} = {result.value:g}, by {result.criterion}"
    table(("data set", "images", *_TITLES.values()), rows, title=title)
    if result.at_edge:
        warn(
            f"{result.variable} = {result.value:g} is the end of what was tried; see {options.out}/sweep.csv"
        )
    write_calibration(result, options.out, force=options.force)
    say(f"to use it: --calibration {options.out}")
    return OK


def _cells(rates: Mapping[str, float]) -> list[str]:
    from ismallnet.metrics.rates import Rate
    from ismallnet.metrics.report import format_rate

    return [format_rate(name, Rate(rates[name]))[0] for name in _TITLES]
