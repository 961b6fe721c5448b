"""``ismallnet convert``."""

from __future__ import annotations

import argparse

from ismallnet.cli.parser import Parser
from ismallnet.cli.screen import OK, say

SUMMARY = "make weights of the official codes a model folder of ours"
_MODELS = ("ismallnet", "dnanet")


def add(parser: Parser) -> None:
    """Add the options of the verb."""
    parser.add_argument(
        "weights", metavar="WEIGHTS", help="file of the official code: .pth, .pt, .pth.tar or .safetensors"
    )
    parser.add_argument("--model", required=True, choices=_MODELS, help="whose weights they are")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write, as detect takes it")
    parser.add_argument("--force", action="store_true", help="overwrite it")


def run(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet.convert import convert

    saved = convert(options.weights, options.out, model=options.model, force=options.force)
    chosen = ", ".join(f"{name}: {value}" for name, value in saved.options.items())
    say(f"{saved.name} ({chosen}) in {options.out}")
    say(f"To use it: ismallnet detect IMAGES --model {options.out}")
    return OK
