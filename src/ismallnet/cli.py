"""The command line: one function a verb, that parses, calls and prints. Only this module prints.

Results go to standard output; progress, warnings and errors to standard error. Exit status: 0 when all went
well; 1 when the work was done but something was wrong with some input, each named; 2 when the command could
not be carried out as it was given. Whatever is heavy is imported where it is used, so that help is instant.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import itertools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ismallnet

if TYPE_CHECKING:
    from rich.console import Console

    Advance = Callable[[int, int, str], None]

OK, BAD_INPUT, USAGE, INTERRUPTED = 0, 1, 2, 130
_NAMES = "NUAA-SIRST, NUDT-SIRST, IRSTD-1k or folder"
_RECIPES = ("official", "ldf", "target")
_KEY, _OPEN = "recipe:", "model.options"
"""How a recipe's key is marked among the parsed options; the key below which any name is taken."""
_ROWS = 40
"""Images that the table of `detect` shows; all of them are in its files."""
_WIDTH = 120
"""Columns of what is written to a file or a pipe."""
_QUIET_S = 60.0
"""Seconds between lines of progress where standard error is not a terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows the program's name; by default those of the process.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except (KeyError, IndexError):
        raise
    except BrokenPipeError:  # the reader of our output has gone, as in `ismallnet list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (ValueError, OSError, LookupError, ImportError, FloatingPointError) as error:
        if options.debug:
            raise
        _complain(f"[bold red]error:[/] {_plain(str(error))}")
        return USAGE
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    return status


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and names the nearest option when one is unknown."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
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
        (to or self).add_argument(f"--{key}", dest=_KEY + key, metavar="VALUE", default=absent, help=help)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"ismallnet {ismallnet.__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ismallnet", description="Infrared small-target detection.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, (summary, add, run) in VERBS.items():
        _add_verb(verbs, name, summary, add, run)
    group = verbs.add_parser("data", help=_DATA, description=f"{_DATA.capitalize()}.")
    data_verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, (summary, add, run) in DATA_VERBS.items():
        _add_verb(data_verbs, name, summary, add, run)
    return parser


def _add_verb(
    verbs: argparse._SubParsersAction[_Parser],
    name: str,
    summary: str,
    add: Callable[[_Parser], None],
    run: Callable[[argparse.Namespace], int],
) -> None:
    parser = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    add(parser)
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    parser.set_defaults(run=run)


# --- detect -------------------------------------------------------------------------------------------


def _add_detect(parser: _Parser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="images, folders and glob patterns")
    _add_model(parser, "--model", default="ismallnet-s")
    _add_out(parser, "detections", "the pictures and tables")
    parser.add_argument(
        "--save",
        default="overlay,csv,json",
        metavar="KINDS",
        help="overlay, mask, score, interior, boundary, csv, json, coco, with commas (default: %(default)s)",
    )
    parser.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="intensities that become black and white (default: 0 and 255 for 8-bit images, else the 0.1 and "
        "99.9 percentiles of the image)",
    )


def _detect(options: argparse.Namespace) -> int:
    from ismallnet.detect import detect_files

    detector = ismallnet.load(options.model, threshold=options.threshold, device=options.device)
    with _progress("detecting") as advance:
        report = detect_files(
            options.sources,
            detector,
            out=options.out,
            range=options.range and tuple(options.range),
            save=[kind.strip() for kind in options.save.split(",")],
            force=options.force,
            advance=advance,
        )
    rows = [
        (
            Path(frame.image).name + (f" [{frame.frame}]" if frame.frame else ""),
            f"{frame.width} × {frame.height}",
            f"{frame.low:g} to {frame.high:g}, {frame.rule}",
            str(len(frame.targets)),
            f"{max(target.peak for target in frame.targets):.3f}" if frame.targets else "",
        )
        for frame in report.frames
    ]
    _table(("image", "size", "range", "targets", "peak score"), rows[:_ROWS])
    if len(rows) > _ROWS:
        _say(f"… and {len(rows) - _ROWS} images more")
    for frame in report.frames:
        if frame.warning:
            _complain(f"[yellow]warning:[/] {_plain(f'{frame.image}: {frame.warning}')}")
    found = sum(len(frame.targets) for frame in report.frames)
    _say(f"{found} targets in {len(report.frames)} images by {detector.name}; see {report.out}")
    return _failed([f"{failure.image}: {failure.reason}" for failure in report.failed])


# --- train --------------------------------------------------------------------------------------------


def _add_train(parser: _Parser) -> None:
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
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                        value=ast.Constant(value=str(text))
                    ):
                        found[node.name, name] = " ".join(text.split())
    return found


def _train(options: argparse.Namespace) -> int:
    from ismallnet import config

    path = _recipe_path(options)
    keys = {name.removeprefix(_KEY): value for name, value in vars(options).items() if name.startswith(_KEY)}
    recipe = config.load(path, overrides=keys)
    if options.print_config:
        import yaml

        print(yaml.safe_dump(config.to_dict(recipe), sort_keys=False, allow_unicode=True), end="")
        return OK
    from ismallnet.train import train

    out = Path(options.out or f"runs/{path.stem}")
    with _progress("training") as advance:
        result = train(recipe, out=out, resume=options.resume, advance=advance)
    if int(os.environ.get("RANK", "0")) != 0:
        return OK
    rows = [(name, figures) for name, figures in (("last", result.last), ("best", result.best)) if figures]
    if rows:
        columns = ["weights", *rows[0][1]]
        _table(columns, [[name, *(f"{figures[key]:.4g}" for key in columns[1:])] for name, figures in rows])
    state = "finished" if result.finished else "stopped, go on with --resume,"
    _say(f"{state} after {result.step} steps in {result.minutes:.1f} min; the run is in {out}")
    return OK


def _recipe_path(options: argparse.Namespace) -> Path:
    if options.recipe and options.config:
        raise ValueError("two recipes; give one, as RECIPE.yaml or with --config RECIPE.yaml")
    if options.recipe or options.config:
        return Path(options.recipe or options.config)
    if options.resume and options.out:
        return Path(options.out) / "recipe.yaml"
    raise ValueError("no recipe; say ismallnet train RECIPE.yaml; those of the project are in recipes/")


# --- evaluate -----------------------------------------------------------------------------------------


def _add_evaluate(parser: _Parser) -> None:
    _add_model(parser, "model")
    parser.add_argument("--data", required=True, metavar="NAME", help=_NAMES)
    parser.add_argument("--root", default="data", metavar="DIR", help="where it is (default: %(default)s)")
    parser.add_argument("--split", default="test", help="which list of it (default: %(default)s)")
    parser.add_argument(
        "--protocol",
        default="standard",
        help="standard, ismallnet, dnanet, basicirstd or acm (default: %(default)s)",
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="replicates of the intervals (default: 1000)"
    )
    parser.add_argument("--curves", action="store_true", help="ROC, PR and FROC curves too")
    parser.add_argument("--purpose", metavar="TEXT", help="why a test list is opened: logged in --log")
    parser.add_argument(
        "--log", default="results", metavar="DIR", help="folder of that log (default: %(default)s)"
    )
    parser.add_argument("--out", metavar="DIR", help="write report.json, report.md and per_image.csv here")
    parser.add_argument("--force", action="store_true", help="overwrite what is in --out")


def _evaluate(options: argparse.Namespace) -> int:
    from ismallnet import data
    from ismallnet.evaluate import evaluate, log_test_evaluation, write_report

    if options.out and Path(options.out).exists() and not options.force:
        raise FileExistsError(f"{options.out} exists; choose another --out, or overwrite it with --force")
    detector = ismallnet.load(options.model, threshold=options.threshold, device=options.device)
    dataset = data.load(options.data, options.root, options.split)
    with _progress("evaluating") as advance:
        report = evaluate(
            detector,
            dataset,
            protocol=options.protocol,
            bootstrap=options.bootstrap,
            curves=options.curves,
            advance=advance,
        )
    title = f"{report.detector} on {report.data} {report.split}, {len(dataset)} images, {options.protocol}"
    _table(("quantity", "value", "95 % interval"), report.rows(), title=title)
    _table(("targets by", "bin", "targets", "Pd", "pixel recall"), report.strata_rows())
    for note in report.all_notes():
        _say(f"note: {note}")
    if options.purpose and report.on_test_list:
        _say(f"logged in {log_test_evaluation(report, options.log, purpose=options.purpose)}")
    if options.out:
        write_report(report, options.out, force=options.force)
        _say(f"the report is in {options.out}")
    return OK


# --- labels -------------------------------------------------------------------------------------------


def _add_labels(parser: _Parser) -> None:
    parser.add_argument("masks", nargs="+", metavar="MASKS", help="masks: files, folders and glob patterns")
    _add_out(parser, "labels", "the pictures")
    parser.add_argument(
        "--recipe", choices=_RECIPES, default="target", help="how masks are decoupled (default: %(default)s)"
    )


def _labels(options: argparse.Namespace) -> int:
    from ismallnet.data.dataset import read_mask
    from ismallnet.detect import find_images
    from ismallnet.labels import write_label_pictures

    out = Path(options.out)
    if out.exists() and not (out.is_dir() and (options.force or not any(out.iterdir()))):
        raise FileExistsError(
            f"{out} exists and is not empty; choose another --out, or add to it with --force"
        )
    files = find_images(options.masks)
    common = os.path.commonpath([os.path.abspath(file.parent) for file in files])
    failed = []
    with _progress("decoupling") as advance:
        for done, file in enumerate(files, 1):
            folder = out / os.path.relpath(file.parent, common)
            try:
                mask = read_mask(file)
                folder.mkdir(parents=True, exist_ok=True)
                write_label_pictures(mask, folder, file.stem, recipe=options.recipe)
            except ValueError as error:
                failed.append(str(error))
            advance(done, len(files), file.name)
    _say(f"interior and boundary of {len(files) - len(failed)} masks, recipe {options.recipe}; see {out}")
    return _failed(failed)


# --- list ---------------------------------------------------------------------------------------------


def _add_list(_: _Parser) -> None:
    pass


def _list(_: argparse.Namespace) -> int:
    import torch

    from ismallnet.detector import WEIGHTS
    from ismallnet.models import MODELS, create_model

    rows = []
    for name, entry in MODELS.items():
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in create_model(name).parameters())
        bundled = (WEIGHTS / name / "config.json").is_file()
        rows.append((name, f"{count:,}", "bundled" if bundled else "none", entry.recipe, entry.summary))
    _table(("model", "parameters", "weights", "recipe", "what it is"), rows)
    _say("To train one: ismallnet train RECIPE --model.name MODEL --out runs/MODEL")
    return OK


# --- data ---------------------------------------------------------------------------------------------


def _add_check(parser: _Parser) -> None:
    _add_root(parser)
    parser.add_argument("--data", metavar="NAME", help=f"{_NAMES} (default: every public one that is found)")


def _check(options: argparse.Namespace) -> int:
    from ismallnet.data.check import check

    with _progress("checking") as advance:
        report = check(options.root, options.data, advance=advance)
    _table(
        ("data set", "", "what", "count", "detail"),
        [(row.dataset, row.level, row.what, str(row.count), row.detail) for row in report.rows],
    )
    return OK if report.ok else BAD_INPUT


def _add_pack(parser: _Parser) -> None:
    _add_root(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--force", action="store_true", help="overwrite it")


def _pack(options: argparse.Namespace) -> int:
    from ismallnet.data import load_all
    from ismallnet.data.pack import pack

    splits = load_all(options.root)
    with _progress("packing") as advance:
        path = pack(splits, options.out, force=options.force, advance=advance)
    megabytes = path.stat().st_size / 1e6
    _say(f"{', '.join(dict.fromkeys(split.name for split in splits))}: {megabytes:.1f} MB in {path}")
    return OK


def _add_synth(parser: _Parser) -> None:
    parser.add_argument("out", metavar="DIR", help="folder to make")


def _synth(options: argparse.Namespace) -> int:
    raise NotImplementedError


VERBS: dict[str, tuple[str, Callable[[_Parser], None], Callable[[argparse.Namespace], int]]] = {
    "detect": ("find small targets in images", _add_detect, _detect),
    "train": ("train a network by a recipe", _add_train, _train),
    "evaluate": ("score a network on a data set under a named protocol", _add_evaluate, _evaluate),
    "labels": ("decouple masks into interior and boundary maps, as pictures", _add_labels, _labels),
    "list": ("list the networks and the state of their weights", _add_list, _list),
}
_DATA = "look after data sets"
DATA_VERBS: dict[str, tuple[str, Callable[[_Parser], None], Callable[[argparse.Namespace], int]]] = {
    "check": ("say what is wrong with a data set", _add_check, _check),
    "pack": ("put data sets into one small file that loads in seconds", _add_pack, _pack),
    "synth": ("make synthetic infrared scenes with exact masks", _add_synth, _synth),
}


# --- shared options -----------------------------------------------------------------------------------


def _add_model(parser: _Parser, name: str, *, default: str | None = None) -> None:
    text = "a name from `ismallnet list`, a run's folder, or a folder with config.json and model.safetensors"
    if default is None:
        parser.add_argument(name, metavar="MODEL", help=text)
    else:
        parser.add_argument(name, default=default, metavar="MODEL", help=f"{text} (default: %(default)s)")
    parser.add_argument("--threshold", type=float, metavar="T", help="least score of a target (default: 0.5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: %(default)s)")


def _add_root(parser: _Parser) -> None:
    parser.add_argument("root", metavar="ROOT", help="folder of a data set, or the folder that holds several")


def _add_out(parser: _Parser, default: str, what: str) -> None:
    parser.add_argument(
        "--out", default=default, metavar="DIR", help=f"folder for {what} (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite what is there")


def _failed(reasons: Sequence[str]) -> int:
    """Name what could not be done; the exit status."""
    for reason in reasons:
        _complain(f"[bold red]error:[/] {_plain(reason)}")
    return BAD_INPUT if reasons else OK


# --- printing -----------------------------------------------------------------------------------------


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH
    return console


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _say(text: str) -> None:
    _console().print(_plain(text))


def _complain(markup: str) -> None:
    _console(stderr=True).print(markup)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _complain(f"[yellow]warning:[/] {_plain(str(message))}")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; nothing where there is no row. Numbers align right; only the last column is wrapped."""
    if not rows:
        return
    from rich import box
    from rich.table import Table

    table = Table(
        title=title and _plain(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for index, column in enumerate(columns):
        numbers = all(row[index][:1].isdigit() or row[index] in ("", "-", "nan") for row in rows)
        last = index == len(columns) - 1
        table.add_column(column, justify="right" if numbers else "left", no_wrap=not last)
    for row in rows:
        table.add_row(*map(_plain, row))
    _console().print(table)


@contextmanager
def _progress(verb: str) -> Iterator[Advance]:
    """A bar on a terminal; elsewhere, as in the log of a batch job, a line a minute."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _console(stderr=True)
    if not console.is_terminal:
        yield _lines(verb)
        return
    text = TextColumn("{task.fields[text]}", markup=False)
    bar = Progress(
        TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text, console=console
    )
    with bar:
        task = bar.add_task(verb, total=None, text="")
        yield lambda done, total, text: bar.update(task, completed=done, total=total, text=text)


def _lines(verb: str) -> Advance:
    last = time.monotonic()

    def advance(done: int, total: int, text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _QUIET_S:
            last = time.monotonic()
            print(f"{verb} {done}/{total} {text}", file=sys.stderr, flush=True)

    return advance
