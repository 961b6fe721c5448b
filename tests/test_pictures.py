"""Names that depend on the paths alone; the overlay of a video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet.pictures import plan
from ismallnet.streams.recorder import Recorder, _Av, _OpenCV


def names(*paths: str) -> list[str]:
    return [job.name for job in plan([Path("/data") / path for path in paths], Path("/data"))]


def test_files_of_one_name_get_numbers() -> None:
    assert names("a.png", "A.bmp", "b/a.png", "a.tif") == ["a", "A_2", "b/a", "a_3"]


def test_frames_do_not_fall_into_the_folder_of_other_images() -> None:
    assert names("x.tif", "x/0000.png", "y.png", "y/0000.png") == ["x_2", "x/0000", "y", "y/0000"]


@pytest.mark.parametrize("encoder", ["h264", "mpeg4"])
def test_a_video_has_every_picture_at_its_rate_and_size(tmp_path: Path, encoder: str) -> None:
    if encoder == "h264":
        pytest.importorskip("av")
    size, rate = (64, 48), Fraction(30)
    writer = (_Av if encoder == "h264" else _OpenCV)(tmp_path / "x.mp4", rate, size)
    for level in range(0, 200, 20):
        writer.add(np.full((48, 64, 3), level, np.uint8))
    writer.close()
    capture = cv2.VideoCapture(str(tmp_path / "x.mp4"))
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (30, 10)
    levels = []
    while (picture := capture.read()[1]) is not None:
        assert picture.shape == (48, 64, 3)
        levels.append(picture.mean())
    assert levels == pytest.approx(list(range(0, 200, 20)), abs=4)


def test_odd_sides_lose_a_row_and_other_sizes_are_fitted(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "deep" / "x.mp4", Fraction(25))
    for shape in ((49, 65, 3), (49, 65, 3), (20, 20, 3)):
        recorder.add(np.zeros(shape, np.uint8))
    recorder.close()
    capture = cv2.VideoCapture(str(tmp_path / "deep" / "x.mp4"))
    assert [capture.get(kind) for kind in (3, 4, 7)] == [64, 48, 3]
