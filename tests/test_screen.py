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
