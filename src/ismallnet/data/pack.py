"""Data sets in one file: a plain zip of lossless WebP images, bit-packed masks and the split lists.

``index.json`` names the images, their sizes and the lists; ``<data set>/images/<id>.webp`` can be looked at
with any viewer (PNG where a side exceeds WebP's 16383 pixels); ``<data set>/masks.xz`` holds the masks in the
order of the index, each one's bits padded to whole bytes. Nothing is pickled; the same data, the same bytes.
"""

from __future__ import annotations

import json
import lzma
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ismallnet.data.dataset import Dataset
from ismallnet.data.layouts import ALL
from ismallnet.types import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "ismallnet data pack 1"
INDEX = "index.json"
WEBP_LIMIT = 16383
"""Largest side of a WebP image, in pixels."""


def pack(
    datasets: Iterable[Dataset],
    path: str | Path,
    *,
    force: bool = False,
    advance: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Write splits to one file that `load` takes as root, each image once however many splits name it.

    Args:
        datasets: The splits to keep; `load_all(root)` gives all of every data set.
        path: The file to write; written whole or not at all.
        force: Replace an existing file.
        advance: Called with (images done, images in all, name of the image).

    Returns:
        The path.

    Raises:
        FileExistsError: the file exists.
        ValueError: no data set given, or a sample that cannot be read.
    """
    path = Path(path)
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; choose another path or allow it to be replaced (force)")
    by_name: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        by_name.setdefault(dataset.name, []).append(dataset)
    if not by_name:
        raise ValueError("no data set to pack; give at least one split")
    total = sum(len({id for split in splits for id in split.ids}) for splits in by_name.values())
    done = count(1)

    def step(text: str) -> None:
        if advance is not None:
            advance(next(done), total, text)

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(unfinished, "w") as archive:
            index = {name: _add(archive, name, splits, step) for name, splits in by_name.items()}
            text = json.dumps({"format": FORMAT, "datasets": index}, separators=(",", ":"))
            _write(archive, INDEX, text.encode(), zipfile.ZIP_DEFLATED)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _add(
    archive: zipfile.ZipFile,
    name: str,
    splits: list[Dataset],
    step: Callable[[str], None],
) -> dict[str, Any]:
    """Write one data set's images and masks; returns its entry in the index."""
    source = {id: split for split in splits for id in split.ids}
    ids, shapes, bits = sorted(source), [], []
    with ThreadPoolExecutor() as pool:
        encoded = pool.map(lambda id: _encode(source[id].read(id)), ids)
        for id, (shape, suffix, image, mask) in zip(ids, encoded, strict=True):
            _write(archive, f"{name}/images/{id}{suffix}", image)
            shapes.append(shape)
            bits.append(mask)
            step(f"{name} {id}")
    _write(archive, f"{name}/masks.xz", lzma.compress(b"".join(bits), preset=9))
    lists = [split for split in splits if split.split != ALL]
    return {
        "ids": ids,
        "shapes": shapes,
        "lists": {split.split: split.ids for split in lists},
        "split_sha256": {split.split: split.split_sha256 for split in lists},
    }


def load_packed(path: str | Path) -> dict[str, dict[str, Dataset]]:
    """Open a file made by `pack`.

    The compressed file is held in memory (30 MB for both public data sets); a sample is decoded at every
    access, in about half a millisecond.

    Returns:
        Data set name -> split name -> data set. The split "all" is every image in the file.

    Raises:
        OSError: no such file.
        ValueError: not such a file, or a damaged one.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        index = json.loads(files[INDEX])
        if index["format"] != FORMAT:
            raise ValueError(f"format {index['format']!r}, this version reads {FORMAT!r}")
        return {name: _splits(path, name, entry, files) for name, entry in index["datasets"].items()}
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, lzma.LZMAError) as error:
        raise ValueError(
            f"{path} is no data pack or a damaged one ({error}); make it again with pack"
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class _Packed:
    """The encoded samples of one data set."""

    images: Mapping[str, bytes] = field(repr=False)
    masks: bytes = field(repr=False)
    places: Mapping[str, tuple[int, int, int]]
    """Id -> height, width, first byte of the mask."""

    def read(self, id: str) -> Sample:
        height, width, start = self.places[id]
        image = _decode(self.images[id])
        size = height * width
        bits = np.frombuffer(self.masks, np.uint8, -(-size // 8), start)
        return Sample(id, image, np.unpackbits(bits, count=size).reshape(height, width).view(np.bool_))


def _splits(path: Path, name: str, entry: dict[str, Any], files: Mapping[str, bytes]) -> dict[str, Dataset]:
    prefix = f"{name}/images/"
    images = {Path(key).stem: data for key, data in files.items() if key.startswith(prefix)}
    places, start = {}, 0
    for id, (height, width) in zip(entry["ids"], entry["shapes"], strict=True):
        places[id] = height, width, start
        start += -(-height * width // 8)
    read = _Packed(images, lzma.decompress(files[f"{name}/masks.xz"]), places).read
    lists = {**entry["lists"], ALL: entry["ids"]}
    splits = {split: Dataset(name, path, split, tuple(ids), read) for split, ids in lists.items()}
    for split, sha256 in entry["split_sha256"].items():
        if splits[split].split_sha256 != sha256:
            raise ValueError(f"the ids of {name} {split} do not have the recorded SHA-256")
    return splits


def _encode(sample: Sample) -> tuple[tuple[int, ...], str, bytes, bytes]:
    """(shape, file suffix, image, mask), the image decoded again to see that no pixel changed."""
    webp = max(sample.image.shape) <= WEBP_LIMIT
    suffix, options = (
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]) if webp else (".png", [])
    )  # over 100: lossless
    image = cv2.imencode(suffix, sample.image, options)[1].tobytes()
    if not np.array_equal(_decode(image), sample.image):
        raise ValueError(f"OpenCV {cv2.__version__} does not keep {sample.id} as {suffix} bit for bit")
    return sample.image.shape, suffix, image, np.packbits(sample.mask).tobytes()


def _decode(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


def _write(archive: zipfile.ZipFile, name: str, data: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Add an entry with a fixed date, so that the same data gives the same file."""
    archive.writestr(zipfile.ZipInfo(name), data, compression)
