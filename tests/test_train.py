from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ismallnet import checkpoint, config, devices, history
from ismallnet.train import Trainer, train
from tiny import recipe, write_images


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "mine")


def weights(run: Path, folder: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run / folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_learns_the_targets(root: Path, tmp_path: Path) -> None:
    settings = {"steps": 120, "ema": 0.9, "fold": 0, "validate_every": 1000, "log_every": 20}
    result = train(recipe(root, optimizer={"name": "muon", "lr": 0.02}, **settings), out=tmp_path / "run")
    rows = [row for row in history.read(tmp_path / "run" / "history.csv") if "loss" in row]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert result.last["val_iou"] > 0.3


def test_a_run_leaves_what_it_promises(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    seen: list[tuple[int, int, str]] = []
    result = train(recipe(root, fold=1, validate_every=3), out=run, advance=lambda *told: seen.append(told))
    expected = {"recipe.yaml", "state-00000006", "last", "best", "history.csv", "curves.png", "tensorboard"}
    assert {path.name for path in run.iterdir()} == expected | {"result.json"}
    assert [told[:2] for told in seen] == [(step, 6) for step in range(1, 7)]
    assert re.search(r"loss \d\.\d+ · IoU \d\.\d+ · \d+ images/s · val \d\.\d+", seen[-1][2])
    assert result.shares.keys() == {"batches", "validation", "saving"}
    assert 0 < sum(result.shares.values()) < 1
    assert json.loads((run / "result.json").read_text()) == dataclasses.asdict(result)
    assert (result.step, result.finished) == (6, True)
    assert {"folder_iou", "folder_niou", "folder_pd", "folder_fa", "val_iou", "step"} == result.last.keys()
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    pictures = next((run / "tensorboard").iterdir()).read_bytes()
    assert b"PNG" in pictures
    assert b"crop" in pictures


def test_nothing_in_a_run_is_pickled(root: Path, tmp_path: Path) -> None:
    train(recipe(root), out=tmp_path / "run")
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files if path.parent.name != "tensorboard"}
    assert kinds == {".yaml", ".json", ".safetensors", ".csv", ".png"}


def test_the_history_has_a_row_a_log_and_a_validation(root: Path, tmp_path: Path) -> None:
    train(recipe(root, fold=0, log_every=2, validate_every=3), out=tmp_path / "run")
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], bool(row["loss"]), bool(row["val_iou"])) for row in rows] == [
        ("2", True, False),
        ("3", False, True),
        ("4", True, False),
        ("6", True, False),
        ("6", False, True),
    ]


def test_the_stored_model_tells_where_it_comes_from(root: Path, tmp_path: Path) -> None:
    settings = recipe(root, fold=2)
    train(settings, out=tmp_path / "run")
    _, saved = checkpoint.load_model(tmp_path / "run" / "last")
    assert config.from_dict(saved.metadata["recipe"]) == settings
    assert saved.metadata["step"] == 6
    learnt, judged = saved.metadata["data"]
    assert learnt["images"] + judged["images"] == 20
    assert len(learnt["split_sha256"]) == len(judged["split_sha256"]) == 64
    assert "fold 2" in judged["split"]


def test_best_is_the_best_of_the_validations(root: Path, tmp_path: Path) -> None:
    settings = recipe(root, fold=0, steps=40, validate_every=4, ema=0, optimizer={"lr": 0.02})
    result = train(settings, out=tmp_path / "run")
    rows = [row for row in history.read(tmp_path / "run" / "history.csv") if "val_iou" in row]
    assert result.best["val_iou"] == max(row["val_iou"] for row in rows)
    assert result.last["val_iou"] == rows[-1]["val_iou"]
    _, best = checkpoint.load_model(tmp_path / "run" / "best")
    assert best.metadata["step"] == result.best["step"]


def test_the_same_seed_gives_the_same_50_steps_and_another_does_not(root: Path, tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        train(recipe(root, seed=seed, steps=50, precision="auto"), out=tmp_path / name)
    assert same(weights(tmp_path / "first"), weights(tmp_path / "again"))
    assert not same(weights(tmp_path / "first"), weights(tmp_path / "other"))


@pytest.mark.parametrize(
    ("asked", "able", "used"),
    [
        ("auto", True, "bf16"),
        ("auto", False, "float32"),
        ("float32", True, "float32"),
        ("bf16", False, "bf16"),
    ],
)
def test_auto_is_what_the_device_computes_in(
    monkeypatch: pytest.MonkeyPatch, asked: Any, able: bool, used: str
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: able and device == "cpu")
    assert devices.settled(config.Training(precision=asked, accelerator="cpu")).precision == used


def test_bf16_by_name_is_emulated_with_a_warning(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda _: False)
    with pytest.warns(UserWarning, match="emulated, it takes many times as long") as caught:
        train(recipe(root, precision="bf16", steps=2), out=tmp_path / "run")
    assert len([each for each in caught if "emulated" in str(each.message)]) == 1
    train(recipe(root, precision="float32", steps=2), out=tmp_path / "exact")
    assert not same(weights(tmp_path / "run"), weights(tmp_path / "exact"))


def test_a_run_keeps_the_precision_that_it_began_with(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = devices.settled(config.Training(accelerator="cpu")).precision
    train(recipe(root, precision="auto"), out=tmp_path / "run")
    assert config.load(tmp_path / "run" / "recipe.yaml").training.precision == used
    train(recipe(root, precision="auto"), out=tmp_path / "run", resume=True)
    monkeypatch.setattr(devices, "has_bf16", lambda _: used != "bf16")  # the other kind of machine
    with pytest.raises(ValueError, match=r"resume with .*recipe\.yaml"):
        train(recipe(root, precision="auto"), out=tmp_path / "run", resume=True)


def test_validation_does_not_touch_the_training(root: Path, tmp_path: Path) -> None:
    for name, every in (("often", 1), ("rarely", 6)):
        train(recipe(root, fold=0, validate_every=every), out=tmp_path / name)
    assert same(weights(tmp_path / "often"), weights(tmp_path / "rarely"))


def test_a_run_is_not_overwritten(root: Path, tmp_path: Path) -> None:
    train(recipe(root), out=tmp_path / "run")
    before = weights(tmp_path / "run")
    with pytest.raises(FileExistsError, match="--resume"):
        train(recipe(root, seed=9), out=tmp_path / "run")
    assert same(weights(tmp_path / "run"), before)


def test_a_run_is_not_resumed_with_another_recipe(root: Path, tmp_path: Path) -> None:
    train(recipe(root), out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"begun with optimizer .*'lr': 0\.002"):
        train(recipe(root, optimizer={"lr": 0.1}), out=tmp_path / "run", resume=True)


def test_a_run_is_resumed_where_its_data_are_now(root: Path, tmp_path: Path) -> None:
    train(recipe(root, max_minutes=1e-9), out=tmp_path / "run")
    shutil.copytree(root, moved := tmp_path / "moved")
    assert train(recipe(moved), out=tmp_path / "run", resume=True).finished


@pytest.mark.parametrize("name", ["adamw", "adagrad"])
def test_a_run_stopped_by_the_clock_goes_on_to_the_same_weights(
    name: str, root: Path, tmp_path: Path
) -> None:
    optimizer = {"name": name}
    train(recipe(root, optimizer=optimizer), out=tmp_path / "whole")
    stopped = train(recipe(root, optimizer=optimizer, max_minutes=1e-9), out=tmp_path / "parts")
    assert (stopped.step, stopped.finished) == (1, False)
    ended = train(recipe(root, optimizer=optimizer), out=tmp_path / "parts", resume=True)
    assert (ended.step, ended.finished) == (6, True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    steps = [row["step"] for row in history.read(tmp_path / "parts" / "history.csv")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_resumed_is_left_as_it_is(root: Path, tmp_path: Path) -> None:
    train(recipe(root), out=tmp_path / "run")
    before = weights(tmp_path / "run")
    assert train(recipe(root), out=tmp_path / "run", resume=True).finished
    assert same(weights(tmp_path / "run"), before)


def test_a_frozen_stage_keeps_the_statistics_of_the_live_one_before_it(root: Path, tmp_path: Path) -> None:
    live = {"sizes": [32], "batch": 4}
    stages = [live, {**live, "batch_norm": "frozen"}]
    settings = {"stages": stages, "steps": 4, "ema": 0}
    first = train(recipe(root, max_minutes=1e-9, **settings), out=tmp_path / "run").step
    assert first == 1
    train(recipe(root, max_minutes=1e-9, **settings), out=tmp_path / "run", resume=True)
    before = weights(tmp_path / "run")
    assert train(recipe(root, **settings), out=tmp_path / "run", resume=True).step == 4
    after = weights(tmp_path / "run")
    means = [key for key in before if key.endswith("running_mean")]
    assert means
    assert all((before[key] != 0).any() and torch.equal(before[key], after[key]) for key in means)
    kernels = [key for key in before if key.endswith("conv1.weight")]
    assert not any(torch.equal(before[key], after[key]) for key in kernels)


def test_a_run_starts_from_stored_weights(root: Path, tmp_path: Path) -> None:
    train(recipe(root), out=tmp_path / "first")
    one = recipe(root, steps=1, optimizer={"lr": 1e-12}, ema=0)
    start = dataclasses.replace(one.model, weights=str(tmp_path / "first"))
    train(dataclasses.replace(one, model=start), out=tmp_path / "second")
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    kernels = [key for key in before if key.endswith("conv1.weight")]
    assert kernels
    assert all(torch.allclose(before[key], after[key], atol=1e-9) for key in kernels)


def test_stored_weights_of_another_network_are_refused(root: Path, tmp_path: Path) -> None:
    train(recipe(root), out=tmp_path / "first")
    model = config.Model(name="ismallnet-s", weights=str(tmp_path / "first"))
    with pytest.raises(ValueError, match="another network"):
        train(dataclasses.replace(recipe(root), model=model), out=tmp_path / "second")


def test_a_set_with_a_mask_offset_is_shown_in_turned_forms(root: Path, tmp_path: Path) -> None:
    plain = recipe(root, fold=0, steps=1)
    (chosen,) = plain.data.sets
    aside = dataclasses.replace(chosen, mask_offset=config.MaskOffset(least=1, most=40, dx=-0.5, dy=0))
    both = dataclasses.replace(plain, data=dataclasses.replace(plain.data, sets=(chosen, aside)))
    pool = Trainer(both, devices.launch(both.training), tmp_path / "other").pool
    half = len(pool) // 2
    assert [len(set(forms)) for forms in pool.forms.tolist()] == [1] * half + [8] * half


def test_stages_change_the_batches(root: Path, tmp_path: Path) -> None:
    stages = [{"sizes": [32], "batch": 4}, {"sizes": [16, 48], "batch": 2}]
    result = train(recipe(root, stages=stages, steps=8), out=tmp_path / "run")
    epochs = [row["epoch"] for row in history.read(tmp_path / "run" / "history.csv")]
    assert epochs == pytest.approx([0, 4 / 20, 8 / 20, 12 / 20, 16 / 20, 18 / 20, 20 / 20, 22 / 20])
    assert result.finished


@pytest.mark.parametrize(
    ("part", "mistake", "message"),
    [
        ("data", {"root": "absent"}, "absent"),
        ("model", {"options": {"withs": [8]}}, "did you mean 'widths'"),
        ("loss", {"target": "bce+iuo"}, "unknown loss 'iuo'"),
    ],
)
def test_a_mistake_in_the_recipe_leaves_no_folder_behind(
    part: str, mistake: dict[str, object], message: str, root: Path, tmp_path: Path
) -> None:
    tree = config.to_dict(recipe(root))
    tree[part] |= mistake
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(config.from_dict(tree), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_compiled_network_makes_the_steps_of_one_that_is_not(root: Path, tmp_path: Path) -> None:
    for name, compiled in (("eager", False), ("compiled", True)):
        train(recipe(root, steps=3, compile=compiled, optimizer={"name": "sgd"}), out=tmp_path / name)
    eager, compiled = weights(tmp_path / "eager"), weights(tmp_path / "compiled")
    assert eager.keys() == compiled.keys()
    assert all(torch.allclose(eager[key], compiled[key], atol=1e-4) for key in eager)


def test_a_loss_that_explodes_stops_the_run(root: Path, tmp_path: Path) -> None:
    settings = recipe(root, steps=50, optimizer={"name": "sgd", "lr": 1e30, "clip": 0})
    with pytest.raises(FloatingPointError, match=r"lower optimizer\.lr"):
        train(settings, out=tmp_path / "run")


def test_a_recipe_without_length_is_refused(root: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(recipe(root), training=config.Training(accelerator="cpu"))
    with pytest.raises(ValueError, match=r"training\.steps or training\.epochs"):
        train(settings, out=tmp_path / "run")


WATCH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from ismallnet import config
from tiny import recipe
from ismallnet.train import Trainer, train
root = Path(sys.argv[1])
for name in ("folder", "NUDT-SIRST"):
    tree = config.to_dict(recipe(root / name, steps=2, fold=0))
    tree["data"]["sets"][0]["name"] = name
    train(config.from_dict(tree), out=f"{sys.argv[2]}-{name}")
print("\\n".join(path for path in opened if path.startswith(str(root))))
"""


def test_training_opens_no_test_list_and_no_test_image(tmp_path: Path) -> None:
    # cv2 opens images by itself, unseen by the hook: they are made unreadable, so touching one would fail
    root = tmp_path / "data"
    spoilt = write_images(root / "folder")
    for name in (spoilt / "test.txt").read_text().split():
        (spoilt / "images" / f"{name}.png").write_bytes(b"")
    published = shutil.copytree(spoilt, root / "NUDT-SIRST")
    (published / "50_50").mkdir()
    for name in ("train.txt", "test.txt"):
        (published / name).rename(published / "50_50" / name)
    command = [sys.executable, "-c", WATCH, str(root), str(tmp_path / "run"), str(Path(__file__).parent)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    opened = {str(Path(line).relative_to(root)) for line in ran.stdout.splitlines() if line}
    assert {path for path in opened if path.endswith(".txt")} == {
        "folder/train.txt",
        "NUDT-SIRST/50_50/train.txt",
    }


def test_real_data_trains_and_is_judged(data_root: Path, tmp_path: Path) -> None:
    tree = config.to_dict(recipe(data_root, steps=2, fold=0, stages=[{"sizes": [64], "batch": 8}]))
    tree["data"]["sets"] = [{"name": "NUAA-SIRST", "weight": 1.0}]
    result = train(config.from_dict(tree), out=tmp_path / "run")
    assert 0 <= result.last["NUAA-SIRST_iou"] < 0.5
    _, saved = checkpoint.load_model(tmp_path / "run" / "last")
    assert sum(entry["images"] for entry in saved.metadata["data"]) == 213
