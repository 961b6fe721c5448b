"""``ismallnet benchmark table1|figure3|curves|ablation|errors``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ismallnet.cli.parser import DATA_SETS, Parser, add_detector, add_out
from ismallnet.cli.screen import OK, failed, progress, say, table, warn

if TYPE_CHECKING:
    from ismallnet.data import Dataset

SUMMARY = "the field's table, figure and curves, of all detectors side by side"
DATA = ("NUAA-SIRST", "NUDT-SIRST")


def add_table1(parser: Parser) -> None:
    """Add the options of the verb."""
    _add_common(
        parser, "results/table1", "table1.csv, strata.csv and table1.md; gone on with where it has them"
    )
    parser.add_argument(
        "--protocols",
        nargs="+",
        default=("ismallnet", "standard"),
        metavar="NAME",
        help="default: ismallnet standard",
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="replicates of the intervals (default: 1000)"
    )
    parser.add_argument(
        "--curves",
        metavar="DIR",
        help="also keep the ROC curves of what is computed, in the folder of `benchmark curves`",
    )
    _add_limit(parser)


def add_figure3(parser: Parser) -> None:
    """Add the options of the verb."""
    _add_common(parser, "figure3", "figure3.png and figure3.pdf")
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="DATA:ID",
        help="rows of the figure (default: of each list the image with the dimmest target, that with "
        "most targets and that with the largest, whatever a detector says)",
    )
    parser.add_argument("--surface", action="store_true", help="also the scores as surfaces in 3-D")


def add_curves(parser: Parser) -> None:
    """Add the options of the verb."""
    _add_common(parser, "results/curves", "roc.csv, points and a picture a data set; gone on with")
    _add_limit(parser)


def add_ablation(parser: Parser) -> None:
    """Add the options of the verb."""
    from ismallnet.benchmark.variants import RECIPE, SEEDS

    add_root(parser)
    parser.add_argument(
        "--recipe",
        default=RECIPE,
        metavar="FILE",
        help="the base, of which every variant changes one thing (default: %(default)s)",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants (default: all)")
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        metavar="N",
        help=f"these seeds, others than the default's too (default: {' '.join(map(str, SEEDS))})",
    )
    parser.add_argument(
        "--out",
        default="results/ablation",
        metavar="DIR",
        help="folder for ablation.csv and ablation.md; gone on with where it has them (default: %(default)s)",
    )
    parser.add_argument(
        "--runs",
        default="runs/ablation",
        metavar="DIR",
        help="folder of the runs, shared by all that work on the queue (default: %(default)s)",
    )
    parser.add_argument(
        "--max-minutes", type=float, metavar="M", help="stop after so long; the same command goes on"
    )


def add_errors(parser: Parser) -> None:
    """Add the options of the verb."""
    add_detector(parser, "model")
    add_root(parser)
    parser.add_argument("--data", required=True, metavar="NAME", help=DATA_SETS)
    parser.add_argument(
        "--split",
        default="fold:0",
        help="which list of it; fold:N is a validation fold of the train list (default: %(default)s)",
    )
    parser.add_argument(
        "--compare", metavar="MODEL", help="another detector: which errors are new, which gone"
    )
    parser.add_argument(
        "--top", type=int, default=30, metavar="N", help="pictures a kind, the worst (default: %(default)s)"
    )
    _add_log(parser)
    add_out(parser, "errors", "errors.html (parts of the images are in it), errors.md and errors.csv")


def run_table1(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet.benchmark.page import to_markdown
    from ismallnet.benchmark.table1 import table1
    from ismallnet.checkpoint import write_text

    datasets = _datasets(options)
    with progress("measuring") as advance:
        table = table1(
            datasets,
            options.detectors,
            out=options.out,
            weights=_weights(options.weights),
            protocols=options.protocols,
            limit=options.limit,
            bootstrap=options.bootstrap,
            curves=options.curves,
            purpose=options.purpose,
            log=options.log,
            device=options.device,
            advance=advance,
        )
    page = Path(options.out) / "table1.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, to_markdown(table))
    for text in dict.fromkeys(f"{each.name}: {each.reason}" for each in table.missing):
        warn(text)
    say(f"{table.computed} rows computed, {len(table.rows)} in {options.out}; the page is {page}")
    return OK


def run_figure3(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet.benchmark.figure3 import choose, draw, look

    datasets = _datasets(options)
    wanted = _wanted(options.images, [each.name for each in datasets])
    chosen = [
        each.subset(wanted[each.name] if options.images else choose(each))
        for each in datasets
        if not options.images or each.name in wanted
    ]
    with progress("looking") as advance:
        looks, missing = look(
            chosen,
            options.detectors,
            weights=_weights(options.weights),
            purpose=options.purpose,
            log=options.log,
            device=options.device,
            advance=advance,
        )
    for text in dict.fromkeys(f"{each.name}: {each.reason}" for each in missing):
        warn(text)
    for path in draw(looks, options.out, surface=options.surface):
        say(f"wrote {path}")
    return OK


def run_curves(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet.benchmark.curves import curves

    datasets = _datasets(options)
    with progress("sweeping") as advance:
        paths = curves(
            datasets,
            options.detectors,
            out=options.out,
            weights=_weights(options.weights),
            limit=options.limit,
            purpose=options.purpose,
            log=options.log,
            device=options.device,
            advance=advance,
        )
    for path in paths:
        say(f"wrote {path}")
    return OK


def run_ablation(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet.benchmark.ablation import ablation
    from ismallnet.benchmark.variants import SEEDS, choose, plan

    seeds = tuple(dict.fromkeys((*SEEDS, *(options.seeds or ()))))
    runs = plan(options.recipe, root=options.root, seeds=seeds)
    chosen = choose(runs, only=options.only, seeds=options.seeds)
    with progress("training") as advance:
        outcome = ablation(
            runs,
            chosen,
            out=options.out,
            runs=options.runs,
            max_minutes=options.max_minutes,
            advance=advance,
        )
    say(f"{outcome.added} runs added, {len(outcome.left)} of {len(chosen)} left; the page is {outcome.page}")
    return failed(outcome.failed)


def run_errors(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    import ismallnet
    from ismallnet.benchmark.errors import survey
    from ismallnet.benchmark.gallery import blocks, write_errors
    from ismallnet.checkpoint import check_out

    check_out(options.out, force=options.force)
    dataset = _list(options.data, options.root, options.split)
    surveys = []
    for name in filter(None, (options.model, options.compare)):
        detector = ismallnet.load(name, device=options.device)
        with progress(f"evaluating {detector.name}") as advance:
            surveys.append(
                survey(detector, dataset, purpose=options.purpose, log=options.log, advance=advance)
            )
    now, before = surveys[0], surveys[1] if options.compare else None
    paths = write_errors(now, dataset, options.out, before=before, top=options.top, force=options.force)
    for block in blocks(now, before):
        table(block.header, block.rows, title=block.title)
    for path in paths:
        say(f"wrote {path}")
    return OK


def _list(name: str, root: str, split: str) -> Dataset:
    """Open a list of a data set, or a validation fold of its train list."""
    from ismallnet import data

    kind, colon, fold = split.partition(":")
    if not colon:
        return data.load(name, root, split)
    if kind != "fold" or not fold.isdecimal():
        raise ValueError(f"--split takes the name of a list, or fold:N with N from 0; got {split!r}")
    return data.validation_split(data.load(name, root, "train"), int(fold))[1]


def add_root(parser: Parser) -> None:
    """Add the option that says where the data sets are."""
    parser.add_argument(
        "--root", default="data", metavar="DIR", help="where the data sets are (default: data)"
    )


def _add_common(parser: Parser, out: str, what: str) -> None:
    add_root(parser)
    parser.add_argument(
        "--data", nargs="+", default=DATA, metavar="NAME", help=f"{DATA_SETS} (default: {' '.join(DATA)})"
    )
    parser.add_argument("--split", default="test", help="which list of them (default: %(default)s)")
    parser.add_argument(
        "--detectors",
        nargs="+",
        metavar="MODEL",
        help="names from `ismallnet list`, or folders of weights (default: everything in the list)",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        default=(),
        metavar="NAME=DIR[,DIR]",
        help="a run's folder as NAME, of the list or a row of its own; NAME:DATA=DIR for one data set; "
        "NAME=DIR,DIR,DIR for runs that differ by their seed",
    )
    parser.add_argument("--out", default=out, metavar="DIR", help=f"folder for {what} (default: %(default)s)")
    _add_log(parser)
    parser.add_argument(
        "--device", default="auto", help="of networks: auto, cpu, cuda, mps (default: %(default)s)"
    )


def _add_log(parser: Parser) -> None:
    parser.add_argument(
        "--purpose",
        default=parser.prog.removeprefix("ismallnet "),
        metavar="TEXT",
        help="why test lists are opened (default: %(default)s)",
    )
    parser.add_argument(
        "--log",
        default="results",
        metavar="DIR",
        help="folder of test_evaluations.csv, a row for every look at a test list (default: %(default)s)",
    )


def _add_limit(parser: Parser) -> None:
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="a rehearsal: the first N images of each list; of a test list, a look at it all the same",
    )


def _datasets(options: argparse.Namespace) -> list[Dataset]:
    from ismallnet import data

    return [data.load(name, options.root, options.split) for name in options.data]


def _weights(words: list[str]) -> dict[str, str]:
    from ismallnet.benchmark.entrants import by_seed
    from ismallnet.data.layouts import find_layout

    found: dict[str, str] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not name or not equals or not folder:
            raise ValueError(f"--weights takes NAME=FOLDER or NAME:DATA=FOLDER; got {word!r}")
        if ":" in name:  # any name of the data set
            own, _, data = name.partition(":")
            name = f"{own}:{find_layout(data).name}"
        folders = folder.split(",")
        named = by_seed(name, folders) if len(folders) > 1 else {name: folder}
        if twice := found.keys() & named.keys():
            raise ValueError(f"--weights has {min(twice)} twice; give one folder a name")
        found |= named
    return found


def _wanted(words: list[str] | None, known: list[str]) -> dict[str, list[str]]:
    from ismallnet.data.layouts import find_layout

    wanted: dict[str, list[str]] = {}
    for word in words or ():
        given, _, id = word.partition(":")
        name = find_layout(given).name
        if not id or name not in known:
            raise ValueError(f"--images takes DATA:ID with DATA one of {', '.join(known)}; got {word!r}")
        wanted.setdefault(name, []).append(id)
    return wanted
