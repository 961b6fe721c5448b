"""Two processes with gloo make the steps of one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from ismallnet import history
from ismallnet.config import Loss, Recipe
from ismallnet.train import train
from test_objectives import settings as of
from tiny import recipe, write_images

STEPS = 4
SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from test_ddp import adversarial, settings
from test_objectives import settings as of
from tiny import recipe
from ismallnet.train import train
root, out = Path(sys.argv[2]), Path(sys.argv[3])
for loss in ("sample", "batch"):
    train(settings(root, loss), out=out / loss)
train(adversarial(root), out=out / "adversarial")
for name in ("adversarial", "two-stage"):
    train(of(root, name, steps=4), out=out / f"live-{name}")
try:
    train(recipe(root, stages=[{"sizes": [32], "batch": 3}]), out=out / "odd")
except ValueError as error:
    (out / "error.txt").write_text(str(error))
"""


def settings(root: Path, loss: str, *, steps: int = STEPS) -> Recipe:
    """Frozen statistics, since two halves of a batch have others than the whole."""
    stages = [{"sizes": [32], "batch": 4, "batch_norm": "frozen"}]
    one = recipe(root, steps=steps, stages=stages, fold=0, optimizer={"name": "sgd", "lr": 0.05})
    return dataclasses.replace(one, loss=Loss(per_sample=loss == "sample"))


def adversarial(root: Path, *, steps: int = STEPS) -> Recipe:
    """Likewise, of the objective with most turns."""
    stages = [{"sizes": [128], "batch": 4, "batch_norm": "frozen"}]
    optimizer = {"name": "sgd", "lr": 0.01}
    return of(root, "adversarial", steps=steps, stages=stages, optimizer=optimizer)


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "last" / "model.safetensors")


def state(run: Path) -> dict[str, Tensor]:
    return load_file(next(run.glob("state-*")) / "state.safetensors")


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[key] - other[key]).abs().max()) for key in one)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("ddp") / "mine")


@pytest.fixture(scope="module")
def pair(root: Path) -> Path:
    """What two processes left."""
    script, out = root / "script.py", root.parent / "pair"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(script), str(Path(__file__).parent), str(root), str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert ran.returncode == 0, ran.stderr
    return out


@pytest.mark.parametrize("loss", ["sample", "batch"])
def test_two_processes_give_the_weights_of_one(loss: str, root: Path, pair: Path, tmp_path: Path) -> None:
    train(settings(root, loss), out=tmp_path / "one")
    train(settings(root, loss, steps=STEPS - 1), out=tmp_path / "short")
    one = weights(tmp_path / "one")
    assert difference(one, weights(tmp_path / "short")) > 1e-3
    # the two halves of a gradient are rounded apart before they are added
    assert difference(one, weights(pair / loss)) < 1e-6


def test_two_processes_take_the_adversarial_turns_of_one(root: Path, pair: Path, tmp_path: Path) -> None:
    train(adversarial(root), out=tmp_path / "one")
    train(adversarial(root, steps=STEPS - 1), out=tmp_path / "short")
    one, short, other = state(tmp_path / "one"), state(tmp_path / "short"), state(pair / "adversarial")
    for part in ("discriminator", "network.miss", "network.false_alarm"):
        weights = {key: tensor for key, tensor in one.items() if key.startswith(f"objective.{part}")}
        last_step = difference(weights, short)
        assert last_step > 1e-5
        # gradients are clipped from norms of a hundred and more, and so is their rounding
        assert difference(weights, other) < 0.02 * last_step


@pytest.mark.parametrize(("name", "columns"), [("adversarial", 3), ("two-stage", 1)])
def test_two_processes_train_by_every_objective(name: str, columns: int, pair: Path) -> None:
    rows = history.read(pair / f"live-{name}" / "history.csv")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [sum(key.startswith("loss_") for key in row) for row in rows] == [columns] * 4
    assert all(tensor.isfinite().all() for tensor in state(pair / f"live-{name}").values())


def test_a_batch_that_cannot_be_shared_is_refused(pair: Path) -> None:
    message = "2 devices cannot share a batch of 3 equally; choose a multiple of it"
    assert (pair / "error.txt").read_text() == message
