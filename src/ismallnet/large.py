"""Detection in an image that is read by rows: memory holds a few rows of tiles, the maps lie on the disk.

A first pass scores the image, tile by tile, and writes the maps; a second one reads the score, of which then
the threshold is known, and measures the targets. Time grows as the number of pixels.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from ismallnet.draw import overlay
from ismallnet.media import ImageError
from ismallnet.raster import open_rasters
from ismallnet.targets import find_in_bands

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.detector import Detector
    from ismallnet.raster import Raster
    from ismallnet.types import Target

TILE = 512
"""Side of the tiles of a mask's file."""
PICTURE_PX = 4096
"""An overlay is shrunk by a whole factor until neither side is longer."""
CAPTIONS = 500
"""With more targets than these, an overlay has boxes alone."""
_MAPS = ("score", "interior", "boundary")


class Found(NamedTuple):
    """What was found in one image; the maps are in files."""

    threshold: float
    targets: tuple[Target, ...]


def detect_pages(
    path: Path,
    detector: Detector,
    files: Callable[[int, int], Mapping[str, Path]],
    *,
    range: tuple[float, float] | None,
    scratch: Path,
    advance: Callable[[float], None],
) -> list[tuple[Raster, Found] | ImageError]:
    """Find the targets of all pages of a TIFF file; what is found of each, or why a page cannot be read.

    Args:
        path: The file.
        detector: As in `detect_by_rows`.
        files: From a page's number and the number of pages to what to write of it, as in `detect_by_rows`.
        range: As in `ismallnet.raster.open_rasters`.
        scratch: As in `detect_by_rows`.
        advance: Called with the part of the rows of a page that are scored.

    Raises:
        ImageError: No page can be read, or one no longer; what was written of the file is removed.
        OSError: The maps cannot be written.
        ValueError: A wrong range, or a map that the detector does not have.
    """
    found: list[tuple[Raster, Found] | ImageError] = []
    written: list[Path] = []
    try:
        with open_rasters(path, range=range) as images:
            for number, image in enumerate(images):
                if isinstance(image, ImageError):
                    found.append(image)
                    continue
                own = files(number, len(images))
                written += own.values()
                found.append((image, detect_by_rows(image, detector, own, scratch=scratch, advance=advance)))
    except ImageError:
        for file in written:
            file.unlink(missing_ok=True)
        raise
    return found


def detect_by_rows(
    image: Raster,
    detector: Detector,
    files: Mapping[str, Path],
    *,
    scratch: Path,
    advance: Callable[[float], None],
) -> Found:
    """Find the targets of an image that is read by rows.

    Args:
        image: Of any size.
        detector: Cuts it into its tiles, or into those of the default where it has none.
        files: What to write, and where: ``score``, ``interior``, ``boundary`` (float32 TIFF, uncompressed),
            ``mask`` (uint8 TIFF of deflated tiles, 0 and 255), ``overlay`` (any picture, shrunk to at most
            `PICTURE_PX` a side; a pixel is the brightest of those that it stands for).
        scratch: Where the score lies meanwhile if it is not to be kept: four bytes a pixel.
        advance: Called with the part of the rows that are scored.

    Raises:
        ImageError: Rows cannot be read.
        OSError: The maps cannot be written, for want of space perhaps.
        ValueError: A map that the detector does not have.
    """
    paths = {kind: files[kind] for kind in _MAPS if kind in files}
    paths.setdefault("score", scratch)
    for path in (*files.values(), scratch):
        path.parent.mkdir(parents=True, exist_ok=True)
    _check_space(scratch.parent, 4 * len(paths) * image.shape[0] * image.shape[1])
    try:
        _write_maps(image, detector, paths, advance)
        score = _Stored(paths["score"], image.shape)
        threshold = detector.rule.threshold_of_bands(score.bands())
        targets = find_in_bands((band > threshold, band) for band in score.bands())
        if "mask" in files:
            _write_mask(files["mask"], score, threshold)
    finally:
        scratch.unlink(missing_ok=True)
    if "overlay" in files:
        picture = _overlay(image, targets)
        files["overlay"].write_bytes(cv2.imencode(files["overlay"].suffix, picture)[1].tobytes())
    return Found(threshold, targets)


class _Stored:
    """A map in a float32 TIFF that is read through the memory map of some of its rows."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        import tifffile

        with tifffile.TiffFile(path) as file:
            self.offset = file.pages.first.dataoffsets[0]
        self._path, self.shape = path, shape

    def bands(self) -> Iterator[NDArray[np.float32]]:
        """Read the map from top to bottom, `TILE` rows at a time; what was read leaves the memory."""
        height, width = self.shape
        for y in range(0, height, TILE):
            size = (min(TILE, height - y), width)
            yield np.memmap(self._path, "<f4", "r", offset=self.offset + 4 * y * width, shape=size)


def _write_maps(
    image: Raster, detector: Detector, paths: Mapping[str, Path], advance: Callable[[float], None]
) -> None:
    """Score an image and write its maps, each as the rows come."""
    import tifffile

    height, width = image.shape
    with ExitStack() as stack:
        outputs = {}
        for kind, path in paths.items():
            big = 4 * height * width > 2**32 - 2**20
            options: dict[str, Any] = {"photometric": "minisblack", "byteorder": "<", "bigtiff": big}
            tifffile.imwrite(path, shape=image.shape, dtype=np.float32, metadata=None, **options)
            outputs[kind] = stack.enter_context(path.open("r+b"))
            outputs[kind].seek(_Stored(path, image.shape).offset)
        done = 0
        for maps in detector.bands(image.rows, image.shape):
            for kind, output in outputs.items():
                values = maps.target if kind == "score" else getattr(maps, kind)
                if values is None:
                    raise ValueError(f"this detector has no {kind} map; leave {kind} out of what is saved")
                output.write(np.ascontiguousarray(values, "<f4").data)
            done += len(maps.target)
            advance(done / height)


def _write_mask(path: Path, score: _Stored, threshold: float) -> None:
    import tifffile

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for band in score.bands():
            for x in range(0, band.shape[1], TILE):
                part = band[:, x : x + TILE] > threshold
                tile = np.zeros((TILE, TILE), np.uint8)
                tile[: part.shape[0], : part.shape[1]] = part * np.uint8(255)
                yield tile

    tifffile.imwrite(
        path,
        tiles(),
        shape=score.shape,
        dtype=np.uint8,
        tile=(TILE, TILE),
        compression="zlib",
        photometric="minisblack",
        metadata=None,
    )


def _overlay(image: Raster, targets: tuple[Target, ...]) -> NDArray[np.uint8]:
    """Draw the targets on a shrunk image, of which each pixel is the brightest of a square."""
    height, width = image.shape
    factor = -(-max(height, width) // PICTURE_PX)
    step = factor * max(TILE // factor, 1)
    bands = (image.rows(y, min(y + step, height)) for y in range(0, height, step))
    small = np.concatenate([_brightest(band, factor) for band in bands])
    boxes = [
        replace(t, x0=t.x0 // factor, y0=t.y0 // factor, x1=-(-t.x1 // factor), y1=-(-t.y1 // factor))
        for t in targets
    ]
    return overlay(small, boxes, text=len(boxes) <= CAPTIONS)


def _brightest(band: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Take the maximum of squares, those at the right and at the bottom perhaps incomplete."""
    height, width = band.shape
    rows = np.maximum.reduceat(band, range(0, height, factor), axis=0)
    return np.asarray(np.maximum.reduceat(rows, range(0, width, factor), axis=1), np.float32)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"the maps of a large image take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            str(folder),
        )
