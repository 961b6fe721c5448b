"""A run killed at any moment goes on to the weights of a run that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from ismallnet.config import Recipe
from ismallnet.train import train
from tiny import recipe, write_images

SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from pathlib import Path
from test_resume import settings
from ismallnet.train import train
recipe, out = settings(Path(sys.argv[2])), sys.argv[3]
train(recipe, out=out, resume=True, advance=lambda done, *_: print(done, flush=True))
"""


def settings(root: Path) -> Recipe:
    return recipe(root, steps=40, save_every=1, fold=0, validate_every=10, optimizer={"name": "muon"})


def kill(root: Path, out: Path, *, step: int, delay_s: float) -> int:
    """Go on with a run, kill it a moment after a step, and return the step it was seen to reach."""
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(root), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reached = next((int(line) for line in process.stdout if int(line) >= step), -1)
        time.sleep(delay_s)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return reached


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    root = write_images(tmp_path / "mine")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert kill(root, killed, step=7, delay_s=0.013) == 7  # somewhere within a step or a checkpoint
    assert kill(root, killed, step=18, delay_s=0.029) == 18
    assert train(settings(root), out=killed, resume=True).finished
    train(settings(root), out=whole)
    for file in ("last/model.safetensors", "best/model.safetensors", "state-00000040/state.safetensors"):
        one, other = load_file(whole / file), load_file(killed / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), file
    steps = [
        [line.split(",")[0] for line in (run / "history.csv").read_text().splitlines()]
        for run in (whole, killed)
    ]
    assert steps[0] == steps[1]
