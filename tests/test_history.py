from __future__ import annotations

from pathlib import Path

import pytest

from ismallnet.history import History, plot, read

COLUMNS = ["step", "loss", "iou", "lr", "val_iou"]


def test_rows_are_on_the_disk_as_soon_as_they_are_added(tmp_path: Path) -> None:
    history = History(tmp_path, COLUMNS, step=0)
    history.add({"step": 1, "loss": 0.5})
    assert (tmp_path / "history.csv").read_text() == "step,loss,iou,lr,val_iou\n1,0.5,,,\n"
    assert read(tmp_path / "history.csv") == [{"step": 1, "loss": 0.5}]


def test_a_resumed_history_drops_what_came_after_the_state(tmp_path: Path) -> None:
    history = History(tmp_path, COLUMNS, step=0)
    for step in (5, 10, 15, 20):
        history.add({"step": step, "loss": step / 7})
    with (tmp_path / "history.csv").open("a") as file:
        file.write("1")  # a row of step 15 that was cut off
    History(tmp_path, COLUMNS, step=10).add({"step": 15, "loss": 1.0})
    assert [row["step"] for row in read(tmp_path / "history.csv")] == [5, 10, 15]


def test_a_value_without_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="acuracy"):
        History(tmp_path, COLUMNS, step=0).add({"step": 1, "acuracy": 1})


def test_an_inactive_history_writes_nothing(tmp_path: Path) -> None:
    history = History(tmp_path, COLUMNS, step=0, active=False)
    history.add({"step": 1})
    history.close()
    assert not list(tmp_path.iterdir())


def test_curves_are_drawn_even_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(",".join(COLUMNS) + "\n")
    plot(tmp_path / "history.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
