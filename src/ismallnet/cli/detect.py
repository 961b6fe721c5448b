"""``ismallnet detect``."""

from __future__ import annotations

import argparse
from pathlib import Path

import ismallnet
from ismallnet.cli.parser import Parser, add_decision, add_detector, add_out, add_runtime
from ismallnet.cli.screen import failed, progress, say, table, warn

SUMMARY = "find small targets in images"
_ROWS = 40
"""Images that the table shows; all of them are in the files."""


def add(parser: Parser) -> None:
    """Add the options of the verb."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="images, folders and glob patterns")
    add_detector(parser, "--model", default="ismallnet-s")
    add_decision(parser)
    add_runtime(parser, default="auto")
    add_out(parser, "detections", "the pictures and tables")
    parser.add_argument(
        "--save",
        default="overlay,csv,json",
        metavar="KINDS",
        help="overlay, mask, score, interior, boundary, csv, json, coco, with commas (default: %(default)s)",
    )
    parser.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="intensities that become black and white (default: 0 and 255 for 8-bit images, else the 0.1 and "
        "99.9 percentiles of the image)",
    )


def run(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet.detect import detect_files, find_images

    save = [kind.strip() for kind in options.save.split(",")]
    if options.runtime == "auto" and {"interior", "boundary"} & set(save):
        options.runtime = None  # graphs have the score alone
    detector = ismallnet.load(
        options.model,
        device=options.device,
        threshold=options.threshold,
        k=options.k,
        calibration=options.calibration,
        runtime=options.runtime,
        precision=options.precision,
        images=len(find_images(options.sources)),
    )
    with progress("detecting") as advance:
        report = detect_files(
            options.sources,
            detector,
            out=options.out,
            range=options.range and tuple(options.range),
            save=save,
            force=options.force,
            advance=advance,
        )
    rows = [
        (
            Path(frame.image).name + (f" [{frame.frame}]" if frame.frame else ""),
            f"{frame.width} × {frame.height}",
            f"{frame.low:g} to {frame.high:g}, {frame.rule}",
            str(len(frame.targets)),
            f"{max(target.peak for target in frame.targets):.3f}" if frame.targets else "",
        )
        for frame in report.frames
    ]
    table(("image", "size", "range", "targets", "peak score"), rows[:_ROWS])
    if len(rows) > _ROWS:
        say(f"… and {len(rows) - _ROWS} images more")
    for frame in report.frames:
        if frame.warning:
            warn(f"{frame.image}: {frame.warning}")
    found = sum(len(frame.targets) for frame in report.frames)
    by = detector.name + (f", {detector.runtime} in {detector.precision}" if detector.runtime else "")
    say(f"{found} targets in {len(report.frames)} images by {by}; see {report.out}")
    return failed([f"{failure.image}: {failure.reason}" for failure in report.failed])
