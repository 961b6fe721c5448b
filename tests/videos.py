"""Small videos and stacks, written by the tests themselves, whole and damaged."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest


def scenes(count: int, *, dtype: type = np.uint16, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Soft noise that drifts, different in every frame, with one target of 3 × 3 pixels that moves."""
    random = np.random.default_rng(5)
    deep = dtype != np.uint8
    field = cv2.GaussianBlur(random.normal(size=size), (0, 0), 3)
    pages = []
    for n in range(count):
        page = 60 + 150 * np.roll(field, n, 1) + random.normal(size=size) + n / 4
        page[20:23, 5 + n % 50 : 8 + n % 50] = 220
        pages.append((page.clip(0, 250) * (40 if deep else 1)).astype(dtype))
    return pages


def write_video(
    path: Path, pages: Iterable[np.ndarray], *, codec: str = "ffv1", pixels: str = "gray16le", rate: int = 25
) -> Path:
    """Write frames by PyAV; without loss where the codec is ffv1."""
    av = pytest.importorskip("av", reason="PyAV, the extra 'video', is not installed")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        for number, page in enumerate(pages):
            if number == 0:
                (stream.height, stream.width), stream.pix_fmt = page.shape, pixels
            container.mux(stream.encode(_frame(av, page, pixels, Fraction(1, rate), number)))
        container.mux(stream.encode())
    return path


def _frame(av: object, page: np.ndarray, pixels: str, base: Fraction, number: int) -> object:
    height, width = page.shape
    if pixels.startswith("gray"):
        frame = av.VideoFrame(width, height, pixels)  # type: ignore[attr-defined]
        plane = frame.planes[0]
        rows = np.zeros((height, plane.line_size // page.itemsize), page.dtype)
        rows[:, :width] = page
        plane.update(rows.tobytes())
    else:
        frame = av.VideoFrame.from_ndarray(page, "gray").reformat(format=pixels)  # type: ignore[attr-defined]
    frame.pts, frame.time_base = number, base
    return frame


def cut(path: Path, kept: float) -> Path:
    """Leave the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    return path


def damage_packet(path: Path, number: int) -> Path:
    """Write noise over the middle of one packet of a video."""
    import av

    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        start, size = packets[number].pos + packets[number].size // 3, packets[number].size // 3
    data = bytearray(path.read_bytes())
    data[start : start + size] = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    path.write_bytes(data)
    return path


def write_stack(path: Path, pages: list[np.ndarray], *options: int) -> Path:
    assert cv2.imwritemulti(str(path), pages, list(options))
    return path
