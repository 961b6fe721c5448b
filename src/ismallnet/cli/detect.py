"""``ismallnet detect``."""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import ismallnet
from ismallnet.cli.parser import (
    Parser,
    add_decision,
    add_detector,
    add_out,
    add_runtime,
    add_views,
    take_views,
)
from ismallnet.cli.screen import OK, failed, progress, say, table, warn

if TYPE_CHECKING:
    from ismallnet.tiles import Tiling

SUMMARY = "find small targets in images, stacks and videos"
_ROWS = 40
"""Frames that the table shows; all of them are in the files."""


def add(parser: Parser) -> None:
    """Add the options of the verb."""
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="images, stacks, videos, folders and glob patterns"
    )
    add_detector(parser, "--model", default="ismallnet-s")
    add_decision(parser)
    add_runtime(parser, default="auto")
    add_views(parser)
    add_out(parser, "detections", "the pictures and tables")
    parser.add_argument(
        "--save",
        default="overlay,csv,json",
        metavar="KINDS",
        help="overlay, mask, score, interior, boundary, csv, json, jsonl, coco, with commas "
        "(default: %(default)s); the overlay of a video is a video",
    )
    parser.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="intensities that become black and white (default: 0 and 255 for 8-bit images, else the 0.1 and "
        "99.9 percentiles of the image, of all pages of a stack, of all frames of a video)",
    )

    parser.add_argument(
        "--tile",
        type=_tiling,
        default="auto",
        metavar="PX|auto|off",
        help="cut images longer than PX into overlapping tiles of that side; auto: images of over a "
        "megapixel, into tiles of 512; off: never, and no TIFF is read by rows (default: %(default)s)",
    )


def _tiling(word: str) -> Tiling | None:
    """Read the option ``--tile``."""
    from ismallnet.tiles import Tiling

    if word in ("auto", "off"):
        return Tiling() if word == "auto" else None
    try:
        side = int(word)
        return Tiling(side, min(side // 4, Tiling().overlap), above=0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{word!r}; give auto, off, or the side of a tile in pixels, at least 128"
        ) from error


def _count(sources: list[str]) -> int:
    """Guess how many frames there are: a video has many. What is wrong with the sources is said later."""
    from ismallnet.listing import find_images
    from ismallnet.streams import VIDEO_SUFFIXES

    try:
        return sum(1000 if path.suffix.lower() in VIDEO_SUFFIXES else 1 for path in find_images(sources))
    except FileNotFoundError:
        return 0


def run(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet.detect import detect_files
    from ismallnet.shared import detect_shared, find_place, is_shared, take_device

    place = find_place(os.environ)
    shared = is_shared(place, options.out)
    if shared and options.device == "auto":
        take_device(os.environ)
    save = [kind.strip() for kind in options.save.split(",")]
    if options.runtime == "auto" and (shared or {"interior", "boundary"} & set(save)):
        options.runtime = None  # a graph has the score alone, and not every process may have one
    looks = options.views + 2 * options.confirm
    detector = ismallnet.load(
        options.model,
        device=options.device,
        threshold=options.threshold,
        k=options.k,
        calibration=options.calibration,
        runtime=options.runtime,
        precision=options.precision,
        images=looks * _count(options.sources) if options.runtime == "auto" else 1,
    )
    take_views(detector, options)
    detector.tiling = options.tile
    with progress("detecting", unit="frames") as advance:
        detect = functools.partial(detect_shared, place=place) if shared else detect_files
        report = detect(
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
        for frame in report.frames[:_ROWS]
    ]
    table(("image", "size", "range", "targets", "peak score"), rows)
    if report.count > _ROWS:
        say(f"… and {report.count - _ROWS} images more")
    for note in report.notes:
        warn(note)
    by = detector.name + (f", {detector.runtime} in {detector.precision}" if detector.runtime else "")
    where = "its share" if report.left else f"see {report.out}"
    say(f"{report.targets} targets in {report.count} images by {by}; {where}")
    if report.failures > len(report.failed):
        warn(f"{report.failures} files and frames could not be read, the first of them:")
    status = failed([str(failure) for failure in report.failed])
    if report.left:
        whose = f"process {place.rank} of {place.world}, from 0"
        say(f"{whose}: done; {report.left} files are left to others; who ends last writes {report.out}")
        return OK  # torchrun ends all processes where one has another status
    return status
