"""The parser of the command line, and the options that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ismallnet.config import nearest

if TYPE_CHECKING:
    from ismallnet.detector import Detector

DATA_SETS = "NUAA-SIRST, NUDT-SIRST, IRSTD-1k or folder"


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and names the nearest option when one is unknown."""

    read: Callable[[Sequence[str]], argparse.Namespace] | None = None
    """Where set, reads the verb's words in place of this parser."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, or end with a usage error where an option is not known."""
        if self.read:
            return self.read(args), []
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown[0], self._option_string_actions)
        return parsed, unknown

    def refuse(self, word: str, options: Iterable[str]) -> None:
        """End with a usage error that names the nearest of the options."""
        self.error(f"unknown argument {word!r}{nearest(word.partition('=')[0], options)}")


def add_detector(parser: Parser, name: str, *, default: str | None = None) -> None:
    """Add the options that choose a detector."""
    text = "a name from `ismallnet list`, a run's folder, or a folder with config.json and model.safetensors"
    if default is None:
        parser.add_argument(name, metavar="MODEL", help=text)
    else:
        parser.add_argument(name, default=default, metavar="MODEL", help=f"{text} (default: %(default)s)")
    parser.add_argument(
        "--device", default="auto", help="of a network: auto, cpu, cuda, mps (default: %(default)s)"
    )


def add_runtime(parser: Parser, *, default: str | None) -> None:
    """Add what runs a network, and in which arithmetic."""
    parser.add_argument(
        "--runtime",
        default=default,
        choices=("auto", "torch", "onnxruntime", "openvino"),
        help="what runs a network; auto: the soonest done of those installed that give PyTorch's scores here "
        f"(default: {default or 'torch; of an exported network the fastest'})",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "bf16"),
        help="bf16 is faster where the processor has it, by torch and openvino (default: %(default)s)",
    )


def add_views(parser: Parser) -> None:
    """Add test-time augmentation."""
    parser.add_argument(
        "--views",
        type=int,
        default=1,
        choices=(1, 2, 4, 8),
        help="test-time augmentation: average the response over so many flips and quarter turns of an image, "
        "in so many times the time (default: 1, the image as it is)",
    )
    parser.add_argument(
        "--confirm",
        action="store_true",
        help="of a network: take a target only where the image enlarged or shrunk 1.25 times shows it too: "
        "fewer false alarms, in the time of two more views",
    )


def take_views(detector: Detector, options: argparse.Namespace) -> None:
    """Let a detector do what the options of ``add_views`` say.

    Raises:
        ValueError: Confirmation of a filter.
    """
    if options.confirm and detector.runtime is None:
        raise ValueError(
            f"{detector.name} is a filter: its response has no scale that other sizes of an image share; "
            "leave --confirm out"
        )
    detector.views, detector.confirm = options.views, options.confirm


def add_decision(parser: Parser) -> None:
    """Add the options that decide which pixels of a score are target; one of them at most."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--threshold", type=float, metavar="T", help="least score of a target, of a network (default: 0.5)"
    )
    choice.add_argument(
        "--k",
        type=float,
        help="least response of a target, of a filter, in standard deviations above the mean of the image's "
        "response (default: as calibrated on train lists)",
    )
    choice.add_argument(
        "--calibration", metavar="PATH", help="file or folder of `ismallnet calibrate`: its threshold or k"
    )


def add_root(parser: Parser) -> None:
    """Add the folder of data sets."""
    parser.add_argument("root", metavar="ROOT", help="folder of a data set, or the folder that holds several")


def add_out(parser: Parser, default: str, what: str) -> None:
    """Add the folder to write, and whether it may hold something."""
    parser.add_argument(
        "--out", default=default, metavar="DIR", help=f"folder for {what} (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
