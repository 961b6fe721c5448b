"""Opening data sets: from a folder as it was published, from a user's own folder, or from a packed file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ismallnet.data.dataset import Dataset, read_sample
from ismallnet.data.layouts import (
    ALL,
    Layout,
    find_layout,
    find_root,
    identify,
    list_files,
    list_names,
    split_ids,
)
from ismallnet.data.pack import load_packed


def load(name: str, root: str | Path, split: str) -> Dataset:
    """Open one split of a data set.

    Args:
        name: "NUAA-SIRST", "NUDT-SIRST", "IRSTD-1k" or "folder" (in any case; "nuaa", "nudt" will do).
        root: The folder that holds the data set's folder, or that folder itself, or a file made by `pack`.
        split: "train", "test", "all", or the path of a list file below the data set's folder without ".txt"
            ("idx_427/trainval"). A generic folder without lists gives every image as "train" and as "test".

    Returns:
        The split, not yet read.

    Raises:
        ValueError: unknown name, a list that is empty or names an image twice, a file that is no pack.
        FileNotFoundError: no such folder, list, image or mask; the message says what was looked for, where,
            and where the data is published.
    """
    layout = find_layout(name)
    root = Path(root).expanduser()
    if root.is_file():
        return _of_pack(layout, root, split)
    files = list_files(layout, find_root(layout, root))
    return Dataset(layout.name, files.root, split, split_ids(files, split), partial(read_sample, files))


def load_all(root: str | Path) -> tuple[Dataset, ...]:
    """Open every split of every data set found at a folder: what `pack` takes to keep all of it.

    Args:
        root: The folder that holds the data sets' folders, or the folder of one.

    Returns:
        For each data set its splits by the names of their list files, then "all".

    Raises:
        FileNotFoundError: no data set there; otherwise as `load`.
        ValueError: as `load`.
    """
    found = identify(Path(root).expanduser())
    return tuple(
        load(layout.name, at, split) for layout, at in found for split in (*list_names(layout, at), ALL)
    )


def _of_pack(layout: Layout, path: Path, split: str) -> Dataset:
    packed = load_packed(path)
    if layout.name not in packed:
        raise FileNotFoundError(f"{path} holds no {layout.name}, only {', '.join(packed)}; pack it too")
    splits = packed[layout.name]
    every = layout.is_every_image(split, splits.keys() - {ALL})
    found = splits.get(ALL if every else layout.list_name(split))
    if found is None:
        raise FileNotFoundError(
            f"{path}: {layout.name} has no split {split!r}; choose from {', '.join(splits)}"
        )
    return found.subset(found.ids, split=split)
