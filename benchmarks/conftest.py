"""One thread, so that a time is that of the code and not of what else the machine does."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # tiny.py: a data set and a recipe


def pytest_configure() -> None:
    torch.set_num_threads(1)
