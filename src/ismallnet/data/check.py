"""Is a data set on the disk what it should be? Every check is a row with a count, found something or not."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, permutations
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from ismallnet import targets
from ismallnet.data.dataset import binarise, read_grey, read_levels
from ismallnet.data.folds import near_duplicates, perceptual_hash
from ismallnet.data.layouts import (
    Files,
    Layout,
    find_layout,
    find_root,
    identify,
    ids_sha256,
    list_files,
    list_names,
    read_list,
    some,
)
from ismallnet.data.offsets import Offset, medians, offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray

Level = Literal["ok", "note", "problem"]

APART = (("train", "test"), ("trainval", "test"), ("train", "val"), ("val", "test"))
"""List files of one folder that must have no image in common."""
OFF_PX, OFF_TARGETS = 0.25, 30
"""Masks of a size are off their targets where the median offset is as large as this, over as many or more."""


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One thing that was looked at."""

    dataset: str
    level: Level
    """ok: as it should be; note: worth knowing, and documented how it is treated; problem: `load` refuses
    it, or results on it mean nothing."""
    what: str
    count: int
    """How many there are, of files, ids or pairs."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found."""

    root: Path
    rows: tuple[CheckRow, ...]

    @property
    def ok(self) -> bool:
        """True where no row is a problem."""
        return not any(row.level == "problem" for row in self.rows)


def check(
    root: str | Path, name: str | None = None, *, advance: Callable[[int, int, str], None] | None = None
) -> CheckReport:
    """Read every file of the data sets at a folder and compare them with their lists and with each other.

    Args:
        root: The folder that holds the data sets' folders, or the folder of one.
        name: Which data set; None takes every public one found, else a generic folder.
        advance: Called with (images read, images in all, name of the image).

    Returns:
        The rows, data set by data set.

    Raises:
        FileNotFoundError: no data set there, or no folder of masks.
        NotADirectoryError: a file, such as a pack.
        ValueError: unknown name.
    """
    root = Path(root).expanduser()
    if root.is_file():
        raise NotADirectoryError(
            f"{root} is a file; check takes the folder of a data set, or one that holds several. A pack is "
            "checked against its own sums whenever it is opened; give the folder that it was made of"
        )
    if name is None:
        found: Sequence[tuple[Layout, Path]] = identify(root)
    else:
        layout = find_layout(name)
        found = ((layout, find_root(layout, root)),)
    indexed = [list_files(layout, at) for layout, at in found]
    total, done = sum(len(files.images) for files in indexed), count(1)

    def step(text: str) -> None:
        if advance is not None:
            advance(next(done), total, text)

    rows = [row for files in indexed for row in _check(files, step)]
    return CheckReport(root, tuple(rows))


@dataclass(frozen=True, slots=True)
class _Image:
    """What is kept of an image that was read."""

    shape: tuple[int, ...]
    sha256: str
    """Of shape and grey levels."""
    hash: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Mask:
    """What is kept of a mask that was read."""

    shape: tuple[int, ...]
    levels: int
    """Number of distinct grey levels."""
    areas: tuple[int, ...]
    """Pixels of each 8-connected target, in the mask's own size."""
    offsets: tuple[Offset, ...]
    """Of the targets against the image; empty where the mask has another size."""


def _check(files: Files, step: Callable[[str], None]) -> Iterator[CheckRow]:
    images: dict[str, _Image] = {}
    masks: dict[str, _Mask] = {}
    unreadable: list[str] = []
    for id in files.images:
        try:
            grey = read_grey(files.images[id])
            images[id] = _look_at_image(grey)
            if id in files.masks:
                masks[id] = _look_at_mask(files.masks[id], grey)
        except (OSError, ValueError) as error:
            unreadable.append(str(error))
        step(f"{files.layout.name} {id}")
    name = files.layout.name
    yield _counts(name, images)
    yield _targets(name, masks)
    yield _row(name, "problem", "files that cannot be read", unreadable)
    yield from _pairs(files, images, masks)
    yield _row(name, "note", "masks without a target", [id for id, mask in masks.items() if not mask.areas])
    gradual = [id for id, mask in masks.items() if mask.levels > 2]
    yield _row(name, "note", "masks that are not binary", gradual, "target above half of the mask's maximum")
    yield _offset(name, masks)
    lists = {split: read_list(files.root / f"{split}.txt") for split in list_names(files.layout, files.root)}
    yield from _lists(files, lists)
    yield from _overlaps(name, lists, images)
    yield from _duplicates(name, images)


def _look_at_image(grey: NDArray[np.uint8]) -> _Image:
    digest = hashlib.sha256(repr(grey.shape).encode() + grey.tobytes()).hexdigest()
    return _Image(grey.shape, digest, perceptual_hash(grey))


def _look_at_mask(path: Path, grey: NDArray[np.uint8]) -> _Mask:
    levels = read_levels(path)
    mask = binarise(levels)
    areas = tuple(target.area for target in targets.find(mask))
    off = tuple(offsets(grey, mask)) if mask.shape == grey.shape else ()
    return _Mask(levels.shape, len(np.unique(levels)), areas, off)


def _row(dataset: str, bad: Level, what: str, found: Sequence[str], advice: str = "") -> CheckRow:
    """A row that is of level `bad` where anything was found."""
    detail = some(found) + (f"; {advice}" if advice else "") if found else ""
    return CheckRow(dataset, bad if found else "ok", what, len(found), detail)


def _counts(dataset: str, images: Mapping[str, _Image]) -> CheckRow:
    shapes = sorted({image.shape for image in images.values()})
    if not shapes:
        return CheckRow(dataset, "problem", "images", 0, "no image could be read")
    rows, columns = zip(*shapes, strict=True)
    low, high = f"{min(rows)}x{min(columns)}", f"{max(rows)}x{max(columns)}"
    span = low if len(shapes) == 1 else f"{low} to {high}, {len(shapes)} sizes"
    return CheckRow(dataset, "ok", "images", len(images), f"{span} (rows x columns)")


def _targets(dataset: str, masks: Mapping[str, _Mask]) -> CheckRow:
    areas = sorted(area for mask in masks.values() for area in mask.areas)
    if not areas:
        return CheckRow(dataset, "problem", "masks", len(masks), "no target in any mask")
    span = f"area {areas[0]} to {areas[-1]}, median {areas[len(areas) // 2]} pixels"
    return CheckRow(dataset, "ok", "masks", len(masks), f"{len(areas)} targets, {span}")


def _offset(dataset: str, masks: Mapping[str, _Mask]) -> CheckRow:
    what, texts, found = "masks that lie beside their targets", [], 0
    for (low, high), (n, dx, dy) in medians(o for mask in masks.values() for o in mask.offsets).items():
        if n >= OFF_TARGETS and max(abs(dx), abs(dy)) >= OFF_PX:
            found += n
            texts.append(f"{low} to {high} pixels: " if high else f"from {low} pixels: ")
            texts[-1] += (
                f"{abs(dx):.2f} {'right' if dx > 0 else 'left'}, {abs(dy):.2f} {'down' if dy > 0 else 'up'}"
            )
    advice = "give it a mask_offset in recipes"
    return (
        CheckRow(dataset, "note", what, found, "; ".join([*texts, advice]))
        if texts
        else CheckRow(dataset, "ok", what, 0)
    )


def _pairs(files: Files, images: Mapping[str, _Image], masks: Mapping[str, _Mask]) -> Iterator[CheckRow]:
    """Do images and masks belong together?"""
    name, known = files.layout.name, files.layout.resized_masks
    other = {
        id: f"{id} (image {_size(images[id].shape)}, mask {_size(mask.shape)})"
        for id, mask in masks.items()
        if mask.shape != images[id].shape
    }
    as_known = [text for id, text in other.items() if id in known]
    yield _row(name, "note", "masks resized to their image, as documented", as_known)
    yield _row(
        name,
        "problem",
        "masks of another size than their image",
        [t for i, t in other.items() if i not in known],
    )
    yield _row(name, "problem", "ids with two files", files.ambiguous)
    yield _row(name, "note", "images without a mask", [id for id in files.images if id not in files.masks])
    yield _row(name, "note", "masks without an image", files.stray_masks)


def _lists(files: Files, lists: Mapping[str, tuple[str, ...]]) -> Iterator[CheckRow]:
    name = files.layout.name
    for split, ids in lists.items():
        yield CheckRow(
            name, "ok" if ids else "problem", f"list {split}", len(ids), f"sha256 {ids_sha256(ids)}"
        )
    wanted = files.layout.splits.values() if files.layout.lists_required else ()
    missing = [f"{split}.txt" for split in wanted if split not in lists]
    yield _row(name, "problem", "missing lists", missing, f"published at {files.layout.published}")
    without = [
        f"{split} {id}"
        for split, ids in lists.items()
        for id in ids
        if id not in files.images or id not in files.masks
    ]
    yield _row(name, "problem", "listed ids without image or mask", without)
    times = {split: Counter(ids).items() for split, ids in lists.items()}
    twice = [f"{split} {id}" for split, counts in times.items() for id, n in counts if n > 1]
    yield _row(name, "problem", "ids more than once in a list", twice)


def _overlaps(
    dataset: str, lists: Mapping[str, tuple[str, ...]], images: Mapping[str, _Image]
) -> Iterator[CheckRow]:
    """What lists share that should be apart: ids, identical images, near-duplicates."""
    shared: list[str] = []
    identical: list[str] = []
    near: list[str] = []
    mixed: list[str] = []
    for one, other in permutations(lists, 2):
        learnt, tested = PurePosixPath(one), PurePosixPath(other)
        if (learnt.name, tested.name) not in APART:
            continue
        left, right = set(lists[one]), set(lists[other])
        ids = sorted(left & right)
        if learnt.parent != tested.parent:
            mixed.extend([f"{one} and {other} ({len(ids)} ids)"] if ids else [])
            continue
        shared.extend(f"{id} in {one} and {other}" for id in ids)
        same, alike = _alike({id: image for id, image in images.items() if id in left ^ right})
        for pairs, found in ((same, identical), (alike, near)):
            apart = [pair for pair in pairs if len(left.intersection(pair)) == 1]
            found.extend(f"{a} and {b} in {one} and {other}" for a, b in apart)
    yield _row(dataset, "problem", "ids in lists that must be apart", shared)
    yield _row(dataset, "problem", "identical images in lists that must be apart", identical)
    yield _row(dataset, "note", "near-duplicates in lists that must be apart", near)
    yield _row(dataset, "note", "lists of different folders that share ids", mixed, "never mix list folders")


def _duplicates(dataset: str, images: Mapping[str, _Image]) -> Iterator[CheckRow]:
    same, near = _alike(images)
    yield _row(dataset, "note", "identical images", [f"{a} = {b}" for a, b in same])
    pairs = [f"{a} ~ {b}" for a, b in near]
    yield _row(dataset, "note", "near-duplicates", pairs, "a validation fold takes both or none")


def _alike(images: Mapping[str, _Image]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs of ids, in the order given, of identical images and of near-duplicates that are not identical."""
    ids = list(images)
    same: list[tuple[str, str]] = []
    near: list[tuple[str, str]] = []
    hashes = np.stack([image.hash for image in images.values()]) if ids else np.zeros((0, 64), np.bool_)
    for i, j in near_duplicates(hashes):
        pair = ids[i], ids[j]
        (same if images[pair[0]].sha256 == images[pair[1]].sha256 else near).append(pair)
    return same, near


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
