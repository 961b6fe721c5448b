"""A table on the disk that grows by a row and survives an interruption."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ismallnet.checkpoint import write_text

Row = Mapping[str, str]


class Store:
    """A CSV file of rows, rewritten whole at every change: at any moment the old or the new one is there.

    Args:
        path: Of the file; its folder is made with the first row.
        columns: Of the table, in their order.

    Raises:
        ValueError: The file has other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self._columns = path, tuple(columns)
        self.rows: list[Row] = []
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                table = csv.DictReader(file)
                if tuple(table.fieldnames or ()) != self._columns:
                    raise ValueError(f"{path} has other columns than this version writes; move it away")
                self.rows = list(table)

    def require_limit(self, limit: int | None) -> None:
        """Refuse to mix a rehearsal on some images with another, or with the real thing.

        Raises:
            ValueError: There are rows of another limit.
        """
        here = str(limit or "")
        others = {row["limit"] for row in self.rows} - {here}
        if others:
            old, new = (f"the first {n} images" if n else "all images" for n in (min(others), here))
            raise ValueError(f"{self.path} is of {old} of each list, not of {new}; choose another --out")

    def replace(self, key: Row, new: Iterable[Row]) -> None:
        """Put new rows in the place of those that have all values of the key, and write the file."""
        self.rows = [row for row in self.rows if not key.items() <= row.items()] + list(new)
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, text.getvalue())
