"""TIFF files that are too large to be held: read by rows, with the intensity range of `ismallnet.media`.

Only the strips or tiles that rows lie in are decoded. The range takes passes of its own over the file: one
for the grey levels at the quantiles (`ismallnet.quantiles`; more for other types than 8-bit and 16-bit
integers) and one for the noise. It is exactly the range that the whole image in memory would have.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ismallnet.media import (
    ImageError,
    Levels,
    Rule,
    Window,
    choose_window,
    grey,
    laplacian,
    noise,
    quantile_ranks,
    scale,
)
from ismallnet.quantiles import order_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tifffile import TiffPage

    Pixels = NDArray[Any]

LARGE_PX = 2**24
"""TIFF files of more pixels a page, 4096 x 4096, are read by rows."""
SEGMENT_BYTES = 2**27
"""Most that one compressed strip, or one row of tiles, may hold decoded."""
PASS_PX = 2**22
"""Pixels that the passes for the range read at a time."""
_EXTRA = "TIFF files are read by rows, and written in tiles, with tifffile: pip install 'ismallnet[large]'"
_DTYPES = tuple(map(np.dtype, ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")))
_GREY, _COLOUR, _CHUNKY = 1, 2, 1  # of the tags PhotometricInterpretation and PlanarConfiguration


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """An image that is read by rows; otherwise as `ismallnet.media.Image`."""

    page: Page
    low: float
    high: float
    rule: Rule
    warning: str

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.page.shape

    @property
    def dtype(self) -> str:
        """The file's own type."""
        return str(self.page.dtype)

    def rows(self, y0: int, y1: int) -> NDArray[np.float32]:
        """Read the rows y0 to y1: (y1 - y0, W) in [0, 1].

        Raises:
            ImageError: They cannot be read.
        """
        return scale(self.page.rows(y0, y1), self.low, self.high)


def is_large(path: str | Path) -> bool:
    """Whether a file is a TIFF whose first page has more than `LARGE_PX` pixels; False if unreadable."""
    try:
        with Path(path).open("rb") as file:
            height, width = _tiff_size(file)
    except (OSError, struct.error, KeyError, OverflowError, ValueError):
        return False
    return height * width > LARGE_PX


@contextmanager
def open_rasters(
    path: str | Path, *, range: tuple[float, float] | None = None
) -> Iterator[tuple[Raster | ImageError, ...]]:
    """Open a TIFF file to read its pages by rows, with one intensity range for all; overviews are left out.

    In place of a page that is damaged there is the error.

    Args:
        path: Strips or tiles, uncompressed or deflate (LZW and others where imagecodecs is installed); grey
            or RGB; integers of 8 to 32 bits, floats of 16 to 64 (which are read as 32-bit).
        range: The intensities that become 0 and 1; by default as in `ismallnet.media`.

    Raises:
        ImageError: No page can be read by rows; the text says what to do.
        ValueError: The range is not two finite numbers, the lower first.
    """
    path = Path(path)
    try:
        import tifffile
    except ImportError as error:
        raise ImageError(f"{path}: {_EXTRA}") from error
    try:
        file = tifffile.TiffFile(path)
    except (OSError, ValueError, struct.error, tifffile.TiffFileError) as error:
        raise ImageError(f"{path}: truncated or damaged, no directory of a TIFF can be read") from error
    with file:
        try:
            images = [page.aspage() for page in file.pages]
        except Exception as error:  # whatever tifffile raises of damage
            raise ImageError(
                f"{path}: truncated or damaged, the directory of a page cannot be read"
            ) from error
        pages = [_checked(partial(Page, page, path)) for page in images if not page.is_reduced]
        if not pages:
            raise ImageError(f"{path}: no page holds an image")
        if len({page.dtype for page in _sound(pages)}) > 1:
            raise ImageError(f"{path}: pages of several types; give them as files of their own")
        try:
            window = _window(_sound(pages), range)
        except ImageError:
            if len(pages) == 1:
                raise
            pages = [page if isinstance(page, ImageError) else _readable(page) for page in pages]
            window = _window(_sound(pages), range)
        shown = (window.low, window.high, window.rule, window.warning)
        yield tuple(page if isinstance(page, ImageError) else Raster(page, *shown) for page in pages)


def retile(source: str | Path, out: str | Path) -> None:
    """Write an image file anew, grey, as a TIFF of deflated tiles; memory holds the whole image.

    Args:
        source: Whatever `ismallnet.read_pages` decodes, of any number of pages.
        out: A file that does not exist.

    Raises:
        FileExistsError: `out` exists.
        ImageError: `source` cannot be decoded.
        ImportError: tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(_EXTRA) from error
    from ismallnet.media import read_pages

    source, out = Path(source), Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists; give a file that does not exist yet")
    pages = read_pages(source)
    fresh = out.with_name(f".{out.name}.unfinished")
    try:
        with tifffile.TiffWriter(fresh, bigtiff=sum(page.nbytes for page in pages) > 2**31) as writer:
            for page in pages:
                writer.write(page, tile=(512, 512), compression="zlib", photometric="minisblack")
        fresh.rename(out)
    finally:
        fresh.unlink(missing_ok=True)


class Page:
    """The grey levels of one page, in the file's own type, by rows.

    Args:
        page: Of an open file.
        path: Of the file, for errors.

    Raises:
        ImageError: The page cannot be read by rows.
    """

    def __init__(self, page: TiffPage, path: Path) -> None:
        self.shape = (int(page.imagelength), int(page.imagewidth))
        self.dtype = np.dtype(page.dtype) if page.dtype is not None else np.dtype(object)
        self.fill: float | None = None
        """What takes the place of pixels that are not finite."""
        self._page, self._path = page, path
        self._plain = page.is_contiguous and page.compression == 1
        self._step = page.tilelength if page.is_tiled else min(page.rowsperstrip, self.shape[0])
        self._held: dict[int, Pixels] = {}  # rows of strips or tiles, decoded, that were used last
        self._check()

    def rows(self, y0: int, y1: int) -> Pixels:
        """Read the rows y0 to y1: (y1 - y0, W), 64- and 16-bit floats as float32.

        Raises:
            ImageError: They cannot be read.
        """
        if self._plain:
            decoded = self._read(y0, y1)
        else:
            needed = range(y0 // self._step, (y1 - 1) // self._step + 1)
            self._held = {n: self._held[n] if n in self._held else self._decode(n) for n in needed}
            above = needed.start * self._step
            decoded = np.concatenate(list(self._held.values()))[y0 - above : y1 - above]
        if self.dtype.kind == "f":
            decoded = decoded.astype(np.float32, copy=False)
            if self.fill is not None:
                decoded = np.where(np.isfinite(decoded), decoded, np.float32(self.fill))
        return decoded

    def passes(self, *, further: int = 0) -> Iterator[Pixels]:
        """Read all rows from top to bottom, some at a time and `further` ones of those that follow."""
        height, width = self.shape
        step = max(PASS_PX // width, 1)
        return (self.rows(y, min(y + step + further, height)) for y in range(0, height, step))

    def _check(self) -> None:
        page, samples = self._page, self._page.samplesperpixel
        retile = f"ismallnet data retile {self._path} TILED.tif"
        what = ""
        if 0 in self.shape:
            what = f"an image without pixels: shape {self.shape}"
        elif self.dtype not in _DTYPES:
            what = f"pixels of {self.dtype} are not read by rows"
        elif page.photometric not in (_GREY, _COLOUR) or (samples > 1 and page.planarconfig != _CHUNKY):
            what = (
                f"photometric interpretation {page.photometric}; only grey and RGB are read by rows: {retile}"
            )
        elif self._ends_early():
            what = "truncated, strips or tiles lie beyond the end; copy the file again"
        elif not self._plain and self._step * self.shape[1] * samples * self.dtype.itemsize > SEGMENT_BYTES:
            what = (
                f"one strip or row of tiles, {self._step} rows, is decoded at once and has over "
                f"{SEGMENT_BYTES >> 20} MiB; write the file in tiles, once: {retile}"
            )
        if what:
            raise ImageError(f"{self._path}: {what}")
        if not self._plain:
            self._decode(0)

    def _ends_early(self) -> bool:
        """Whether strips or tiles lie beyond the end of the file, or the table of them was cut off."""
        starts, sizes = self._page.dataoffsets, self._page.databytecounts
        size = self._page.parent.filehandle.size
        return len(starts) != len(sizes) or any(a + n > size for a, n in zip(starts, sizes, strict=True))

    def _read(self, y0: int, y1: int) -> Pixels:
        """Read rows that lie in the file as they are."""
        width, samples = self.shape[1], self._page.samplesperpixel
        dtype = self.dtype.newbyteorder(self._page.parent.byteorder)
        offset = self._page.dataoffsets[0] + y0 * width * samples * dtype.itemsize
        count = (y1 - y0) * width * samples
        try:
            values = np.fromfile(self._path, dtype, count, offset=offset)
        except OSError as error:
            raise ImageError(f"{self._path}: {error.strerror}") from error
        if values.size < count:
            raise ImageError(f"{self._path}: truncated while it was read")
        return self._grey(values.astype(self.dtype, copy=False).reshape(y1 - y0, width, samples))

    def _decode(self, number: int) -> Pixels:
        """Decode one row of tiles, or one strip: (rows, W)."""
        page, (height, width) = self._page, self.shape
        across = -(-width // page.tilewidth) if page.is_tiled else 1
        rows = min(self._step, height - number * self._step)
        whole = np.zeros((rows, width, page.samplesperpixel), self.dtype)  # a tile that is not stored is 0
        handle = page.parent.filehandle
        for column in range(across):
            index = number * across + column
            try:
                handle.seek(page.dataoffsets[index])
                data = handle.read(page.databytecounts[index])
                segment, (_, _, _, left, _), _ = page.decode(data or None, index, jpegtables=page.jpegtables)
            except Exception as error:  # whatever a decoder raises of damaged data
                raise ImageError(self._reason(index, error)) from error
            if segment is not None:
                part = segment[0, :rows, : width - left]
                whole[: part.shape[0], left : left + part.shape[1]] = part
        return self._grey(whole)

    def _reason(self, index: int, error: Exception) -> str:
        if "imagecodecs" in str(error):
            name = getattr(self._page.compression, "name", self._page.compression)
            return (
                f"{self._path}: compression {name} takes imagecodecs: pip install imagecodecs; or write the "
                f"file in deflated tiles, once: ismallnet data retile {self._path} TILED.tif; "
                "or read it whole by --tile off"
            )
        return f"{self._path}: strip or tile {index} cannot be decoded: damaged ({error})"

    def _grey(self, pixels: Pixels) -> Pixels:
        """Turn (h, W, samples), RGB where there are three or four, to (h, W)."""
        samples = pixels.shape[2]
        order = [2, 1, 0, *range(3, samples)] if samples > 2 else list(range(samples))
        try:
            return grey(pixels[:, :, order])
        except ValueError as error:
            raise ImageError(f"{self._path}: {error}") from error


def _checked(make: Callable[[], Page]) -> Page | ImageError:
    """Return a page, or why there is none."""
    try:
        return make()
    except ImageError as error:
        return error


def _readable(page: Page) -> Page | ImageError:
    """Return a page if a range can be chosen for it alone, which reads all of it; else why not."""

    def read() -> Page:
        _window([page], None)
        return page

    return _checked(read)


def _sound(pages: Sequence[Page | ImageError]) -> list[Page]:
    """Return the pages that can be read.

    Raises:
        ImageError: There is none.
    """
    found = [page for page in pages if isinstance(page, Page)]
    errors = [page for page in pages if isinstance(page, ImageError)]
    if not found:
        raise errors[0]
    return found


def _window(pages: Sequence[Page], given: tuple[float, float] | None) -> Window:
    """Choose the intensity range of all pages; as `ismallnet.media` does in memory."""
    if pages[0].dtype.kind == "f":
        for page in pages:
            _fill(page)

    def parts() -> Iterator[Pixels]:
        return chain.from_iterable(page.passes() for page in pages)

    def responses() -> Iterator[tuple[float, int]]:
        overlapping = chain.from_iterable(page.passes(further=2) for page in pages)
        return (laplacian(part, levels) for part in overlapping)

    levels = Levels(*order_statistics(parts, quantile_ranks)[0])
    return choose_window(levels, pages[0].dtype, given, lambda: noise(responses()))


def _fill(page: Page) -> None:
    """Give pixels that are NaN or infinite the median of the others, if there are any."""

    def finite() -> Iterator[Pixels]:
        return (part[np.isfinite(part)] for part in page.passes())

    count = sum(part.size for part in finite())
    if count == 0:
        raise ImageError(f"{page._path}: no pixel is finite")
    if count < page.shape[0] * page.shape[1]:
        middle, _ = order_statistics(finite, lambda count: ((count - 1) // 2, count // 2))
        page.fill = float(np.mean(np.array(middle, np.float32)))


def _tiff_size(file: BinaryIO) -> tuple[int, int]:
    """Return height and width of the first page of a TIFF, from its tags 257 and 256.

    Raises:
        struct.error, KeyError: It is no TIFF, or damaged.
    """
    head = file.read(16)
    order, big = {b"II*\0": ("<", 0), b"MM\0*": (">", 0), b"II+\0": ("<", 1), b"MM\0+": (">", 1)}[head[:4]]
    number, pointer, value = ("Q", "Q", 12) if big else ("H", "I", 8)
    file.seek(struct.unpack_from(order + pointer, head, 8 if big else 4)[0])
    (count,) = struct.unpack(order + number, file.read(struct.calcsize(number)))
    size = 20 if big else 12
    entries = file.read(size * min(count, 2**12))
    types, tags = {3: "H", 4: "I", 16: "Q"}, {}
    for start in range(0, len(entries), size):
        tag, kind = struct.unpack_from(order + "HH", entries, start)
        if tag in (256, 257):
            tags[tag] = int(struct.unpack_from(order + types[kind], entries, start + value)[0])
    return tags[257], tags[256]
