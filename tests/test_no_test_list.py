"""Nothing that learns or chooses opens a test list: every file that the commands open is watched.

The test images and masks of the two made-up data sets hold nothing, so reading one would fail too: OpenCV
opens files by itself, unseen by the watch.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ismallnet import config, data
from tiny import recipe, write_images

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
WATCH = """
import json, sys
from pathlib import Path
root, commands = sys.argv[1], json.loads(sys.argv[2])
opened = set()
def hook(event, args):
    if event == "open" and str(args[0]).startswith(root):
        opened.add(str(args[0]))
sys.addaudithook(hook)
from ismallnet.cli import main
told = []
for words in commands:
    opened.clear()
    told.append((main(words), sorted(opened)))
Path(sys.argv[3]).write_text(json.dumps(told))
"""
BOTH = {"NUAA-SIRST/50_50/train.txt", "NUDT-SIRST/50_50/train.txt"}
SHORT = (
    "--data.root", "DATA", "--training.steps", "1", "--training.epochs", "null", "--model.weights", "null",
    "--training.accelerator", "cpu", "--training.precision", "float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NUAA-SIRST and NUDT-SIRST as they are published, in tiny; images of the test lists are empty files."""
    root = tmp_path_factory.mktemp("data")
    made = write_images(root / "NUDT-SIRST")
    (made / "50_50").mkdir()
    for name in ("train.txt", "test.txt"):
        (made / name).rename(made / "50_50" / name)
    for name in (made / "50_50" / "test.txt").read_text().split():
        for folder in ("images", "masks"):
            (made / folder / f"{name}.png").write_bytes(b"")
    other = shutil.copytree(made, root / "NUAA-SIRST")
    for mask in list((other / "masks").iterdir()):
        mask.rename(mask.with_stem(f"{mask.stem}_pixels0"))
    return root


def lists_opened(root: Path, cwd: Path, *commands: Sequence[object]) -> list[set[str]]:
    """Run commands of `ismallnet`, all of which have to end well; the split lists that each opened."""
    words = [[str(word).replace("DATA", str(root)) for word in command] for command in commands]
    answer = cwd / "opened.json"
    watch = [sys.executable, "-c", WATCH, str(root), json.dumps(words), str(answer)]
    ran = subprocess.run(watch, capture_output=True, text=True, check=False, cwd=cwd)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(answer.read_text())
    assert [status for status, _ in told] == [0] * len(commands), ran.stderr
    return [
        {str(Path(path).relative_to(root)) for path in opened if path.endswith(".txt")} for _, opened in told
    ]


def train_lists(path: Path) -> set[str]:
    return {f"{each.name}/50_50/train.txt" for each in config.load(path).data.sets}


def test_the_watch_sees_a_test_list_that_is_opened(tmp_path: Path) -> None:
    """Of a set whose test images are whole, or the command would fail."""
    write_images(tmp_path / "whole")
    words = ("evaluate", "top-hat", "--data", "folder", "--root", "DATA/whole", "--bootstrap", "0")
    assert lists_opened(tmp_path, tmp_path, words) == [{"whole/test.txt"}]


def test_an_image_of_a_test_list_cannot_be_read_here(published: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        list(data.load("NUAA-SIRST", published, "test"))


def test_no_recipe_opens_a_test_list(published: Path, tmp_path: Path) -> None:
    commands = []
    for path in RECIPES:
        side = {"mdvsfa": 128, "alcnet": 72}.get(config.load(path).model.name, 32)  # the least they take
        stages = json.dumps([{"sizes": [side], "batch": 2}])
        commands.append(("train", path, *SHORT, "--training.stages", stages, "--out", tmp_path / path.stem))
    opened = lists_opened(published, tmp_path, *commands)
    assert dict(zip(RECIPES, opened, strict=True)) == {path: train_lists(path) for path in RECIPES}


def test_no_command_that_chooses_or_compares_opens_a_test_list(published: Path, tmp_path: Path) -> None:
    """Training with a validation fold is watched in test_train."""
    tree = config.to_dict(recipe(published, fold=0, steps=1))
    tree["data"]["sets"] = [{"name": "NUAA-SIRST"}, {"name": "NUDT-SIRST"}]
    tree["model"]["options"] = {
        "widths": [4, 4, 4], "depths": [1, 1, 1], "decoder_depths": [1, 1], "fusion_width": 4,
        "share": "nothing", "wiring": "mnim", "detail": 0,
    }  # fmt: skip
    config.dump(config.from_dict(tree), tmp_path / "tiny.yaml")
    both = ("--root", "DATA", "--data", "NUAA-SIRST", "NUDT-SIRST")
    commands = (
        ("calibrate", "top-hat", *both, "--out", "filter"),
        ("calibrate", "ismallnet-s", *both, "--fa", "10e-6", "--out", "network"),
        (
            "benchmark",
            "ablation",
            "--recipe",
            "tiny.yaml",
            "--only",
            "base",
            "--seeds",
            "0",
            "--root",
            "DATA",
        ),
        ("benchmark", "errors", "top-hat", "--compare", "lcm", "--data", "nuaa", "--root", "DATA"),
        (
            "benchmark",
            "speed",
            "--models",
            "tbcnet",
            "--side",
            "64",
            "--repetitions",
            "1",
            "--limit",
            "1",
            *both,
        ),
        ("export", "ismallnet-s", "--format", "torch", "--precision", "fp16", *both),
    )
    expected = [BOTH] * len(commands)
    expected[3] = {"NUAA-SIRST/50_50/train.txt"}
    assert lists_opened(published, tmp_path, *commands) == expected


@pytest.mark.slow
def test_the_speed_benchmark_opens_no_test_list(published: Path, tmp_path: Path) -> None:
    words = ("--models", "tbcnet", "--side", "64", "--repetitions", "1", "--limit", "1", "--root", "DATA")
    assert lists_opened(published, tmp_path, ("benchmark", "speed", *words)) == [BOTH]
