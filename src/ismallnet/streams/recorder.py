"""Pictures to a video: H.264 where PyAV has its encoder, else MPEG-4 by OpenCV; MP4 either way."""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ismallnet.media import silent_opencv

if TYPE_CHECKING:
    from numpy.typing import NDArray

_QUALITY = {"crf": "20", "preset": "veryfast"}
"""Of H.264: small boxes and dim pixels stay visible."""


class Recorder:
    """Writes a video, picture by picture; the file is whole after `close`.

    Args:
        path: With the suffix .mp4; its folder is made.
        rate: Pictures per second.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self._rate = path, rate.limit_denominator(1001)
        self._writer: _Av | _OpenCV | None = None
        self._size = (0, 0)

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Write a picture, (H, W, 3) BGR; one of another size than the first is resized to it.

        An odd side loses its last row or column, which the encoders cannot hold.
        """
        height, width = picture.shape[:2]
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._size = (max(width // 2 * 2, 2), max(height // 2 * 2, 2))
            self._writer = (_Av if _has_h264() else _OpenCV)(self.path, self._rate, self._size)
        inside = (self._size[0], self._size[0] + 1), (self._size[1], self._size[1] + 1)
        if width in inside[0] and height in inside[1]:
            picture = picture[: self._size[1], : self._size[0]]
        else:
            picture = np.asarray(cv2.resize(picture, self._size), np.uint8)
        self._writer.add(np.ascontiguousarray(picture))

    def close(self) -> None:
        """End the file.

        Raises:
            OSError: It could not be written whole.
        """
        if self._writer:
            self._writer.close()
            self._writer = None


class _Av:
    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int]) -> None:
        import av

        self._container = av.open(str(path), "w")
        self._stream: Any = self._container.add_stream("libx264", rate=rate, options=_QUALITY)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"

    def add(self, picture: NDArray[np.uint8]) -> None:
        from av import VideoFrame

        self._container.mux(self._stream.encode(VideoFrame.from_ndarray(picture, format="bgr24")))

    def close(self) -> None:
        with self._container:
            self._container.mux(self._stream.encode())


class _OpenCV:
    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int]) -> None:
        self._path, self._count = path, 0
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, float(rate), size)
        if not self._writer.isOpened():
            raise OSError(f"{path}: OpenCV cannot write this video; try pip install 'ismallnet[video]'")

    def add(self, picture: NDArray[np.uint8]) -> None:
        self._writer.write(picture)
        self._count += 1

    def close(self) -> None:
        """End the file and look whether it is whole: OpenCV does not say."""
        self._writer.release()
        with silent_opencv():
            written = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT)
        if written != self._count:
            raise OSError(f"{self._path} could not be written whole by OpenCV; is the disk full?")


def _has_h264() -> bool:
    if not find_spec("av"):
        return False
    import av

    return "libx264" in av.codecs_available
