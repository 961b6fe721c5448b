"""A data set: named images with their truth, in the order of a split list, read when asked for.

Every decision about pixels is taken here once: grey by the one conversion of `media`, deeper than 8 bits
scaled by percentiles, a mask is what exceeds half of its own maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ismallnet.data.layouts import ALL, Files, ids_sha256
from ismallnet.media import normalise, read_pages
from ismallnet.types import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples of one split, by position: ``for sample in dataset``, ``dataset[3]``, ``len(dataset)``.

    A sample is read from its files at every access: nothing is kept.
    """

    name: str
    """Name of the data set, as in the table of layouts."""
    root: Path
    """The folder, or the packed file, that the samples come from."""
    split: str
    """Name of the split list."""
    ids: tuple[str, ...]
    """Ids in the order of the list."""
    read: Callable[[str], Sample] = field(repr=False, compare=False)
    """How a sample is read, from its id."""

    @property
    def split_sha256(self) -> str:
        """Fingerprint of the ids, whatever their order: `layouts.ids_sha256`."""
        return ids_sha256(self.ids)

    @property
    def holds_test_images(self) -> bool:
        """True where the split, by its name, is or holds a test list: ``test``, ``trainvaltest``, ``all``."""
        return self.split == ALL or "test" in self.split.rsplit("/", maxsplit=1)[-1]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return self.read(self.ids[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self.read(id) for id in self.ids)

    def subset(self, ids: Iterable[str], *, split: str | None = None) -> Dataset:
        """The samples of these ids only, in the order given.

        Args:
            ids: Ids of this data set.
            split: What the part is called; None keeps the name.

        Raises:
            ValueError: an id that is not in this data set.
        """
        chosen = tuple(ids)
        unknown = sorted(set(chosen) - set(self.ids))
        if unknown:
            raise ValueError(
                f"no image {unknown[0]!r} in {self.name} {self.split}; take ids from dataset.ids"
            )
        return replace(self, ids=chosen, split=self.split if split is None else split)


def read_sample(files: Files, id: str) -> Sample:
    """Read one image and its mask.

    Raises:
        ValueError: a file that cannot be decoded, or sizes that differ where the layout does not know of it.
    """
    image = read_grey(files.images[id])
    mask = read_mask(files.masks[id])
    if mask.shape != image.shape:
        if id not in files.layout.resized_masks:
            raise ValueError(
                f"{files.masks[id]} is {_size(mask)} and its image {_size(image)} (rows x columns); "
                "a mask has the size of its image: replace it or take the id out of the list"
            )
        size = image.shape[1], image.shape[0]
        mask = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(np.bool_)
    return Sample(id, image, mask)


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Read an image as (H, W) grey levels 0-255.

    8-bit files keep their levels. Any other type is scaled as `detect` does by default (`media.normalise`)
    and rounded.

    Raises:
        ValueError: not an image of one page that can be decoded.
    """
    levels = read_levels(path)
    if levels.dtype == np.uint8:
        return levels
    return np.rint(normalise(levels).pixels * 255).astype(np.uint8)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask as (H, W), True on target pixels.

    Raises:
        ValueError: not an image of one page that can be decoded.
    """
    return binarise(read_levels(path))


def read_levels(path: Path) -> NDArray[Any]:
    """Read an image of one page as (H, W) grey at its own bit depth.

    Raises:
        ValueError: not an image of one page that can be decoded.
    """
    pages = read_pages(path)
    if len(pages) > 1:
        raise ValueError(f"{path}: it has {len(pages)} pages; a data set takes one image a file")
    return pages[0]


def binarise(levels: NDArray[Any]) -> NDArray[np.bool_]:
    """The one rule for masks: target where the level exceeds half of the mask's own maximum.

    {0, 1}, {0, 255} and 16-bit masks come out alike; of an anti-aliased edge the half nearer to the target is
    kept; an all-zero mask is empty.

    Args:
        levels: (H, W), any real type, 0 the background.

    Returns:
        (H, W).
    """
    mask: NDArray[np.bool_] = levels > levels.max(initial=0) / 2
    return mask


def _size(array: NDArray[Any]) -> str:
    return "x".join(map(str, array.shape))
