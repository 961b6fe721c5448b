"""Image files to float32 grey in [0, 1]: every bit depth kept, the intensity range never guessed in silence.

`read_pages` decodes a file at its own bit depth; `read_image` and `normalise`, and `ismallnet.streams` frame
by frame, then map low to 0 and high to 1, linearly and clipped, and say by which rule the two were taken:

* ``8-bit``: 0 and 255;
* ``percentile``, for 16-bit and float: the 0.1 and 99.9 percentiles of all frames together; two guards. A
  range narrower than ``NARROW`` times the noise is widened about its middle to that width, so that the noise
  of a flat frame is not stretched to full contrast. And as small targets lie above the 99.9 percentile, high
  moves up to the brightest pixel, by one width at most: clipped at the percentile itself, a tenth of the
  NUAA-SIRST training targets lose their contrast to the brightest clutter, with this guard none does;
* ``given``: the caller's range.

Percentiles are grey levels of the file (no interpolation), so a scene stored times 16, 64 or 257 has the same
pixels bit for bit.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[Any]

Rule = Literal["8-bit", "percentile", "given"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""The files that a folder or a glob is searched for; a file named outright may have any suffix."""
LOW, HIGH = 0.001, 0.999
"""The quantiles of the percentile rule."""
NARROW = 64
"""Least width of a percentile range, in standard deviations of the noise. White noise alone spans 6.2; of the
876 scenes of the NUAA-SIRST and NUDT-SIRST 50/50 train lists six span less than 64."""
UNUSED = 16
"""An 8-bit or given range of which the grey levels fill less than 1 / UNUSED gives a warning."""


class ImageError(ValueError):
    """A file that is no image, is truncated, or holds no usable pixels."""


class RangeWarning(UserWarning):
    """The grey levels span little of the intensity range, or little more than their noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A grey image and the intensity range that was mapped to [0, 1]."""

    pixels: NDArray[np.float32]
    """(H, W) in [0, 1]."""
    low: float
    high: float
    """The intensities, in the file's own units, that became 0 and 1."""
    rule: Rule
    """Where low and high came from."""
    dtype: str
    """The file's own type: uint8, uint16, float32, ..."""
    path: Path | None = None
    warning: str = ""
    """What is doubtful about the range; empty where nothing is."""
    frame: int = 0
    """Page of the stack or frame of the video, from 0."""


class Window(NamedTuple):
    """An intensity range, its rule, and what is doubtful about it."""

    low: float
    high: float
    rule: Rule
    warning: str

    def image(self, page: Pixels, path: Path | None = None, frame: int = 0) -> Image:
        """Map finite pixels to [0, 1]."""
        return Image(scale(page, self.low, self.high), *self[:3], str(page.dtype), path, self.warning, frame)


class Levels(NamedTuple):
    """The order statistics of grey levels that `choose_window` looks at: the quantiles, and the largest."""

    darkest: float
    brightest: float
    top: float


def grey(array: Pixels) -> Pixels:
    """Convert decoded pixels to grey: 0.299 R + 0.587 G + 0.114 B (BT.601), alpha dropped.

    Args:
        array: (H, W), or (H, W, C) in OpenCV's order: grey, grey-alpha, BGR or BGRA.

    Returns:
        (H, W) in the type of the array; colours of other types than uint8 and uint16 as float32.

    Raises:
        ValueError: Another shape.
    """
    if array.ndim == 2:
        return array
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise ValueError(f"an image must be (H, W) or (H, W, 1 to 4 channels); got shape {array.shape}")
    if array.shape[2] < 3:
        return np.ascontiguousarray(array[:, :, 0])
    if array.dtype not in (np.uint8, np.uint16):
        array = array.astype(np.float32)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(array[:, :, :3]), cv2.COLOR_BGR2GRAY))


def read_pages(path: str | Path) -> tuple[Pixels, ...]:
    """Decode a file to grey at its own bit depth.

    PNG, JPEG, BMP, TIFF, and whatever else OpenCV decodes. A rotation in the EXIF data is not applied:
    coordinates are those of the stored pixels.

    Returns:
        (H, W) arrays: the pages of a TIFF in their order, one of every other file.

    Raises:
        OSError: The file cannot be opened.
        ImageError: It is empty, truncated, or no image.
    """
    return decode(Path(path).read_bytes(), path)


def decode(data: bytes, path: str | Path) -> tuple[Pixels, ...]:
    """Decode the bytes of a file as `read_pages` does; the path is for the errors."""
    if not data:
        raise ImageError(f"{path}: the file is empty (0 bytes)")
    tiff = is_tiff(data)
    if _has_no_end(data):
        raise ImageError(f"{path}: truncated, its end marker is missing; copy the file again")
    buffer = np.frombuffer(data, np.uint8)
    arrays: Sequence[Pixels | None]
    with silent_opencv():
        try:
            if tiff:
                _, arrays = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
            else:
                arrays = [cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)]
        except cv2.error as error:
            raise ImageError(f"{path}: cannot be decoded: {error.err}") from error
    decoded = [np.asarray(array) for array in arrays if array is not None]
    expected = len(tiff_directories(io.BytesIO(data))) if tiff else 1
    if len(decoded) < expected or not decoded:
        what = f"{expected - len(decoded)} of {expected} pages cannot" if tiff and decoded else "cannot"
        raise ImageError(f"{path}: {what} be decoded: truncated, damaged, or not PNG, JPEG, BMP or TIFF")
    try:
        return tuple(grey(array) for array in decoded)
    except ValueError as error:
        raise ImageError(f"{path}: {error}") from error


def read_image(path: str | Path, *, range: tuple[float, float] | None = None) -> Image:
    """Read an image file of one page.

    Args:
        path: PNG, JPEG, BMP or TIFF; 8-bit, 16-bit or float; grey, palette or colour.
        range: The intensities that become 0 and 1; by default as the module's text says.

    Raises:
        OSError: The file cannot be opened.
        ImageError: It is empty, truncated, no image, or has several pages: those are read by `frames`.
        ValueError: The range is not two finite numbers, the lower first.

    Warns:
        RangeWarning: The range is narrow.
    """
    pages = read_pages(path)
    if len(pages) > 1:
        raise ImageError(f"{path} has {len(pages)} pages; read them with ismallnet.frames(path)")
    return _image(pages[0], range, Path(path))


def normalise(array: Pixels, *, range: tuple[float, float] | None = None) -> Image:
    """Map an array of intensities to [0, 1] as `read_image` does.

    Pixels that are not finite take the median of those that are.

    Args:
        array: (H, W) grey, or (H, W, C) in BGR order; any real type.
        range: The intensities that become 0 and 1; by default as the module's text says.

    Raises:
        ImageError: No pixels, or none that is finite.
        ValueError: Another shape, or a range that is not two finite numbers, the lower first.

    Warns:
        RangeWarning: The range is narrow.
    """
    return _image(grey(np.asarray(array)), range, None)


def _image(page: Pixels, given: tuple[float, float] | None, path: Path | None) -> Image:
    """Normalise one page by a window of its own."""
    try:
        page = finite(page)
    except ImageError as error:
        raise ImageError(f"{path}: {error}" if path else str(error)) from None
    order = quantile_ranks(page.size)
    levels = Levels(*np.partition(page, order, None)[list(order)].astype(np.float64).tolist())
    window = choose_window(levels, page.dtype, given, lambda: noise([laplacian(page, levels)]))
    if window.warning:
        warnings.warn(f"{path}: {window.warning}" if path else window.warning, RangeWarning, stacklevel=3)
    return window.image(page, path)


def finite(page: Pixels) -> Pixels:
    """Give pixels that are NaN or infinite the median of the others."""
    if page.size == 0:
        raise ImageError(f"an image without pixels: shape {page.shape}")
    bad = ~np.isfinite(page)
    if bad.all():
        raise ImageError("no pixel is finite")
    return np.where(bad, np.median(page[~bad]), page).astype(page.dtype) if bad.any() else page


def scale(page: Pixels, low: float, high: float) -> NDArray[np.float32]:
    """Map low to 0 and high to 1, linearly and clipped."""
    return np.clip((page.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)


def quantile_ranks(size: int) -> tuple[int, int, int]:
    """Return the places of `Levels` among so many sorted pixels."""
    last = size - 1
    return math.floor(LOW * last), math.ceil(HIGH * last), last


def choose_window(
    levels: Levels,
    dtype: np.dtype[Any],
    given: tuple[float, float] | None,
    noise: Callable[[], float],
) -> Window:
    """Choose the intensity range by the rules of the module's text.

    Args:
        levels: Of all pages together.
        dtype: The type that holds the pixels of all pages.
        given: The caller's range, if any.
        noise: Standard deviation of the noise; asked only where a rule needs it.

    Raises:
        ValueError: The range given is not two finite numbers, the lower first.
    """
    darkest, brightest, top = levels
    if given is not None or dtype == np.uint8:
        low, high = (0.0, 255.0) if given is None else (float(given[0]), float(given[1]))
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"range must be two finite numbers, the lower first; got {low:g} and {high:g}")
        span = f"the grey levels span {darkest:g} to {brightest:g}, little of the range {low:g} to {high:g}"
        unused = min(brightest, high) - max(darkest, low) < (high - low) / UNUSED
        warning = f"{span}: faint targets may be lost; give a narrower range" if unused else ""
        return Window(low, high, "8-bit" if given is None else "given", warning)
    width = max(brightest - darkest, NARROW * noise()) or 1.0
    low, high, warning = darkest, brightest, ""
    if width > high - low:
        low, high = (low + high - width) / 2, (low + high + width) / 2
        warning = (
            f"the grey levels span {darkest:g} to {brightest:g}, little more than their noise: the range was "
            f"widened to {low:g} to {high:g}; give a range if this is signal"
        )
    return Window(low, max(high, min(top, high + width)), "percentile", warning)


def noise(responses: Iterable[tuple[float, int]]) -> float:
    """Estimate the standard deviation of white noise from all that `laplacian` returns (Immerkaer 1996).

    The mean of the absolute response to the difference of two Laplacians, blind to constant and linear
    background; fine texture counts as noise.
    """
    total, count = 0.0, 0
    for response, pixels in responses:
        total, count = total + response, count + pixels
    return math.sqrt(math.pi / 2) / 6 * total / count if count else 0.0


def laplacian(page: Pixels, levels: Levels) -> tuple[float, int]:
    """Return the sum of the absolute responses inside a page of at least 3 x 3 pixels, and their number.

    Pixels beyond the darkest and brightest, dead ones perhaps, are clipped to them.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float64)
    clipped = np.clip(page, levels.darkest, levels.brightest).astype(np.float64)
    response = np.abs(cv2.filter2D(clipped, -1, kernel)[1:-1, 1:-1])
    return float(response.sum()), response.size


def _has_no_end(data: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end marker: OpenCV may return the part that is there, the rest grey."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    scan = data.rfind(b"\xff\xda")  # of the last scan: a thumbnail before it has its own end marker
    return data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[max(scan, 0) :]


def is_tiff(data: bytes) -> bool:
    """Whether a file that starts so is a TIFF, or a BigTIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def tiff_directories(file: BinaryIO) -> list[int]:
    """Follow the chain of a TIFF's directories: where each page's is, one beyond the end included.

    OpenCV leaves out, without a word, the pages whose directory a truncation has cut off.
    """
    head, size = file.read(4), file.seek(0, io.SEEK_END)
    big = b"+" in head
    number, entry, offset = ("Q", 20, "Q") if big else ("H", 12, "I")

    def unpack(kind: str, position: int) -> int:
        if position + struct.calcsize(kind) > size:
            return size  # cut off: nothing can be there
        file.seek(position)
        layout = ("<" if head[:2] == b"II" else ">") + kind
        return int(struct.unpack(layout, file.read(struct.calcsize(layout)))[0])

    position, found = 8 if big else 4, dict[int, None]()
    while (start := unpack(offset, position)) and start not in found:
        found[start] = None
        position = start + struct.calcsize(number) + unpack(number, start) * entry
    return list(found)


@contextmanager
def silent_opencv() -> Iterator[None]:
    """Keep OpenCV from writing to stderr: what matters is raised."""
    log = getattr(cv2.utils, "logging", cv2)  # it moved in OpenCV 5
    level = log.getLogLevel()
    log.setLogLevel(0)
    try:
        yield
    finally:
        log.setLogLevel(level)
