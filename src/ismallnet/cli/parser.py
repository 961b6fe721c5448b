"""The parser of the command line, and the options that several verbs share."""

from __future__ import annotations

import argparse
import difflib
from typing import Any

DATA_SETS = "NUAA-SIRST, NUDT-SIRST, IRSTD-1k or folder"
KEY, _OPEN = "recipe:", "model.options"
"""How a recipe's key is marked among the parsed options; the key below which any name is taken."""


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and names the nearest option when one is unknown."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, or end with a usage error where an option is not known."""
        if f"--{_OPEN}" in self._option_string_actions:
            for option in {str(given).partition("=")[0] for given in args or ()}:
                if option.startswith(f"--{_OPEN}."):
                    self.add_key(option[2:])
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unknown argument {unknown[0]!r}{hint}")
        return parsed, unknown

    def add_key(self, key: str, *, to: argparse._ActionsContainer | None = None, help: str = "") -> None:
        """Add a key of the recipe as an option."""
        absent = argparse.SUPPRESS
        (to or self).add_argument(f"--{key}", dest=KEY + key, metavar="VALUE", default=absent, help=help)


def add_model(parser: Parser, name: str, *, default: str | None = None) -> None:
    """Add the options that choose a detector."""
    text = "a name from `ismallnet list`, a run's folder, or a folder with config.json and model.safetensors"
    if default is None:
        parser.add_argument(name, metavar="MODEL", help=text)
    else:
        parser.add_argument(name, default=default, metavar="MODEL", help=f"{text} (default: %(default)s)")
    parser.add_argument("--threshold", type=float, metavar="T", help="least score of a target (default: 0.5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: %(default)s)")


def add_root(parser: Parser) -> None:
    """Add the folder of data sets."""
    parser.add_argument("root", metavar="ROOT", help="folder of a data set, or the folder that holds several")


def add_out(parser: Parser, default: str, what: str) -> None:
    """Add the folder to write, and whether it may hold something."""
    parser.add_argument(
        "--out", default=default, metavar="DIR", help=f"folder for {what} (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
