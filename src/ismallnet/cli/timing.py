"""``ismallnet benchmark speed|train``."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ismallnet.cli.benchmark import DATA, add_root
from ismallnet.cli.parser import DATA_SETS, Parser
from ismallnet.cli.screen import OK, progress, say, table

if TYPE_CHECKING:
    from ismallnet.benchmark.store import Row


def add_speed(parser: Parser) -> None:
    """Add the options of the verb."""
    parser.add_argument(
        "--models",
        nargs="+",
        default=("ismallnet", "ismallnet-s"),
        metavar="MODEL",
        help="names or folders; random weights where there are none (default: ismallnet ismallnet-s)",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="where the data sets are: validation images of their train lists give IoU",
    )
    parser.add_argument(
        "--data", nargs="+", default=DATA, metavar="NAME", help=f"{DATA_SETS} (default: {' '.join(DATA)})"
    )
    parser.add_argument("--fold", type=int, default=0, help="of the train lists (default: %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="a rehearsal: N images of each fold")
    parser.add_argument(
        "--side", type=int, default=256, metavar="PX", help="of the images timed (default: 256)"
    )
    parser.add_argument(
        "--repetitions", type=int, default=50, metavar="N", help="rounds of timing (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        default="results/speed",
        metavar="DIR",
        help="folder for speed.csv, startup.csv, speed.md and profile.md (default: %(default)s)",
    )


def add_train(parser: Parser) -> None:
    """Add the options of the verb."""
    add_root(parser)
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=("recipes/fast-joint.yaml",),
        metavar="FILE",
        help="supervised ones (default: recipes/fast-joint.yaml)",
    )
    parser.add_argument("--batch", type=int, metavar="N", help="images a step (default: the recipe's)")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="of each way, in turns (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="a round (default: %(default)s)")
    parser.add_argument(
        "--validate", type=int, default=8, metavar="N", help="images a round (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        default="results/speed",
        metavar="DIR",
        help="folder for training.csv and training.md (default: %(default)s)",
    )


def run_speed(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet import data
    from ismallnet.benchmark import startup
    from ismallnet.benchmark.profile import page
    from ismallnet.benchmark.speed import speed, to_markdown
    from ismallnet.catalogue import NoWeightsError, find_weights
    from ismallnet.checkpoint import write_text

    samples = []
    for name in options.data if options.root else ():
        _, fold = data.validation_split(data.load(name, options.root, "train"), options.fold)
        samples += [fold[index] for index in range(len(fold))[: options.limit]]
    with progress("timing") as advance:
        rows = speed(
            options.models,
            out=options.out,
            samples=samples,
            side=options.side,
            repetitions=options.repetitions,
            advance=advance,
        )
        started: list[Row] = []
        for model in options.models:
            with suppress(NoWeightsError):
                find_weights(model)
                started = startup.startup(
                    model,
                    out=options.out,
                    side=options.side,
                    repetitions=min(options.repetitions, 5),
                    advance=advance,
                )
    out = Path(options.out)
    write_text(
        out / "speed.md", "\n".join([to_markdown(rows), *([startup.to_markdown(started)] if started else [])])
    )
    write_text(out / "profile.md", page(options.models, side=options.side))
    columns = ("model", "runtime", "precision", "median_ms", "times_as_fast", "largest_difference", "iou")
    table(columns, [[row[column] for column in columns] for row in rows])
    say(f"speed.csv, startup.csv, speed.md and profile.md are in {out}")
    return OK


def run_train(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet.benchmark.training import to_markdown, training_speed
    from ismallnet.checkpoint import write_text

    with progress("training") as advance:
        rows = training_speed(
            options.recipes,
            out=options.out,
            root=options.root,
            batch=options.batch,
            rounds=options.rounds,
            steps=options.steps,
            validate=options.validate,
            advance=advance,
        )
    write_text(Path(options.out) / "training.md", to_markdown(rows))
    columns = ("recipe", "size_px", "batch", "way", "images_s", "times_as_fast")
    table(columns, [[row[column] for column in columns] for row in rows])
    say(f"training.csv and training.md are in {options.out}")
    return OK
