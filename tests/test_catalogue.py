"""Names of weights: where they are looked for, and which folder comes first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ismallnet
from ismallnet import catalogue, checkpoint
from ismallnet.catalogue import find_weights, list_weights, shelves
from ismallnet.models import create_model
from tiny import MODEL

ROOT = Path(__file__).parents[1]


def put(folder: Path, *, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = create_model(MODEL["name"], **MODEL["options"])
    checkpoint.save_model(
        folder, model, name=MODEL["name"], options=MODEL["options"], half=True, shard_bytes=4000
    )
    return folder


def test_weights_are_in_the_package_then_in_the_checkout_then_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shelves() == (ROOT / "src" / "ismallnet" / "weights", ROOT / "weights")
    monkeypatch.setenv("ISMALLNET_WEIGHTS", str(tmp_path))
    assert shelves()[-1] == tmp_path


def test_an_installed_package_has_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "site-packages" / "ismallnet" / "catalogue.py"))
    assert shelves() == (catalogue.WEIGHTS,)


def test_the_first_of_two_folders_with_a_name_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path / "bundled")
    monkeypatch.setenv("ISMALLNET_WEIGHTS", str(tmp_path / "mine"))
    put(tmp_path / "mine" / "ours")
    assert find_weights("ours") == tmp_path / "mine" / "ours"
    put(tmp_path / "bundled" / "ours")
    assert find_weights("ours") == tmp_path / "bundled" / "ours"
    assert [name for name in list_weights() if name == "ours"] == ["ours"]


def test_sharded_weights_are_loaded_by_their_folders_name_and_known_by_their_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name in reports is the folder's, since two folders may hold one network."""
    monkeypatch.setenv("ISMALLNET_WEIGHTS", str(tmp_path))
    put(tmp_path / "small-a", seed=0)
    put(tmp_path / "small-b", seed=1)
    a, b = (ismallnet.load(name, device="cpu") for name in ("small-a", "small-b"))
    assert (a.name, b.name) == ("small-a", "small-b")
    assert a.weights_sha256 == checkpoint.weights_sha256(tmp_path / "small-a") != b.weights_sha256
    assert {"small-a", "small-b"} <= set(ismallnet.list_detectors())
    by_folder = ismallnet.load(tmp_path / "small-a" / ".." / "small-b", device="cpu")
    assert by_folder.weights_sha256 == b.weights_sha256


def test_damaged_weights_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISMALLNET_WEIGHTS", str(tmp_path))
    shard = checkpoint.weight_files(put(tmp_path / "small"))[2]
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=f"{shard.name} is damaged or not the file of these weights"):
        ismallnet.load("small", device="cpu")


def test_a_variable_that_names_no_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISMALLNET_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"ISMALLNET_WEIGHTS is .*nowhere, which is no folder"):
        ismallnet.load("ismallnet-s")


def test_weights_of_the_checkout_are_whole_and_under_40_mb_in_files_under_16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Passes where there are none."""
    monkeypatch.delenv("ISMALLNET_WEIGHTS", raising=False)
    folders = [folder for folder in list_weights().values() if folder.parent == ROOT / "weights"]
    sizes = [path.stat().st_size for folder in folders for path in folder.iterdir()]
    assert max(sizes, default=0) < 16e6
    assert sum(sizes) < 40e6
    for folder in folders:
        _, saved = checkpoint.load_model(folder)
        assert checkpoint.weights_sha256(folder) in (folder / "README.md").read_text("utf-8")
        assert {entry["split"] for entry in saved.metadata["data"]} == {"train"}
