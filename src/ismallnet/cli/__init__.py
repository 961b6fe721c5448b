"""The command line: a module a verb, that parses, calls and prints. Nothing outside this folder prints.

Exit status: 0 when all went well; 1 when the work was done but something was wrong with some input, each
named; 2 when the command could not be carried out as it was given. Whatever is heavy is imported where it is
used, so that help is instant.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ismallnet
from ismallnet.cli import (
    benchmark,
    calibrate,
    convert,
    data,
    detect,
    evaluate,
    export,
    labels,
    models,
    timing,
    train,
)
from ismallnet.cli.parser import Parser
from ismallnet.cli.screen import INTERRUPTED, OK, USAGE, complain, warn


class Verb(NamedTuple):
    """A row of the table of commands."""

    summary: str
    add: Callable[[Parser], None]
    """Adds the options."""
    run: Callable[[argparse.Namespace], int]
    """Does the work; the exit status."""


VERBS = {
    "detect": Verb(detect.SUMMARY, detect.add, detect.run),
    "train": Verb(train.SUMMARY, train.add, train.run),
    "evaluate": Verb(evaluate.SUMMARY, evaluate.add, evaluate.run),
    "calibrate": Verb(calibrate.SUMMARY, calibrate.add, calibrate.run),
    "export": Verb(export.SUMMARY, export.add, export.run),
    "labels": Verb(labels.SUMMARY, labels.add, labels.run),
    "convert": Verb(convert.SUMMARY, convert.add, convert.run),
    "list": Verb(models.SUMMARY, models.add, models.run),
}
DATA_VERBS = {
    "check": Verb("say what is wrong with a data set", data.add_check, data.run_check),
    "pack": Verb("put data sets into one small file that loads in seconds", data.add_pack, data.run_pack),
    "retile": Verb("write an image as a TIFF that is read by rows", data.add_retile, data.run_retile),
    "synth": Verb("make synthetic infrared scenes with exact masks", data.add_synth, data.run_synth),
}
BENCHMARK_VERBS = {
    "table1": Verb(
        "measure every detector beside the paper's numbers", benchmark.add_table1, benchmark.run_table1
    ),
    "figure3": Verb(
        "draw what every detector finds in some images", benchmark.add_figure3, benchmark.run_figure3
    ),
    "curves": Verb(
        "draw every detector's curve in one plot a data set", benchmark.add_curves, benchmark.run_curves
    ),
    "speed": Verb(
        "time every runtime and precision against eager fp32 PyTorch, the accuracy beside it",
        timing.add_speed,
        timing.run_speed,
    ),
    "train": Verb("time training steps of the plain loop and of ours", timing.add_train, timing.run_train),
    "ablation": Verb(
        "train the compact network's variants, a queue that many can share",
        benchmark.add_ablation,
        benchmark.run_ablation,
    ),
    "errors": Verb(
        "show a detector's worst errors, and what each kind of them costs",
        benchmark.add_errors,
        benchmark.run_errors,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows the program's name; by default those of the process.

    Returns:
        The exit status.
    """
    options = command_parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: warn(str(message))
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except (KeyError, IndexError):  # ours are none of these
        raise
    except BrokenPipeError:  # the reader of our output has gone, as in `ismallnet list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (ValueError, OSError, LookupError, ImportError, FloatingPointError) as error:
        if options.debug:
            raise
        complain(str(error))
        return USAGE
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    return status


def command_parser() -> Parser:
    """Build the parser of all verbs."""
    parser = Parser(prog="ismallnet", description="Infrared small-target detection.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_verbs(verbs, VERBS)
    for name, summary, own in (
        ("data", data.SUMMARY, DATA_VERBS),
        ("benchmark", benchmark.SUMMARY, BENCHMARK_VERBS),
    ):
        group = verbs.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        _add_verbs(group.add_subparsers(title="verbs", metavar="VERB", required=True), own)
    return parser


def _add_verbs(to: argparse._SubParsersAction[Parser], verbs: dict[str, Verb]) -> None:
    for name, verb in verbs.items():
        parser = to.add_parser(name, help=verb.summary, description=f"{verb.summary.capitalize()}.")
        verb.add(parser)
        parser.add_argument("--debug", action="store_true", help="show where an error came from")
        parser.set_defaults(run=verb.run)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"ismallnet {ismallnet.__version__}")
        parser.exit()
