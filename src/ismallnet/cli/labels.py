"""``ismallnet labels``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ismallnet.cli.parser import Parser, add_out
from ismallnet.cli.screen import failed, progress, say

SUMMARY = "decouple masks into interior and boundary maps, as pictures"
_RECIPES = ("official", "ldf", "target")


def add(parser: Parser) -> None:
    """Add the options of the verb."""
    parser.add_argument("masks", nargs="+", metavar="MASKS", help="masks: files, folders and glob patterns")
    add_out(parser, "labels", "the pictures")
    parser.add_argument(
        "--recipe", choices=_RECIPES, default="target", help="how masks are decoupled (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet.checkpoint import check_out
    from ismallnet.data.dataset import read_mask
    from ismallnet.detect import reason
    from ismallnet.labels import write_label_pictures
    from ismallnet.listing import find_images

    out = Path(options.out)
    check_out(out, force=options.force)
    files = find_images(options.masks)
    common = os.path.commonpath([os.path.abspath(file.parent) for file in files])
    broken = []
    with progress("decoupling") as advance:
        for done, file in enumerate(files, 1):
            try:
                mask = read_mask(file)
            except (OSError, ValueError) as error:
                broken.append(f"{file}: {reason(error, file)}")
            else:
                folder = out / os.path.relpath(file.parent, common)
                folder.mkdir(parents=True, exist_ok=True)
                write_label_pictures(mask, folder, file.stem, recipe=options.recipe)
            advance(done, len(files), file.name)
    say(f"interior and boundary of {len(files) - len(broken)} masks, recipe {options.recipe}; see {out}")
    return failed(broken)
