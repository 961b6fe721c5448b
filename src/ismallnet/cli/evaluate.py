"""``ismallnet evaluate``."""

from __future__ import annotations

import argparse

import ismallnet
from ismallnet.cli.parser import (
    DATA_SETS,
    Parser,
    add_decision,
    add_detector,
    add_runtime,
    add_views,
    take_views,
)
from ismallnet.cli.screen import OK, progress, say, table

SUMMARY = "score a detector on a data set under a named protocol"


def add(parser: Parser) -> None:
    """Add the options of the verb."""
    add_detector(parser, "model")
    add_decision(parser)
    add_runtime(parser, default=None)
    add_views(parser)
    parser.add_argument("--data", required=True, metavar="NAME", help=DATA_SETS)
    parser.add_argument("--root", default="data", metavar="DIR", help="where it is (default: %(default)s)")
    parser.add_argument("--split", default="test", help="which list of it (default: %(default)s)")
    parser.add_argument(
        "--protocol",
        default="standard",
        help="standard, ismallnet, dnanet, basicirstd or acm (default: %(default)s)",
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="replicates of the intervals (default: 1000)"
    )
    parser.add_argument("--curves", action="store_true", help="ROC, PR and FROC curves too")
    parser.add_argument(
        "--purpose",
        default="unstated",
        metavar="TEXT",
        help="why a test list is opened (default: %(default)s)",
    )
    parser.add_argument(
        "--log",
        default="results",
        metavar="DIR",
        help="folder of test_evaluations.csv, where every look at a test list leaves a row; there is no way "
        "to look without (default: %(default)s)",
    )
    parser.add_argument("--out", metavar="DIR", help="write report.json, report.md and per_image.csv here")
    parser.add_argument("--force", action="store_true", help="overwrite what is in --out")


def run(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet import data
    from ismallnet.checkpoint import check_out
    from ismallnet.evaluate import evaluate, log_test_evaluation, write_report

    if options.out:
        check_out(options.out, force=options.force)
    detector = ismallnet.load(
        options.model,
        device=options.device,
        threshold=options.threshold,
        k=options.k,
        calibration=options.calibration,
        runtime=options.runtime,
        precision=options.precision,
    )
    take_views(detector, options)
    dataset = data.load(options.data, options.root, options.split)
    with progress("evaluating") as advance:
        report = evaluate(
            detector,
            dataset,
            protocol=options.protocol,
            bootstrap=options.bootstrap,
            curves=options.curves,
            advance=advance,
        )
    if report.on_test_list:  # before the figures are shown
        say(f"logged in {log_test_evaluation(report, options.log, purpose=options.purpose)}")
    title = f"{report.detector} on {report.data} {report.split}, {len(dataset)} images, {options.protocol}"
    table(("quantity", "value", "95 % interval"), report.rows(), title=title)
    table(("targets by", "bin", "targets", "Pd", "pixel recall"), report.strata_rows())
    for note in report.all_notes():
        say(f"note: {note}")
    if options.out:
        write_report(report, options.out, force=options.force)
        say(f"the report is in {options.out}")
    return OK
