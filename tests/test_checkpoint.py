from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ismallnet import checkpoint
from ismallnet.checkpoint import State
from ismallnet.models import MODELS, create_model
from tiny import MODEL


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model(MODEL["name"], **MODEL["options"]).eval()


def save(folder: Path, model: nn.Module, **extra: object) -> None:
    checkpoint.save_model(folder, model, name=MODEL["name"], options=MODEL["options"], **extra)


def test_a_model_folder_gives_the_same_scores(tmp_path: Path, model: nn.Module) -> None:
    save(tmp_path / "m", model)
    back, _ = checkpoint.load_model(tmp_path / "m")
    image = torch.rand(1, 1, 40, 33)
    assert torch.equal(back(image).target, model(image).target)


def test_a_model_folder_tells_how_it_was_made(tmp_path: Path, model: nn.Module) -> None:
    save(tmp_path / "m", model, metadata={"step": 7, "recipe": {"a": [1, 2]}})
    _, saved = checkpoint.load_model(tmp_path / "m")
    assert saved.name == MODEL["name"]
    assert MODEL["options"].items() <= saved.options.items()
    assert saved.metadata == {"step": 7, "recipe": {"a": [1, 2]}}


def test_weights_outlive_a_change_of_what_their_name_means(
    tmp_path: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "m", model)
    entry = MODELS[MODEL["name"]]
    monkeypatch.setitem(MODELS, MODEL["name"], replace(entry, options={"widths": (2, 2, 2, 2, 2)}))
    back, _ = checkpoint.load_model(tmp_path / "m")
    image = torch.rand(1, 1, 40, 33)
    assert torch.equal(back(image).target, model(image).target)


def test_a_model_folder_follows_the_hub_convention(tmp_path: Path, model: nn.Module) -> None:
    save(tmp_path / "m", model)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model"] == MODEL["name"]


def test_half_precision_is_stored_small_and_read_as_float32(tmp_path: Path, model: nn.Module) -> None:
    save(tmp_path / "half", model, half=True)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {stored[name].dtype for name, _ in model.named_parameters()} == {torch.float16}
    back, _ = checkpoint.load_model(tmp_path / "half")
    for mine, theirs in zip(back.parameters(), model.parameters(), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, rtol=2**-11, atol=1e-7)  # half has 11 significant bits


def test_a_model_folder_is_replaced(tmp_path: Path, model: nn.Module) -> None:
    save(tmp_path / "m", model, metadata={"step": 1})
    with torch.no_grad():
        next(model.parameters()).add_(1)
    save(tmp_path / "m", model, metadata={"step": 2})
    back, saved = checkpoint.load_model(tmp_path / "m")
    assert saved.metadata == {"step": 2}
    assert torch.equal(next(back.parameters()), next(model.parameters()))
    assert not list(tmp_path.rglob(".unfinished*"))


def test_metadata_cannot_hide_the_model(tmp_path: Path, model: nn.Module) -> None:
    with pytest.raises(ValueError, match="'options', which is taken"):
        save(tmp_path / "m", model, metadata={"options": 1})


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
        checkpoint.load_model(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path, model: nn.Module) -> None:
    save(tmp_path / "m", model)
    path = tmp_path / "m" / "config.json"
    path.write_text(path.read_text().replace('"fusion_width": 4', '"fusion_width": 8'))
    with pytest.raises(ValueError, match="does not hold the weights of 'ismallnet-s'"):
        checkpoint.load_model(tmp_path / "m")


@pytest.mark.parametrize("text", ["", '{"model": ', "{}", "[]", "3"])
def test_a_config_that_names_no_model_is_refused(tmp_path: Path, model: nn.Module, text: str) -> None:
    save(tmp_path / "m", model)
    (tmp_path / "m" / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is no JSON object with 'model' and 'options'"):
        checkpoint.load_model(tmp_path / "m")


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.9])
def test_truncated_weights_are_refused(tmp_path: Path, model: nn.Module, kept: float) -> None:
    save(tmp_path / "m", model)
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated"):
        checkpoint.load_model(tmp_path / "m")


def test_a_state_comes_back_and_replaces_the_older(tmp_path: Path) -> None:
    for step in (3, 12):
        checkpoint.save_state(tmp_path, State(step, {"a": torch.full((2, 3), step)}, {"best": {"iou": 0.5}}))
    back = checkpoint.load_state(tmp_path)
    assert back is not None
    assert (back.step, dict(back.info)) == (12, {"best": {"iou": 0.5}})
    assert torch.equal(back.tensors["a"], torch.full((2, 3), 12))
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000012"]


def test_a_state_cut_off_while_written_is_not_read(tmp_path: Path) -> None:
    checkpoint.save_state(tmp_path, State(3, {"a": torch.ones(1)}, {}))
    half = tmp_path / ".unfinished-state-00000009"
    half.mkdir()
    (half / "state.json").write_text('{"step": 9}')
    back = checkpoint.load_state(tmp_path)
    assert back is not None
    assert back.step == 3


def test_a_folder_without_state_has_none(tmp_path: Path) -> None:
    assert checkpoint.load_state(tmp_path) is None
