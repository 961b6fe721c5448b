"""What the command line prints: results to standard output; progress, warnings, errors to standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    Advance = Callable[[int, int, str], None]

OK, BAD_INPUT, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: all well; done, but something was wrong with some input; not to be done as it was given."""
_WIDTH = 120
"""Columns of what is written to a file or a pipe."""
_QUIET_S = 60.0
"""Seconds between lines of progress where standard error is not a terminal."""


def say(text: str) -> None:
    """Print a line of result."""
    _console().print(_plain(text))


def warn(text: str) -> None:
    """Print a warning."""
    _console(stderr=True).print(f"[yellow]warning:[/] {_plain(text)}")


def complain(text: str) -> None:
    """Print an error."""
    _console(stderr=True).print(f"[bold red]error:[/] {_plain(text)}")


def failed(reasons: Sequence[str]) -> int:
    """Name what could not be done; the exit status that follows."""
    for reason in reasons:
        complain(reason)
    return BAD_INPUT if reasons else OK


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; nothing where there is no row. Numbers align right; only the last column is wrapped."""
    if not rows:
        return
    from rich import box
    from rich.table import Table

    grid = Table(
        title=title and _plain(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for index, column in enumerate(columns):
        numbers = all(row[index][:1].isdigit() or row[index] in ("", "-", "nan") for row in rows)
        last = index == len(columns) - 1
        grid.add_column(column, justify="right" if numbers else "left", no_wrap=not last, overflow="fold")
    for row in rows:
        grid.add_row(*map(_plain, row))
    _console().print(grid)


@contextmanager
def progress(verb: str, *, unit: str = "") -> Iterator[Advance]:
    """A bar on a terminal, from the first call on; elsewhere, as in a batch job's log, a line a minute.

    Both say how much time is left and, with a unit, how many of it are done a second.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _console(stderr=True)
    if not console.is_terminal:
        yield _lines(verb, unit)
        return
    text = TextColumn("{task.fields[text]}", markup=False)
    speed = (TextColumn("{task.fields[speed]}"),) if unit else ()
    columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), *speed, TimeRemainingColumn(), text)
    bar = Progress(*columns, console=console)
    task = bar.add_task(verb, total=None, text="", speed="")
    start = 0.0

    def advance(done: int, total: int, text: str) -> None:
        nonlocal start
        start = start or time.monotonic()
        bar.start()
        rate = _speed(done, time.monotonic() - start, unit)
        bar.update(task, completed=done, total=total, text=text, speed=rate)

    try:
        yield advance
    finally:
        bar.stop()


def _speed(done: int, elapsed_s: float, unit: str) -> str:
    return f"{done / elapsed_s:.1f} {unit}/s" if unit and done and elapsed_s > 0 else ""


def _lines(verb: str, unit: str) -> Advance:
    last = start = time.monotonic()

    def advance(done: int, total: int, text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _QUIET_S:
            last = time.monotonic()
            elapsed_s = last - start
            left_min = f"{(total - done) / done * elapsed_s / 60:.0f} min left" if done else ""
            parts = (f"{verb} {done}/{total} {text}", _speed(done, elapsed_s, unit), left_min)
            print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)

    return advance


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH
    return console


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
