"""Fixtures shared by all tests: one thread a worker, and the public data sets where they are present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_configure() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with NUAA-SIRST/ and NUDT-SIRST/: ISMALLNET_DATA, or ../shared/data beside the checkout."""
    root = Path(os.environ.get("ISMALLNET_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no public data sets at {root}; set ISMALLNET_DATA to the folder that holds them")
    return root


@pytest.fixture(autouse=True)
def _width_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed is as wide as in a file, whatever the workers of a parallel run say of a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def _weights_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of whoever runs the tests are not among those that a name is looked for in."""
    monkeypatch.delenv("ISMALLNET_WEIGHTS", raising=False)
