"""``ismallnet list``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ismallnet.checkpoint import read_saved
from ismallnet.cli.parser import Parser
from ismallnet.cli.screen import OK, say, table, warn

SUMMARY = "list the networks with the state of their weights, and the filters"


def add(_: Parser) -> None:
    """Add the options of the verb; it has none."""


def run(_: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status.

    A network with weights is that of the weights, with its options where they are not what the name means.
    """
    import torch

    from ismallnet.catalogue import WEIGHTS, list_weights
    from ismallnet.filters import all_filters
    from ismallnet.models import MODELS, all_models, create_model, describe, distribution_of

    rows, weights = [], list_weights()
    for name, entry in all_models().items():
        folder = weights.pop(name, None)
        options = _options_of(folder, name)
        try:
            with torch.device("meta" if name in MODELS else "cpu"):  # theirs may need values
                count = sum(parameter.numel() for parameter in create_model(name, **options).parameters())
        except Exception as error:
            if name in MODELS and not options:
                raise
            warn(f"left out: {name} of {distribution_of(name) or folder} cannot be built: {error!r}")
            continue
        kept = "none" if folder is None else "bundled" if folder.parent == WEIGHTS else str(folder)
        if (form := describe(name, options)) != name:
            kept += f", {form}"
        rows.append((name, f"{count:,}", kept, entry.recipe, entry.summary))
    rows += [(name, "-", str(folder), "-", "weights of that folder") for name, folder in weights.items()]
    rows += [(name, "-", "none needed", "-", row.summary) for name, row in all_filters().items()]
    table(("detector", "parameters", "weights", "recipe", "what it is"), rows)
    say("To train a network: ismallnet train RECIPE --model.name MODEL --out runs/MODEL")
    return OK


def _options_of(folder: Path | None, name: str) -> Mapping[str, Any]:
    """Return the options of a network's weights; none where there are no weights, or they cannot be read."""
    if folder is None:
        return {}
    try:
        saved = read_saved(folder)
    except (ValueError, OSError) as error:
        warn(str(error))
        return {}
    return saved.options if saved.name == name else {}
