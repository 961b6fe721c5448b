"""Which files sources stand for: listed once, and looked at again when the run is done."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ismallnet.streams import ALL_SUFFIXES

State = tuple[int, int]
"""Of a file: its bytes, and when it was changed last, in nanoseconds."""


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """List the files that sources stand for, each once, in the order of the sources.

    A file stands for itself, whatever its suffix. A folder stands for the images directly inside, in the
    order of their names: files with one of `ALL_SUFFIXES`, hidden ones left out. A glob stands for the images
    it matches; ``**`` goes into folders.

    Raises:
        FileNotFoundError: A source that does not exist, or holds no image.
    """
    found: dict[str, Path] = {}
    for source in sources:
        path = Path(source)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = _images_among(path.iterdir())
            if not files:
                raise FileNotFoundError(
                    f"no {', '.join(ALL_SUFFIXES)} file in {path}; for its folders give '{path / '**' / '*'}'"
                )
        elif glob.has_magic(str(source)):
            files = _images_among(Path(match) for match in glob.glob(str(source), recursive=True))
            if not files:
                raise FileNotFoundError(f"{source} matches no {', '.join(ALL_SUFFIXES)} file")
        else:
            raise FileNotFoundError(f"no file or folder {source}")
        found.update({os.path.abspath(file): file for file in files})
    if not found:
        raise FileNotFoundError("nothing to detect in; give files, folders or globs")
    return list(found.values())


def _images_among(paths: Iterator[Path]) -> list[Path]:
    ours = (
        p for p in paths if p.suffix.lower() in ALL_SUFFIXES and not p.name.startswith(".") and p.is_file()
    )
    return sorted(ours)


def states(paths: Iterable[Path]) -> dict[str, State]:
    """Return bytes and time of the last change of files; zeros where there is none."""
    found = {}
    for path in paths:
        try:
            status = path.stat()
            found[str(path)] = (status.st_size, status.st_mtime_ns)
        except OSError:  # it vanished: reading will say so
            found[str(path)] = (0, 0)
    return found


def changes(before: Mapping[str, State], now: Mapping[str, State]) -> list[str]:
    """Say which files were added or changed; what vanished is a failure when it is to be read."""
    return [
        f"{path} was {'changed' if path in before else 'added'} while the run went on; run again for it"
        for path, state in now.items()
        if any(state) and before.get(path) != state
    ]


def list_again(sources: Sequence[str | Path]) -> list[Path]:
    """List the files as they are by now; none where a source has vanished."""
    try:
        return find_images(sources)
    except FileNotFoundError:
        return []
