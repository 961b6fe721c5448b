"""What a terminal shows."""

from __future__ import annotations

import re

import pytest

from ismallnet.cli.screen import progress


def test_progress_on_a_terminal_has_steps_text_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("training") as advance:
        for step in range(1, 4):
            advance(step, 4, "loss 0.5 · IoU 0.4 · 9 images/s")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert re.search(r"training.* 3/4 0:00:0\d loss 0\.5 · IoU 0\.4 · 9 images/s", shown)


def test_progress_with_a_unit_has_its_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("detecting", unit="frames") as advance:
        for step in range(3):
            advance(step, 9, "x.mkv")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert re.search(r"detecting.* 2/9 \d+\.\d frames/s .* x\.mkv", shown)


def test_lines_of_a_log_have_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 61.0, 61.0, 100.0, 122.0, 122.0))
    monkeypatch.setattr("ismallnet.cli.screen.time.monotonic", lambda: next(clock))
    with progress("detecting", unit="frames") as advance:
        advance(61, 1281, "x.mkv")
        advance(100, 1281, "x.mkv")
        advance(122, 1281, "x.mkv")
    assert capsys.readouterr().err.splitlines() == [
        "detecting 61/1281 x.mkv, 1.0 frames/s, 20 min left",
        "detecting 122/1281 x.mkv, 1.0 frames/s, 19 min left",
    ]
