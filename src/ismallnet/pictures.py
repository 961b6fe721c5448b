"""What is saved of every frame: overlays, masks and maps, a folder a kind, a file an image.

Overlays and masks (0 and 255) are 8-bit PNG; score, interior and boundary are float32 TIFF, unaltered. The
frames of a stack or a video are numbered files in a folder of its name; the overlay of a video is a video. Of
an image that is read by rows (`ismallnet.large`) masks are TIFF and overlays are shrunk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from ismallnet.draw import overlay
from ismallnet.streams import MANY
from ismallnet.streams.recorder import Recorder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.media import Image
    from ismallnet.types import Detection

FOLDERS = {kind: kind for kind in ("overlay", "mask", "score", "interior", "boundary")}
"""The kinds, and their folders."""


class Job(NamedTuple):
    """A file to look at."""

    path: Path
    name: str
    """Of what is saved of it, below the folder of a kind and without a suffix."""


def plan(paths: Sequence[Path], common: Path) -> list[Job]:
    """Give every file a name of its own: its path below a common folder (case counts on no system).

    Names depend on the paths alone, so that all processes of a shared run agree.
    """
    stems = [path.absolute().relative_to(common).with_suffix("") for path in paths]
    folders = {str(parent).casefold() for stem in stems for parent in stem.parents}
    jobs, taken = [], set[str]()
    for path, stem in zip(paths, stems, strict=True):
        many = path.suffix.lower() in MANY  # then a folder of frames may have this name
        number, name = 1, str(stem)
        while name.casefold() in taken or (many and name.casefold() in folders):
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        jobs.append(Job(path, name))
    return jobs


class Pictures:
    """Writes the pictures and maps of one file after the other.

    Args:
        folder: Where the folders of the kinds are made.
        save: Which kinds: keys of `FOLDERS`; others are left alone.
    """

    def __init__(self, folder: Path, save: Collection[str]) -> None:
        self._folder, self._save = folder, save
        self._name, self._many, self._missing = "", False, 0
        self._recorder: Recorder | None = None

    def begin(self, name: str, *, many: bool, rate: Fraction | None) -> None:
        """Start with a file: its name, whether it may hold several frames, and the rate of a video."""
        self._name, self._many, self._missing = name, many, 0
        if rate and "overlay" in self._save:
            self._recorder = Recorder(self._folder / FOLDERS["overlay"] / f"{name}.mp4", rate)

    def add(self, image: Image, found: Detection) -> None:
        """Write what is saved of a frame.

        Raises:
            ValueError: The detector has no such map.
            OSError: It cannot be written.
        """
        name = f"{self._name}/{image.frame:04d}" if self._many else self._name
        if self._recorder:
            self._record(overlay(image.pixels, found.targets, as_is=True))
        elif "overlay" in self._save:
            self._write("overlay", f"{name}.png", overlay(image.pixels, found.targets))
        if "mask" in self._save:
            self._write("mask", f"{name}.png", found.mask.astype(np.uint8) * 255)
        maps = {"score": found.score, "interior": found.interior, "boundary": found.boundary}
        for kind, values in maps.items():
            if kind not in self._save:
                continue
            if values is None:
                raise ValueError(f"this detector has no {kind} map; leave {kind} out of what is saved")
            self._write(kind, f"{name}.tif", values)

    def places(self, name: str, frame: int, count: int) -> dict[str, Path]:
        """Where what is saved of an image that is read by rows goes: masks are TIFF there, too."""
        name = name if count == 1 else f"{name}/{frame:04d}"
        suffixes = {kind: "png" if kind == "overlay" else "tif" for kind in FOLDERS if kind in self._save}
        return {kind: self._folder / FOLDERS[kind] / f"{name}.{end}" for kind, end in suffixes.items()}

    def miss(self) -> None:
        """Pass over a frame: black in a video, if another follows, so that the others keep their time."""
        self._missing += 1

    def end(self) -> None:
        """Finish with the file."""
        if self._recorder:
            self._recorder.close()
        self._recorder = None

    def _record(self, picture: NDArray[np.uint8]) -> None:
        assert self._recorder
        for _ in range(self._missing):
            self._recorder.add(np.zeros_like(picture))
        self._missing = 0
        self._recorder.add(picture)

    def _write(self, kind: str, name: str, picture: NDArray[Any]) -> None:
        """Encode by the suffix; unlike cv2.imwrite, paths of any script and an error where it fails."""
        path = self._folder / FOLDERS[kind] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())
