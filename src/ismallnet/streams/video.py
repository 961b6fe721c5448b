"""The frames of a video: by PyAV at their own bit depth where it is installed, else by OpenCV in 8 bits.

Of grey and YUV the luma of more than 8 bits is taken as it is stored, in the file's own units (a 10-bit frame
has 0 to 1023); what has 8 bits becomes grey 0 to 255. A rotation in the metadata is not applied. Frames are
numbered as they come out of the decoder, damaged ones included; where they are coded out of order (B frames),
the number of a damaged one may be that of a neighbour.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ismallnet.media import ImageError, grey, silent_opencv

if TYPE_CHECKING:
    import av

    from ismallnet.media import Pixels
    from ismallnet.streams.source import Source

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# FFmpeg writes to stderr otherwise; OpenCV looks here once, when the first video of the process is opened
_LUMA_FIRST = re.compile(r"(gray|yuva?4\d\dp)(9|10|12|14|16)(le|be)")
"""Pixel formats of more than 8 bits whose first plane is the luma, a word a pixel."""
_EIGHT_BITS = {"MJPG", "XVID", "DIVX", "DX50", "FMP4", "mp4v", "mpg1", "mpg2", "WMV2", "WMV3", "VP80"}
"""Codecs that know no more than 8 bits."""
_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
"""FFmpeg reports damage instead of painting over it."""
_SLACK = 2
"""Frames that may be missing at the end of the announced time before a video counts as truncated."""


def open_video(path: Path) -> Source:
    """Open a video.

    Raises:
        OSError: The file cannot be opened.
        ImageError: It is empty, or no video that the decoder knows.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise ImageError(f"{path}: the file is empty (0 bytes)")
    return DeepVideo(path) if find_spec("av") else PlainVideo(path)


class DeepVideo:
    """A video read by PyAV, its bit depth kept."""

    uniform, note = True, ""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _opened(path) as (container, stream):
            self.rate: Fraction | None = stream.average_rate or stream.guessed_rate or Fraction(25)
            self._end_s = _end_s(container, stream)
            self.count = stream.frames or (round(self._end_s * self.rate) if self._end_s else None)

    def read(self) -> Iterator[tuple[int, Pixels | str]]:
        """Give the frames."""
        from av import FFmpegError

        number, last_s = 0, 0.0
        with _opened(self._path) as (container, stream):
            stream.codec_context.options = _STRICT
            packets = container.demux(stream)
            while True:
                try:
                    if (packet := next(packets, None)) is None:
                        break
                    decoded = packet.decode()
                except FFmpegError as error:
                    yield number, f"damaged: {error.strerror}"
                    number += 1
                    continue
                for frame in decoded:
                    last_s = frame.time or last_s
                    yield number, "damaged: decoded in part" if frame.is_corrupt else _pixels(frame)
                    number += 1
        missing_s = (self._end_s or 0) - last_s
        if self.rate and missing_s * self.rate > _SLACK + 1:
            yield number, f"truncated: the file announces {self._end_s:.2f} s and ends at {last_s:.2f} s"


class PlainVideo:
    """A video read by OpenCV, which makes 8 bits of any depth."""

    uniform = True

    def __init__(self, path: Path) -> None:
        self._path = path
        capture = self._open()
        rate, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True).decode("latin1")
        self.rate = Fraction(rate).limit_denominator(1001) if 0 < rate < 1000 else Fraction(25)
        self.count = count if count > 0 else None
        self.note = "" if code in _EIGHT_BITS else (
            f"read by OpenCV in 8 bits ({code.strip()}): what the file has beyond them is lost; "
            "pip install 'ismallnet[video]' keeps it"
        )  # fmt: skip

    def read(self) -> Iterator[tuple[int, Pixels | str]]:
        """Give the frames; failures up to the announced end are damage, those at the end a truncation."""
        capture, number, failures = self._open(), 0, 0
        while failures == 0 or number + failures < (self.count or 0):
            decoded, frame = capture.read()
            if not decoded:
                failures += 1
                continue
            for number in range(number, number + failures):  # noqa: B020
                yield number, "damaged: cannot be decoded"
            number, failures = number + (failures > 0), 0
            yield number, grey(frame)
            number += 1
        if number < (self.count or 0) - _SLACK:
            yield number, f"truncated: the file announces {self.count} frames"

    def _open(self) -> cv2.VideoCapture:
        with silent_opencv():
            capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise ImageError(f"{self._path}: truncated, damaged, or no video that OpenCV can read")
        return capture


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video for decoding, FFmpeg kept from writing to stderr."""
    import av

    av.logging.set_level(None)
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise ImageError(f"{path}: truncated, damaged, or no video ({error.strerror})") from error
    with container:
        if not container.streams.video:
            raise ImageError(f"{path}: holds no video stream")
        yield container, container.streams.video[0]


def _end_s(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Return the time in seconds at which a video is announced to end, counted from its time 0."""
    if stream.duration and stream.time_base:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    if container.duration and len(container.streams) == 1:  # else another stream may be the longer one
        return (container.duration + max(container.start_time, 0)) / 1e6
    return None


def _pixels(frame: av.VideoFrame) -> Pixels:
    """Return (H, W) grey of a decoded frame."""
    name = frame.format.name
    if deep := _LUMA_FIRST.fullmatch(name):
        plane = frame.planes[0]
        rows = np.frombuffer(memoryview(plane), "<u2" if deep[3] == "le" else ">u2")
        return rows.reshape(plane.height, -1)[:, : plane.width].astype(np.uint16)
    if name == "grayf32le":
        rows = np.frombuffer(memoryview(frame.planes[0]), "<f4")
        return rows.reshape(frame.height, -1)[:, : frame.width].astype(np.float32)
    kind = "gray16le" if max(part.bits for part in frame.format.components) > 8 else "gray"
    return np.asarray(frame.to_ndarray(format=kind))
