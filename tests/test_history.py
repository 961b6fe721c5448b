from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ismallnet.data.augment import Batch
from ismallnet.history import History, Tally, plot, read

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


def test_tensorboard_has_every_value_and_the_pictures(tmp_path: Path) -> None:
    history = History(tmp_path, COLUMNS, step=0)
    for step in (5, 10):
        history.add({"step": step, "loss": step / 4, "val_iou": 0.5})
    history.picture("crop", 10, [np.zeros((6, 8), np.float32), np.ones((6, 8), np.float32)])
    history.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]} == {
        "loss": [(5, 1.25), (10, 2.5)],
        "val_iou": [(5, 0.5), (10, 0.5)],
    }
    (picture,) = board.Images("crop")
    assert (picture.step, picture.height, picture.width) == (10, 6, 16)


def test_curves_are_drawn_even_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(",".join(COLUMNS) + "\n")
    plot(tmp_path / "history.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def step(tally: Tally, losses: dict[str, float], logits: float | None) -> None:
    truth = torch.ones(1, 1, 2, 2)
    batch = Batch(truth, truth, truth, truth)
    prediction = None if logits is None else torch.full_like(truth, logits)
    tally.add(
        {part: torch.tensor(loss) for part, loss in losses.items()}, torch.tensor(3.0), batch, prediction
    )


def test_a_row_has_the_losses_of_the_parts_and_their_sum() -> None:
    tally = Tally(torch.device("cpu"), ("judge", "network"))
    step(tally, {"judge": 1.0, "network": 4.0}, logits=1.0)
    step(tally, {"judge": 2.0, "network": 8.0}, logits=-1.0)
    row = tally.close(1)
    assert {key: row[key] for key in ("loss", "loss_judge", "loss_network", "gradient", "iou")} == {
        "loss": 7.5,
        "loss_judge": 1.5,
        "loss_network": 6.0,
        "gradient": 3.0,
        "iou": 0.5,
    }


def test_what_did_not_happen_is_not_in_the_row() -> None:
    tally = Tally(torch.device("cpu"), ("judge", "network"))
    step(tally, {"judge": 1.0}, logits=None)
    assert tally.close(1).keys() == {"loss", "loss_judge", "gradient", "images_s"}
    alone = Tally(torch.device("cpu"), ("network",))
    step(alone, {"network": 1.0}, logits=1.0)
    assert alone.close(1).keys() == {"loss", "iou", "gradient", "images_s"}
