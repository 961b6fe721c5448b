"""Train a shortened recipe with several seeds; store what each gives on a validation fold, a row a run.

python examples/seed_spread.py recipes/fast-joint.yaml --root /data --steps 500 --seeds 0 1 2
python examples/seed_spread.py recipes/fast-joint.yaml --root /data --label ldf --set labels=ldf

The spread says which differences between two recipes mean anything. A row that is there is not run again.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from ismallnet import config
from ismallnet.evaluate import provenance
from ismallnet.train import train

COLUMNS = ["label", "recipe", "seed", "steps", "fold", "minutes"]
RATES = [f"{name}_{rate}" for name in ("NUAA-SIRST", "NUDT-SIRST") for rate in ("iou", "niou", "pd", "fa")]
ORIGIN = ["changes", "date", "commit", "hardware"]


def main() -> None:
    options = parse()
    table = Path(options.out)
    done = set()
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            done = {(row["label"], int(row["seed"])) for row in csv.DictReader(file)}
    for seed in options.seeds:
        if (options.label, seed) in done:
            continue
        row = run(options, seed)
        fresh = not table.exists()
        table.parent.mkdir(parents=True, exist_ok=True)
        with table.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS + RATES + ORIGIN)
            if fresh:
                writer.writeheader()
            writer.writerow(row)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--root", default="data", help="folder of the data sets")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--label", default="recipe", help="what the runs are called in the table")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the recipe")
    parser.add_argument("--runs", default="runs/spread", help="folder for the runs")
    parser.add_argument("--out", default="results/seeds.csv")
    return parser.parse_args()


def run(options: argparse.Namespace, seed: int) -> dict[str, object]:
    """Train one seed and return its row."""
    changes = dict(change.split("=", 1) for change in options.set)
    recipe = config.load(
        options.recipe,
        overrides={
            "data.root": options.root,
            "data.fold": options.fold,
            "training.steps": options.steps,
            "training.validate_every": options.steps,
            "training.seed": seed,
            **changes,
        },
    )
    result = train(recipe, out=Path(options.runs) / f"{options.label}-{seed}", resume=True)
    origin = provenance()
    return {
        "label": options.label,
        "recipe": Path(options.recipe).stem,
        "seed": seed,
        "steps": result.step,
        "fold": options.fold,
        "minutes": f"{result.minutes:.1f}",
        **{rate: f"{result.last[rate]:.6g}" for rate in RATES if rate in result.last},
        "changes": " ".join(options.set),
        **{name: origin[name] for name in ("date", "commit", "hardware")},
    }


if __name__ == "__main__":
    main()
