"""What was found, as CSV, JSON, JSON Lines and COCO: written a frame at a time, whatever their number.

A table is a fold over records in their order, so that whoever has the records makes the same bytes.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from ismallnet.types import Target

if TYPE_CHECKING:
    from ismallnet.media import Rule

COLUMNS = ("image", "frame", "id", "x0", "y0", "x1", "y1", "x", "y", "area", "peak", "mean")
"""The columns of `detections.csv`, one row a target; frame counts from 0, id from 1 as in the overlay."""
FILES = {
    "csv": "detections.csv",
    "json": "detections.json",
    "jsonl": "detections.jsonl",
    "coco": "coco.json",
}
"""The tables and their files."""
_SPOOL = 2**20
"""Bytes of a list that memory keeps before a temporary file does."""


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What was found in one image, or in one frame of a file of several."""

    image: str
    """The file."""
    frame: int
    """Page of the stack or frame of the video, from 0."""
    height: int
    width: int
    dtype: str
    """The file's own type."""
    low: float
    high: float
    rule: Rule
    """The intensity range that was mapped to [0, 1], and where it came from; see `ismallnet.media`."""
    warning: str
    """What is doubtful about the range, or about how the file was read; empty where nothing is."""
    threshold: float
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be read, or a frame of one."""

    image: str
    reason: str
    frame: int | None = None
    """The frame, from 0; None for the whole file."""

    def __str__(self) -> str:
        return f"{self.image}{'' if self.frame is None else f': frame {self.frame}'}: {self.reason}"


Record = FrameResult | Failure


def to_line(record: Record) -> str:
    """Write a record as a line of JSON that `from_line` reads back unchanged."""
    return json.dumps(asdict(record), ensure_ascii=False)


def from_line(line: str) -> Record:
    """Read a record back."""
    fields = json.loads(line)
    if "reason" in fields:
        return Failure(**fields)
    return FrameResult(**{**fields, "targets": tuple(Target(**target) for target in fields["targets"])})


class Tables:
    """The tables of one output folder; a context that ends them.

    Args:
        folder: Where they are written.
        save: Which: keys of `FILES`; others are left alone.
        head: What `detections.json` says first: version, model, weights, decision.
    """

    def __init__(self, folder: Path, save: Iterable[str], head: Mapping[str, Any]) -> None:
        kinds: dict[str, type[_Csv | _Json | _JsonLines | _Coco]] = {
            "csv": _Csv,
            "json": _Json,
            "jsonl": _JsonLines,
            "coco": _Coco,
        }
        self._tables: list[_Csv | _Json | _JsonLines | _Coco] = []
        with contextlib.ExitStack() as opened:
            for kind in FILES:
                if kind in save:
                    path = folder / FILES[kind]
                    file = opened.enter_context(path.open("w", newline="", encoding="utf-8"))
                    self._tables.append(kinds[kind](file, head, opened))
            self._open = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._open:
            if kind is None:
                for table in self._tables:
                    table.end()

    def add(self, record: Record) -> None:
        """Add what was found in a frame, or that it could not be read."""
        for table in self._tables:
            table.add(record)


class _Csv:
    def __init__(self, file: IO[str], head: Mapping[str, Any], opened: contextlib.ExitStack) -> None:
        del head, opened
        self._table = csv.writer(file)
        self._table.writerow(COLUMNS)

    def add(self, record: Record) -> None:
        if isinstance(record, Failure):
            return
        for number, target in enumerate(record.targets, 1):
            cells = (f"{v:.6g}" if isinstance(v, float) else v for v in asdict(target).values())
            self._table.writerow((record.image, record.frame, number, *cells))

    def end(self) -> None:
        pass


class _JsonLines:
    """A line a frame: as in the list `images` of `detections.json`, or with the key `failed`."""

    def __init__(self, file: IO[str], head: Mapping[str, Any], opened: contextlib.ExitStack) -> None:
        del head, opened
        self._file = file

    def add(self, record: Record) -> None:
        if isinstance(record, Failure):
            entry = {"image": record.image, "frame": record.frame, "failed": record.reason}
        else:
            entry = _entry(record)
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def end(self) -> None:
        self._file.flush()


class _Json:
    def __init__(self, file: IO[str], head: Mapping[str, Any], opened: contextlib.ExitStack) -> None:
        self._file = file
        file.write(_dumps(head).removesuffix("\n}") + ",\n")
        self._images, self._failed = _List(file, "images"), _List(_spool(opened, file), "failed")

    def add(self, record: Record) -> None:
        if isinstance(record, Failure):
            self._failed.add(asdict(record))
        else:
            self._images.add(_entry(record))

    def end(self) -> None:
        self._images.end()
        self._file.write(",\n")
        self._failed.end(self._file)
        self._file.write("\n}\n")


class _Coco:
    """A COCO data set whose annotations carry a score, the peak, so that they serve as results too."""

    def __init__(self, file: IO[str], head: Mapping[str, Any], opened: contextlib.ExitStack) -> None:
        del head
        self._file = file
        file.write("{\n")
        self._images, self._targets = _List(file, "images"), _List(_spool(opened, file), "annotations")

    def add(self, record: Record) -> None:
        if isinstance(record, Failure):
            return
        image = self._images.count + 1
        self._images.add(
            {
                "id": image,
                "file_name": record.image,
                "frame": record.frame,
                "width": record.width,
                "height": record.height,
            }
        )
        for target in record.targets:
            self._targets.add(
                {
                    "id": self._targets.count + 1,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": [target.x0, target.y0, target.x1 - target.x0, target.y1 - target.y0],
                    "area": target.area,
                    "iscrowd": 0,
                    "score": target.peak,
                }
            )

    def end(self) -> None:
        self._images.end()
        self._file.write(",\n")
        self._targets.end(self._file)
        self._file.write(",\n")
        categories = _List(self._file, "categories")
        categories.add({"id": 1, "name": "target"})
        categories.end()
        self._file.write("\n}\n")


class _List:
    """A list of a JSON object, as `json.dumps` writes it with an indent of 1, entry by entry."""

    def __init__(self, file: IO[str], name: str) -> None:
        self._file, self.count = file, 0
        file.write(f' "{name}": [')

    def add(self, entry: Mapping[str, Any]) -> None:
        self._file.write(("," if self.count else "") + "\n" + textwrap.indent(_dumps(entry), "  "))
        self.count += 1

    def end(self, into: IO[str] | None = None) -> None:
        """Close the list, and copy it into another file where it was kept aside."""
        self._file.write("\n ]" if self.count else "]")
        if into:
            self._file.seek(0)
            shutil.copyfileobj(self._file, into)


def _spool(opened: contextlib.ExitStack, table: IO[str]) -> IO[str]:
    """Open a file for what comes later in a table, on its disk; it is gone at the end."""
    folder = os.path.dirname(table.name)
    return opened.enter_context(
        tempfile.SpooledTemporaryFile(_SPOOL, "w+", encoding="utf-8", newline="", dir=folder)
    )


def _dumps(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, indent=1, ensure_ascii=False)


def _entry(result: FrameResult) -> dict[str, Any]:
    """Return what the JSON tables say of a frame."""
    fields = asdict(result)
    window = {name: fields.pop(name) for name in ("low", "high", "rule", "warning")}
    targets = [{"id": number, **target} for number, target in enumerate(fields.pop("targets"), 1)]
    return {**fields, "range": window, "targets": targets}
