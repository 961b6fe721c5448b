"""``ismallnet train``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ismallnet import config
from ismallnet.cli.parser import Parser
from ismallnet.cli.screen import OK, progress, say, table

SUMMARY = "train a network by a recipe"


def add(parser: Parser) -> None:
    """Leave the options to jsonargparse, which is loaded only where the verb is used."""
    parser.usage = "ismallnet train RECIPE.yaml [--out DIR] [--resume] [--print_config] [--KEY VALUE ...]"
    parser.read = lambda words: _read(words, parser)


def _read(words: Sequence[str], parser: Parser) -> argparse.Namespace:
    """The options of the verb; the keys of the recipe stay in `words`, for the recipe's file goes first."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # what --help says of a key
    keys = config.parser(prog=parser.prog, usage=parser.usage, description=parser.description)
    keys.add_argument("recipe", nargs="?", metavar="RECIPE.yaml", help="the recipe, such as recipes/*.yaml")
    keys.add_argument("--config", metavar="RECIPE.yaml", help="the same as the positional argument")
    keys.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/ and the recipe's name)")
    keys.add_argument("--resume", action="store_true", help="go on with the run that is in --out")
    keys.add_argument("--print_config", action="store_true", help="print the whole recipe and stop")
    keys.add_argument("--debug", action="store_true", help="show where an error came from")
    known = keys._option_string_actions
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        if option not in known and not option.startswith("--model.options."):
            parser.refuse(option, known)
    try:
        options = keys.parse_args(words)
    except argparse.ArgumentError as error:
        parser.error(config.one_line(error))
    return argparse.Namespace(run=run, keys=keys, words=words, **vars(options))


def run(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    path = _recipe_path(options)
    recipe = config.read(path, options.keys, options.words)
    if options.print_config:
        print(config.to_yaml(recipe), end="")
        return OK
    import torch.distributed

    from ismallnet.train import train

    out = Path(options.out or f"runs/{path.stem}")
    with progress("training") as advance:
        result = train(recipe, out=out, resume=options.resume, advance=advance)
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_rank()
    ):
        return OK  # the first process speaks for all
    rows = [(name, figures) for name, figures in (("last", result.last), ("best", result.best)) if figures]
    if rows:
        columns = ["weights", *rows[0][1]]
        table(columns, [[name, *(f"{figures[key]:.4g}" for key in columns[1:])] for name, figures in rows])
    state = "finished" if result.finished else "stopped, go on with --resume,"
    say(f"{state} after {result.step} steps in {result.minutes:.1f} min; the run is in {out}")
    return OK


def _recipe_path(options: argparse.Namespace) -> Path:
    if options.recipe and options.config:
        raise ValueError("two recipes; give one, as RECIPE.yaml or with --config RECIPE.yaml")
    if options.recipe or options.config:
        return Path(options.recipe or options.config)
    if options.resume and options.out:
        return Path(options.out) / "recipe.yaml"
    raise ValueError("no recipe; say ismallnet train RECIPE.yaml; those of the project are in recipes/")
