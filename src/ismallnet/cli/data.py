"""``ismallnet data check``, ``pack``, ``retile`` and ``synth``."""

from __future__ import annotations

import argparse

from ismallnet.cli.parser import DATA_SETS, Parser, add_root
from ismallnet.cli.screen import BAD_INPUT, OK, progress, say, table

SUMMARY = "look after data sets"
_CLUTTER = ("cloud", "sea", "terrain")


def add_check(parser: Parser) -> None:
    """Add the options of ``data check``."""
    add_root(parser)
    parser.add_argument(
        "--data", metavar="NAME", help=f"{DATA_SETS} (default: every public one that is found)"
    )


def run_check(options: argparse.Namespace) -> int:
    """Do the work of ``data check`` and print what came of it; the exit status."""
    from ismallnet.data.check import check

    with progress("checking") as advance:
        report = check(options.root, options.data, advance=advance)
    table(
        ("data set", "", "what", "count", "detail"),
        [(row.dataset, row.level, row.what, str(row.count), row.detail) for row in report.rows],
    )
    return OK if report.ok else BAD_INPUT


def add_pack(parser: Parser) -> None:
    """Add the options of ``data pack``."""
    add_root(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--force", action="store_true", help="overwrite it")


def run_pack(options: argparse.Namespace) -> int:
    """Do the work of ``data pack`` and print what came of it; the exit status."""
    from ismallnet.data import load_all
    from ismallnet.data.pack import pack

    splits = load_all(options.root)
    with progress("packing") as advance:
        path = pack(splits, options.out, force=options.force, advance=advance)
    megabytes = path.stat().st_size / 1e6
    say(f"{', '.join(dict.fromkeys(split.name for split in splits))}: {megabytes:.1f} MB in {path}")
    return OK


def add_retile(parser: Parser) -> None:
    """Add the options of ``data retile``."""
    parser.add_argument("image", metavar="FILE", help="an image that memory can hold, of any readable format")
    parser.add_argument("out", metavar="TILED", help="the TIFF to write, in deflated tiles, grey")


def run_retile(options: argparse.Namespace) -> int:
    """Do the work of ``data retile`` and print what came of it; the exit status."""
    from ismallnet.raster import retile

    retile(options.image, options.out)
    say(f"{options.out} can be read by rows")
    return OK


def add_synth(parser: Parser) -> None:
    """Add the options of ``data synth``."""
    parser.add_argument("out", metavar="DIR", help="folder for images/, masks/ and scenes.json")
    for name, default, text in (
        ("count", 12, "number of scenes"),
        ("seed", 0, "of the first scene; the others follow"),
        ("height", 256, "rows of a scene"),
        ("width", 320, "columns of a scene"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument(
        "--scr", nargs=2, type=float, default=(4.0, 10.0), metavar=("LOW", "HIGH"),
        help="range of the targets' signal-to-clutter ratio (default: 4 10)",
    )  # fmt: skip
    parser.add_argument(
        "--clutter",
        nargs="+",
        choices=_CLUTTER,
        default=_CLUTTER,
        help="kinds that take turns (default: all)",
    )
    parser.add_argument(
        "--format", choices=("png", "tiff"), default="png", help="of the images (default: %(default)s)"
    )
    parser.add_argument("--bits", type=int, choices=(8, 16), default=8, help="a pixel's (default: 8)")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")


def run_synth(options: argparse.Namespace) -> int:
    """Do the work of ``data synth`` and print what came of it; the exit status."""
    from ismallnet.data.synthetic import write_scenes

    with progress("drawing") as advance:
        out = write_scenes(
            options.out,
            options.count,
            seed=options.seed,
            height=options.height,
            width=options.width,
            clutter=options.clutter,
            scr=tuple(options.scr),
            bit_depth=options.bits,
            suffix=".tiff" if options.format == "tiff" else ".png",
            force=options.force,
            advance=advance,
        )
    say(f"{options.count} scenes with their masks in {out}")
    return OK
