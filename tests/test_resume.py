"""A run killed at any moment goes on to the weights of a run that was not, whatever its objective."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ismallnet.config import Recipe
from ismallnet.train import train
from test_objectives import settings as of
from tiny import recipe, write_images

SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from pathlib import Path
from test_resume import settings
from ismallnet.train import train
recipe, out = settings(Path(sys.argv[2]), sys.argv[4]), sys.argv[3]
train(recipe, out=out, resume=True, advance=lambda done, *_: print(done, flush=True))
"""


def settings(root: Path, name: str) -> Recipe:
    if name == "supervised":
        return recipe(root, steps=40, save_every=1, fold=0, validate_every=10, optimizer={"name": "muon"})
    return of(root, name, steps=8, save_every=1)  # two-stage: four steps each


def kill(root: Path, out: Path, name: str, *, step: int, delay_s: float) -> int:
    """Go on with a run, kill it a moment after a step, and return the step it was seen to reach."""
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(root), str(out), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reached = next((int(line) for line in process.stdout if int(line) >= step), -1)
        time.sleep(delay_s)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return reached


@pytest.mark.parametrize(
    ("name", "kills"),
    [("supervised", {7: 0.013, 18: 0.029}), ("adversarial", {3: 0.021}), ("two-stage", {5: 0.017})],
)
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, name: str, kills: dict[int, float]) -> None:
    root = write_images(tmp_path / "mine")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for step, delay_s in kills.items():  # somewhere within a step or a checkpoint
        assert kill(root, killed, name, step=step, delay_s=delay_s) == step
    assert train(settings(root, name), out=killed, resume=True).finished
    train(settings(root, name), out=whole)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*.safetensors"))
    assert len(files) == (3 if name == "supervised" else 2)  # last, the state and, with validation, best
    for file in files:
        one, other = load_file(whole / file), load_file(killed / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), file
    steps = [
        [line.split(",")[0] for line in (run / "history.csv").read_text().splitlines()]
        for run in (whole, killed)
    ]
    assert steps[0] == steps[1]
