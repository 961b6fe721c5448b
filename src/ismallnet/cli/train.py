"""``ismallnet train``."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ismallnet.cli.parser import KEY, Parser
from ismallnet.cli.screen import OK, progress, say, table

SUMMARY = "train a network by a recipe"


def add(parser: Parser) -> None:
    """Add the options of the verb."""
    parser.usage = "ismallnet train RECIPE.yaml [--out DIR] [--resume] [--print_config] [--KEY VALUE ...]"
    parser.add_argument("recipe", nargs="?", metavar="RECIPE.yaml", help="the recipe, such as recipes/*.yaml")
    parser.add_argument("--config", metavar="RECIPE.yaml", help="the same as the positional argument")
    parser.add_argument(
        "--out", metavar="DIR", help="the run's folder (default: runs/ and the recipe's name)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that is in --out")
    parser.add_argument("--print_config", action="store_true", help="print the whole recipe and stop")
    keys = parser.add_argument_group(
        "keys of the recipe", "in place of what RECIPE.yaml says; values as in YAML"
    )
    for key, default, text in _recipe_keys():
        parser.add_key(key, to=keys, help=f"{text} (default: {default})".replace("%", "%%").strip())


def run(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet import config

    path = _recipe_path(options)
    keys = {name.removeprefix(KEY): value for name, value in vars(options).items() if name.startswith(KEY)}
    recipe = config.load(path, overrides=keys)
    if options.print_config:
        import yaml

        print(yaml.safe_dump(config.to_dict(recipe), sort_keys=False, allow_unicode=True), end="")
        return OK
    from ismallnet.train import train

    out = Path(options.out or f"runs/{path.stem}")
    with progress("training") as advance:
        result = train(recipe, out=out, resume=options.resume, advance=advance)
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
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


def _recipe_keys() -> Iterator[tuple[str, str, str]]:
    """(dotted key, default as YAML, explanation) of what a recipe holds; the source explains its fields."""
    from ismallnet import config

    explained = _field_docstrings(Path(config.__file__))
    recipe = config.Recipe()
    for section in dataclasses.fields(recipe):
        values = getattr(recipe, section.name)
        if not dataclasses.is_dataclass(values):
            yield section.name, str(values), explained["Recipe", section.name]
            continue
        for field in dataclasses.fields(values):
            value = getattr(values, field.name)
            plain = [dataclasses.asdict(item) for item in value] if isinstance(value, tuple) else value
            text = explained.get((type(values).__name__, field.name), "")
            yield f"{section.name}.{field.name}", json.dumps(plain).replace('"', ""), text


def _field_docstrings(path: Path) -> dict[tuple[str, str], str]:
    """(class, field) -> the string below the field in a module's source."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            for field, below in itertools.pairwise(node.body):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    text = ast.literal_eval(below.value)
                    found[node.name, ast.unparse(field.target)] = " ".join(text.split())
    return found
