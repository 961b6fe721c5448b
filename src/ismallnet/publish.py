"""An output folder is there whole or not at all, and what is not ours is never replaced."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

MARKER = ".ismallnet-detect"
"""The file that says that a folder is an output folder of ours."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_replaceable(out: Path, ours: Collection[str], *, force: bool) -> None:
    """Raise unless `out` is missing, empty, or (with force) an earlier run's and nothing else.

    Args:
        out: The folder.
        ours: The names that a run writes in it.
        force: Whether an earlier run may be replaced.

    Raises:
        FileExistsError: It may not be written.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file; give a folder that does not exist yet")
    if not force:
        raise FileExistsError(
            f"{out} exists and is not empty; give another, or replace it with force=True (--force)"
        )
    foreign = {entry.name for entry in out.iterdir()} - {MARKER, *ours}
    if foreign or not (out / MARKER).is_file():
        what = f"holds {min(foreign)}, which" if foreign else "holds files that"
        raise FileExistsError(
            f"{out} {what} detect did not write, so it is not replaced; give another folder"
        )


@contextmanager
def room(out: Path, *, left: str = "nothing half-written is left") -> Iterator[None]:
    """Say where it is that a disk is full, and what is left there."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(error.errno, f"no room to write {out} ({error.strerror}), and {left}") from error


def make_beside(out: Path, name: str, *, exist_ok: bool = False) -> Path:
    """Make a folder beside one to be written, with the parents of both.

    Raises:
        OSError: It cannot be made; the text names `out`.
    """
    fresh = out.with_name(name)
    try:
        fresh.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if error.errno in _FULL:
            raise
        text = f"cannot write {out} ({error.strerror}); give a folder where you may write"
        raise type(error)(error.errno, text) from error
    return fresh


@contextmanager
def published_whole(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to write to; it becomes `out`, or after an exception nothing."""
    fresh = make_beside(out, f".{out.name}.unfinished-{os.getpid()}")
    try:
        (fresh / MARKER).touch()
        yield fresh
        publish(fresh, out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def publish(fresh: Path, out: Path) -> None:
    """Put a whole folder in the place of `out`, which is an earlier run's or missing."""
    if not fresh.is_dir():  # another process was sooner: its folder is left alone
        raise FileNotFoundError(f"no folder {fresh}")
    old = out.with_name(f".{out.name}.replaced-{os.getpid()}")
    try:
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
