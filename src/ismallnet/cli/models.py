"""``ismallnet list``."""

from __future__ import annotations

import argparse

from ismallnet.cli.parser import Parser
from ismallnet.cli.screen import OK, say, table

SUMMARY = "list the networks with the state of their weights, and the filters"


def add(_: Parser) -> None:
    """Add the options of the verb; it has none."""


def run(_: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    import torch

    from ismallnet.detector import WEIGHTS
    from ismallnet.filters import all_filters
    from ismallnet.models import MODELS, create_model

    rows = []
    for name, entry in MODELS.items():
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in create_model(name).parameters())
        bundled = (WEIGHTS / name / "config.json").is_file()
        rows.append((name, f"{count:,}", "bundled" if bundled else "none", entry.recipe, entry.summary))
    rows += [(name, "-", "none needed", "-", row.summary) for name, row in all_filters().items()]
    table(("detector", "parameters", "weights", "recipe", "what it is"), rows)
    say("To train a network: ismallnet train RECIPE --model.name MODEL --out runs/MODEL")
    return OK
