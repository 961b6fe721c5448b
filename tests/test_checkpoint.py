from __future__ import annotations

import json
import subprocess
import sys
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


# --- weights to share: checksums and shards ---

SHARD_BYTES = 4000
"""The network has some 26 kB of half-precision weights."""


def share(folder: Path, model: nn.Module, *, shard_bytes: int = SHARD_BYTES) -> None:
    save(folder, model, half=True, shard_bytes=shard_bytes)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_shards_give_the_scores_of_one_file_and_none_is_larger_than_allowed(
    tmp_path: Path, model: nn.Module
) -> None:
    save(tmp_path / "one", model, half=True)
    share(tmp_path / "many", model)
    shards = checkpoint.weight_files(tmp_path / "many")
    assert len(shards) > 3
    for path in shards:
        stored = load_file(path)
        assert sum(tensor.nbytes for tensor in stored.values()) <= SHARD_BYTES or len(stored) == 1
    image = torch.rand(1, 1, 40, 33)
    one, many = (checkpoint.load_model(tmp_path / name)[0] for name in ("one", "many"))
    assert torch.equal(many(image).target, one(image).target)


def test_shards_and_their_index_are_named_as_on_the_hub(tmp_path: Path, model: nn.Module) -> None:
    share(tmp_path / "m", model)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    count = len(set(index["weight_map"].values()))
    files = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    assert names(tmp_path / "m") == ["config.json", *files, "model.safetensors.index.json"]
    stored = {key: tensor for name in files for key, tensor in load_file(tmp_path / "m" / name).items()}
    assert index["weight_map"].keys() == stored.keys() == model.state_dict().keys()
    assert index["metadata"] == {"total_size": sum(tensor.nbytes for tensor in stored.values())}


def test_weights_that_fit_one_file_are_in_one(tmp_path: Path, model: nn.Module) -> None:
    share(tmp_path / "m", model, shard_bytes=10**9)
    assert names(tmp_path / "m") == ["config.json", "model.safetensors"]


def test_fingerprint_of_shards_is_that_of_sha256sum(tmp_path: Path, model: nn.Module) -> None:
    """Of one file it is the file's own."""
    share(tmp_path / "one", model, shard_bytes=10**9)
    share(tmp_path / "many", model)
    plain = subprocess.run(
        "sha256sum model.safetensors", shell=True, cwd=tmp_path / "one", capture_output=True, check=True
    )
    lines = subprocess.run(
        "sha256sum *.safetensors | sha256sum",
        shell=True,
        cwd=tmp_path / "many",
        capture_output=True,
        check=True,
    )
    assert checkpoint.weights_sha256(tmp_path / "one") == plain.stdout.split()[0].decode()
    assert checkpoint.weights_sha256(tmp_path / "many") == lines.stdout.split()[0].decode()


def test_a_missing_shard_is_named(tmp_path: Path, model: nn.Module) -> None:
    share(tmp_path / "m", model)
    checkpoint.weight_files(tmp_path / "m")[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"no model-00002-of-\d+\.safetensors in .* all are needed"):
        checkpoint.load_model(tmp_path / "m")


@pytest.mark.parametrize("shard_bytes", [SHARD_BYTES, 10**9])
def test_a_file_with_another_checksum_is_named(tmp_path: Path, model: nn.Module, shard_bytes: int) -> None:
    share(tmp_path / "m", model, shard_bytes=shard_bytes)
    path = checkpoint.weight_files(tmp_path / "m")[-1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit of one weight: still a valid file
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"{path.name} is damaged or not the file of these weights: its SHA"
    ):
        checkpoint.load_model(tmp_path / "m")


def test_shards_from_elsewhere_without_checksums_are_read_and_a_truncated_one_is_named(
    tmp_path: Path, model: nn.Module
) -> None:
    share(tmp_path / "m", model)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    del config["sha256"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    checkpoint.load_model(tmp_path / "m")
    path = checkpoint.weight_files(tmp_path / "m")[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model-00001-of-\d+\.safetensors is truncated"):
        checkpoint.load_model(tmp_path / "m")


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../m.safetensors"}}'])
def test_an_index_that_is_none_or_leads_elsewhere_is_refused(
    tmp_path: Path, model: nn.Module, text: str
) -> None:
    save(tmp_path / "m", model)
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m.safetensors")
    (tmp_path / "m" / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"is no index of shards|has to be in the folder itself"):
        checkpoint.load_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("before", "after"), [(SHARD_BYTES, 10**9), (10**9, SHARD_BYTES), (SHARD_BYTES, 9000)]
)
def test_replaced_weights_leave_no_file_of_the_old_and_every_other_file(
    tmp_path: Path, model: nn.Module, before: int, after: int
) -> None:
    share(tmp_path / "fresh", model, shard_bytes=after)
    share(tmp_path / "m", model, shard_bytes=before)
    (tmp_path / "m" / "README.md").write_text("the card")
    share(tmp_path / "m", model, shard_bytes=after)
    assert names(tmp_path / "m") == sorted([*names(tmp_path / "fresh"), "README.md"])
    checkpoint.load_model(tmp_path / "m")


def test_a_folder_cut_off_while_replaced_is_refused_until_it_is_written_again(
    tmp_path: Path, model: nn.Module
) -> None:
    """After every file but the config, which is the last, the old config's checksums do not fit."""
    share(tmp_path / "m", model)
    old = (tmp_path / "m" / "config.json").read_text()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    share(tmp_path / "m", model)
    new = (tmp_path / "m" / "config.json").read_text()
    (tmp_path / "m" / "config.json").write_text(old)
    with pytest.raises(ValueError, match="its SHA-256 is not that in config"):
        checkpoint.load_model(tmp_path / "m")
    share(tmp_path / "m", model)
    assert (tmp_path / "m" / "config.json").read_text() == new
    checkpoint.load_model(tmp_path / "m")


def test_a_process_killed_while_it_writes_leaves_no_model_folder(tmp_path: Path, model: nn.Module) -> None:
    """Killed from within at the third file it publishes; the next call writes the folder."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "published = []\n"
        "def hook(event, args):\n"
        "    if event == 'os.rename':\n"
        "        published.append(args)\n"
        "        if len(published) == 3: os._exit(9)\n"
        "sys.addaudithook(hook)\n"
        "from ismallnet import checkpoint\n"
        "from ismallnet.models import create_model\n"
        "from tiny import MODEL\n"
        "model = create_model(MODEL['name'], **MODEL['options'])\n"
        "checkpoint.save_model(sys.argv[1], model, **MODEL, shard_bytes=4000)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m"), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == 9
    assert names(tmp_path) == [".unfinished-m"]
    share(tmp_path / "m", model)
    assert names(tmp_path) == ["m"]
    checkpoint.load_model(tmp_path / "m")
