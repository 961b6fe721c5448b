"""What a run leaves to look at: `history.csv`, TensorBoard scalars and pictures, learning curves."""

from __future__ import annotations

import csv
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ismallnet import checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ismallnet.data.augment import Batch

CSV, CURVES, TENSORBOARD = "history.csv", "curves.png", "tensorboard"


class History:
    """The rows of a run, kept in `history.csv` as they come.

    Args:
        run: The run's folder.
        columns: Names of the values a row may have, `step` first.
        step: Where the run goes on from; rows after it, from a run that was cut off, are dropped.
        active: False on the other processes of a run: nothing is written.
    """

    def __init__(self, run: Path, columns: Sequence[str], *, step: int, active: bool = True) -> None:
        self.run = run
        self.active = active
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.columns = list(columns)
        kept = _rows_up_to(run / CSV, step) if (run / CSV).exists() else []
        checkpoint.write_text(run / CSV, "".join([",".join(self.columns), "\n", *kept]))
        purge = step + 1 if step else None
        self.board = SummaryWriter(str(run / TENSORBOARD), purge_step=purge)

    def add(self, row: Mapping[str, float]) -> None:
        """Add a row; it is on the disk when this returns.

        Raises:
            ValueError: a value that has no column.
        """
        if not self.active:
            return
        with (self.run / CSV).open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)
        for name, value in row.items():
            if name != "step":
                self.board.add_scalar(name, value, int(row["step"]))

    def picture(self, name: str, step: int, panels: Sequence[NDArray[np.float32]]) -> None:
        """Show equally large (H, W) maps in [0, 1] side by side in TensorBoard."""
        if not self.active:
            return
        strip = np.concatenate(panels, axis=1)[None]
        self.board.add_image(name, strip, step)

    def close(self) -> None:
        """Write everything out, and the learning curves as a picture."""
        if not self.active:
            return
        self.board.close()
        plot(self.run / CSV, self.run / CURVES)


class Tally:
    """Sums over the steps since the last row, on the device.

    Args:
        device: Of the run.
        parts: What is trained, by name.
    """

    def __init__(self, device: torch.device, parts: Collection[str]) -> None:
        self.device = device
        self.names = parts
        self.restart()
        self._clear()

    def _clear(self) -> None:
        self.sums = torch.zeros(4, device=self.device)
        self.losses: dict[str, list[Tensor]] = {name: [] for name in self.names}
        self.steps = self.images = self.judged = 0
        self.seconds = 0.0

    def restart(self) -> None:
        """Leave the time since the last step out of the pace."""
        self.tick = time.perf_counter()

    def add(self, losses: Mapping[str, Tensor], norm: Tensor, batch: Batch, logits: Tensor | None) -> None:
        """Count a step: its parts' losses, the norm of its gradients, the overlap of prediction and truth.

        Args:
            losses: By the parts that were stepped, each a scalar.
            norm: Of all their gradients together.
            batch: What the step was made of.
            logits: (B, 1, H, W); None where the network had no turn.
        """
        overlap = union = torch.zeros((), device=self.device)
        if logits is not None:
            found, true = logits > 0, batch.target >= 0.5
            overlap, union = (found & true).sum(), (found | true).sum()
            self.judged += 1
        loss = torch.stack([loss.float() for loss in losses.values()]).sum()
        self.sums += torch.stack([loss, norm.float(), overlap.float(), union.float()])
        for part, loss in losses.items():
            self.losses[part].append(loss)
        self.steps += 1
        self.images += len(batch.image)
        now = time.perf_counter()
        self.seconds += now - self.tick
        self.tick = now

    def close(self, world_size: int) -> dict[str, float]:
        """The means since the last call, of this process's part.

        `loss` is of a step, all its turns added up; `loss_<part>` of that part's turns, where there are
        several parts. What did not happen is not there: `iou` without a prediction, a part without a turn.
        """
        loss, norm, overlap, union = self.sums.tolist()
        row = {
            "loss": loss / self.steps,
            "gradient": norm / self.steps,
            "images_s": self.images * world_size / max(self.seconds, 1e-9),
        }
        if self.judged:
            row["iou"] = overlap / max(union, 1)
        if len(self.losses) > 1:
            turns = {part: losses for part, losses in self.losses.items() if losses}
            row |= {f"loss_{part}": float(torch.stack(losses).mean()) for part, losses in turns.items()}
        self._clear()
        return row


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a `history.csv`, without their empty fields."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def _rows_up_to(path: Path, step: int) -> list[str]:
    """The whole lines of a history, without its header, up to a step."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
    return [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) <= step]


def plot(source: Path, target: Path) -> None:
    """Draw loss, IoU and learning rate of a `history.csv` over the steps into a PNG."""
    from matplotlib.figure import Figure

    rows = read(source)
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name != "step"]
    iou = [name for name in names if name == "iou" or name.endswith("_iou")]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, title, chosen in zip(
        figure.subplots(1, 3), ("loss", "IoU", "learning rate"), (["loss"], iou, ["lr"]), strict=True
    ):
        for name in chosen:
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), label=name) if points else None
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if len(chosen) > 1:
            axes.legend()
    figure.savefig(target, dpi=120)
