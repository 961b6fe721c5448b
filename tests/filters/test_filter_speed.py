"""examples/filter_speed.py prints what its first lines say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "filter_speed.py"


def test_every_filter_has_a_row_an_image_and_responses_agree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("filter_speed", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["filter_speed", "--repeats", "1", "--side", "96"])
    module.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert [tuple(line[:3]) for line in lines] == [
        (row.name, *image) for row in module.ROWS for image in (("toy", "128"), ("cloud", "96"))
    ]
    assert all(float(line[-1]) < 1e-6 for line in lines)
    assert all(float(line[3]) > 0 and float(line[4]) > 0 for line in lines)
