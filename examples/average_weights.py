"""Average the weights of runs that went on from the same weights by one recipe with different seeds.

python examples/average_weights.py runs/more-1 runs/more-2 --out runs/more-mean

Each run can have a core to itself, where one run on several cores waits for its threads. The folder is what
`bundle_weights.py`, `ismallnet detect` and `evaluate` take. Weights that did not begin together have nothing
to do with each other; their mean is no network.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from ismallnet import checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.out.exists():
        raise SystemExit(f"{options.out} exists; give another folder")
    average(options.runs, options.out)


def average(runs: list[Path], out: Path) -> None:
    """Write the mean of the runs' last weights, and what the runs were, as a run's folder.

    Raises:
        ValueError: Runs of different networks, or that started from different weights.
    """
    pairs = [checkpoint.load_model(run / "last") for run in runs]
    network, first = pairs[0]
    starts = [saved.metadata["recipe"]["model"]["weights"] for _, saved in pairs]
    if None in starts or len(set(starts)) > 1:
        raise ValueError(
            f"the runs began with the weights {starts}; only runs that began with one go together"
        )
    if any((saved.name, saved.options) != (first.name, first.options) for _, saved in pairs):
        raise ValueError("the runs are of different networks")
    states = [model.state_dict() for model, _ in pairs]
    network.load_state_dict(
        {
            key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value
            for key, value in states[0].items()
        }
    )
    results = [json.loads((run / "result.json").read_text("utf-8")) for run in runs]
    seeds = [saved.metadata["recipe"]["training"]["seed"] for _, saved in pairs]
    metadata = {**first.metadata, "averaged": {"runs": len(runs), "seeds": seeds}}
    checkpoint.save_model(out / "last", network, name=first.name, options=first.options, metadata=metadata)
    merged = {**results[0], "out": str(out), "minutes": max(result["minutes"] for result in results)}
    checkpoint.write_text(out / "result.json", json.dumps(merged, indent=2) + "\n")


if __name__ == "__main__":
    main()
