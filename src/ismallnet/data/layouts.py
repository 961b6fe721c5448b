"""Where the public data sets keep their files: a table, one row a data set, and the reader of such a folder.

A layout is two folders, a suffix that mask names carry after the image's, and the split lists. The row
``folder`` is for a user's own data: nothing about it has to be written down in code.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ismallnet.media import SUFFIXES

ALL = "all"
"""The split that is every image of the data set, in sorted order."""
LIST_STEMS = ("train", "val", "trainval", "test", "trainvaltest")
"""The names of list files that are recognised without being asked for."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One row of the table."""

    name: str
    aliases: tuple[str, ...]
    images: str
    """Folder of the images."""
    masks: str
    """Folder of the masks."""
    mask_suffix: str | None
    """What a mask's name has after the image's name; None: the one most masks of the folder share."""
    splits: Mapping[str, str]
    """Split name -> its list file without ".txt". Any other split ``a/b`` is read from ``a/b.txt``."""
    published: str
    """Where the data is published, by whom."""
    lists_required: bool = True
    """False: a folder without any list file is one split of every image."""
    resized_masks: frozenset[str] = field(default_factory=frozenset)
    """Ids whose published mask has another size than its image: resized NEAREST to the image."""

    def list_name(self, split: str) -> str:
        """The name of a split's list file, without ".txt"."""
        return self.splits.get(split, split)

    def is_every_image(self, split: str, lists: Collection[str]) -> bool:
        """True for ``all``, and for ``train`` and ``test`` where no list is needed and there is none."""
        return split == ALL or (not self.lists_required and not lists and split in self.splits)


LAYOUTS: dict[str, Layout] = {
    row.name: row
    for row in (
        Layout(
            "NUAA-SIRST",
            aliases=("nuaa", "sirst"),
            images="images",
            masks="masks",
            mask_suffix="_pixels0",
            splits={"train": "50_50/train", "test": "50_50/test"},
            resized_masks=frozenset({"Misc_111"}),
            published="https://github.com/YimianDai/sirst (Y. Dai et al., images, masks, idx_427) and "
            "https://github.com/YeRen123455/Infrared-Small-Target-Detection (B. Li et al., the 50_50 lists)",
        ),
        Layout(
            "NUDT-SIRST",
            aliases=("nudt",),
            images="images",
            masks="masks",
            mask_suffix="",
            splits={"train": "50_50/train", "test": "50_50/test"},
            published="https://github.com/YeRen123455/Infrared-Small-Target-Detection (B. Li et al.)",
        ),
        Layout(
            "IRSTD-1k",
            aliases=("irstd", "irstd1k"),
            images="IRSTD1k_Img",
            masks="IRSTD1k_Label",
            mask_suffix="",
            splits={"train": "trainval", "test": "test"},
            published="https://github.com/RuiZhang97/ISNet (M. Zhang et al.)",
        ),
        Layout(
            "folder",
            aliases=(),
            images="images",
            masks="masks",
            mask_suffix=None,
            splits={"train": "train", "test": "test"},
            published="nowhere, it is your own data: images/, masks/ and, optional, train.txt and test.txt",
            lists_required=False,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a data set folder, by image id."""

    layout: Layout
    root: Path
    """The folder that holds the images' and the masks' folder."""
    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    ambiguous: tuple[str, ...]
    """Ids that two image or two mask files claim (``a.png`` beside ``a.jpg``)."""
    stray_masks: tuple[str, ...]
    """Mask files that belong to no image."""


def find_layout(name: str) -> Layout:
    """The row of that name or alias, in any case.

    Raises:
        ValueError: no such row.
    """
    wanted = name.casefold()
    for row in LAYOUTS.values():
        if wanted in {row.name.casefold(), *row.aliases}:
            return row
    raise ValueError(f"unknown data set {name!r}; choose from {', '.join(LAYOUTS)} (folder: your own data)")


def find_root(layout: Layout, root: Path) -> Path:
    """``root/<name>`` or ``root`` itself, whichever holds the folder of the images.

    Raises:
        FileNotFoundError: neither does.
    """
    candidates = (root / layout.name, root) if layout.lists_required else (root,)
    for candidate in candidates:
        if (candidate / layout.images).is_dir():
            return candidate
    looked = " and ".join(f"{c / layout.images}{'/'}" for c in candidates)
    raise FileNotFoundError(
        f"{layout.name} not found: looked for the folder of its images at {looked}; "
        f"give the folder that holds them as root. Published at: {layout.published}"
    )


def identify(root: Path) -> tuple[tuple[Layout, Path], ...]:
    """The data sets at a folder: those in folders of their names below it, else the one that it is itself.

    The folder of one public data set is known by its name, or by its folders, train list and mask names; any
    other with ``images/`` is a generic folder.

    Returns:
        (layout, folder) in the order of the table.

    Raises:
        FileNotFoundError: neither; the message lists every place.
    """
    public = [row for row in LAYOUTS.values() if row.lists_required]
    below = tuple((row, root / row.name) for row in public if (root / row.name / row.images).is_dir())
    if below:
        return below
    row = next((row for row in LAYOUTS.values() if _is_at(row, root)), None)
    if row is None:
        wanted = ", ".join(f"{row.name}/{row.images}/" for row in public)
        raise FileNotFoundError(
            f"no data set at {root}: looked for {wanted} and images/; see docs/datasets.md"
        )
    return ((row, root),)


def list_files(layout: Layout, root: Path) -> Files:
    """Index the folders of a data set (`root` as from `find_root`).

    Raises:
        FileNotFoundError: the folder of the images or of the masks is missing.
    """
    images, twice = _by_stem(_folder(layout, root, layout.images))
    masks, masks_twice = _by_stem(_folder(layout, root, layout.masks))
    suffix = layout.mask_suffix if layout.mask_suffix is not None else _common_suffix(masks, images)
    of_image = {stem.removesuffix(suffix): path for stem, path in masks.items() if stem.endswith(suffix)}
    paired = {id: of_image[id] for id in images if id in of_image}
    stray = tuple(sorted(path.name for path in set(masks.values()) - set(paired.values())))
    doubled = tuple(sorted({*twice, *(stem.removesuffix(suffix) for stem in masks_twice)}))
    return Files(layout, root, images, paired, doubled, stray)


def read_list(path: Path) -> tuple[str, ...]:
    """The ids of a split list: one a line, blank lines skipped, a file extension of an image dropped."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return tuple(_without_extension(line) for line in lines if line)


def list_names(layout: Layout, root: Path) -> tuple[str, ...]:
    """The split lists of a data set, without ".txt": of the table and any ``train``, ``val``, ``test``, ...

    They are looked for in the data set's folder and one level below.
    """
    own = {name for name in layout.splits.values() if (root / f"{name}.txt").is_file()}
    more = (p for stem in LIST_STEMS for depth in ("", "*/") for p in root.glob(f"{depth}{stem}.txt"))
    return tuple(sorted({*own, *(path.relative_to(root).with_suffix("").as_posix() for path in more)}))


def split_ids(files: Files, split: str) -> tuple[str, ...]:
    """The ids of a split, in the order of its list; sorted where it is every image.

    Raises:
        FileNotFoundError: no such list, or ids in it without image or mask file.
        ValueError: the list is empty, names an id twice, or an id has two files.
    """
    layout, root = files.layout, files.root
    lists = list_names(layout, root)
    path = root / f"{layout.list_name(split)}.txt"
    if layout.is_every_image(split, lists):
        ids: tuple[str, ...] = tuple(sorted(files.images))
        source = f"{root / layout.images}/"
    elif path.is_file():
        ids, source = read_list(path), str(path)
    else:
        raise FileNotFoundError(
            f"{layout.name} has no split {split!r}: looked for the list {path}; "
            f"choose from {', '.join((*layout.splits, ALL, *lists))}. Published at: {layout.published}"
        )
    _refuse_bad_ids(ids, source, files)
    return ids


def ids_sha256(ids: Iterable[str]) -> str:
    r"""SHA-256 in hexadecimal of the ids in UTF-8, sorted by code point and joined by ``\n``, none at end.

    The order of a list is left out on purpose: two files with the same ids are the same split.
    """
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few names in words."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _refuse_bad_ids(ids: tuple[str, ...], source: str, files: Files) -> None:
    if not ids:
        raise ValueError(f"{source} names no image; a split needs at least one")
    twice = [i for i, n in Counter(ids).items() if n > 1]
    if twice:
        raise ValueError(f"{source} names {some(twice)} more than once; an id may be in a list once")
    two_files = sorted(set(ids) & set(files.ambiguous))
    if two_files:
        raise ValueError(
            f"two files in {files.root} for {some(two_files)}; keep one image and one mask an id"
        )
    for kind, table, folder in (
        ("image", files.images, files.layout.images),
        ("mask", files.masks, files.layout.masks),
    ):
        missing = [i for i in ids if i not in table]
        if missing:
            suffix = (
                f" (named <id>{files.layout.mask_suffix}.*)"
                if kind == "mask" and files.layout.mask_suffix
                else ""
            )
            raise FileNotFoundError(
                f"{len(missing)} of the {len(ids)} ids of {source} have no {kind} in {files.root / folder}/"
                f"{suffix}: {some(missing)}. Published at: {files.layout.published}"
            )


def _is_at(layout: Layout, root: Path) -> bool:
    if not (root / layout.images).is_dir():
        return False
    if not layout.lists_required or root.resolve().name.casefold() == layout.name.casefold():
        return True
    if not (root / f"{layout.splits['train']}.txt").is_file() or not (root / layout.masks).is_dir():
        return False
    return bool(list_files(layout, root).masks)


def _folder(layout: Layout, root: Path, name: str) -> Path:
    folder = root / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{layout.name}: no folder {folder}. Published at: {layout.published}")
    return folder


def _by_stem(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Image files of a folder by stem, sorted, and the stems that several files share."""
    table: dict[str, Path] = {}
    twice: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix.casefold() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in table:
            twice.append(path.stem)
        table.setdefault(path.stem, path)
    return table, twice


def _common_suffix(masks: Iterable[str], images: Mapping[str, Path]) -> str:
    """What most masks' names have after the longest image name they begin with; the shortest of equals."""
    counts: Counter[str] = Counter()
    for mask in masks:
        cut = next((n for n in range(len(mask), 0, -1) if mask[:n] in images), None)
        if cut is not None:
            counts[mask[cut:]] += 1
    return min(counts, key=lambda suffix: (-counts[suffix], len(suffix), suffix), default="")


def _without_extension(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.casefold() in SUFFIXES else name
