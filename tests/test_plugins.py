"""Detectors from outside: an entry point is enough, and a bad one hurts no other."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from ismallnet import checkpoint, config, plugins
from ismallnet.benchmark.entrants import enter, facts, list_entrants
from ismallnet.catalogue import NoWeightsError
from ismallnet.cli import main
from ismallnet.detector import load
from ismallnet.filters import FILTERS, NotCalibratedError, all_filters, bundled_k, find_filter, list_filters
from ismallnet.models import MODELS, all_models, create_model, find_model, list_models

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "plugin"
SCENE = str(ROOT / "examples" / "scenes" / "images" / "cloud_thin.png")
Groups = Mapping[str, Mapping[str, str]]
Install = Callable[[str, Groups], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with entry points on the path as an installer would, its metadata beside it."""

    def install(name: str, groups: Groups) -> Path:
        site = tmp_path / "sites" / name
        metadata = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
        lines = []
        for group, points in groups.items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(site))
        plugins.forget()
        return site

    before = set(sys.modules)
    yield install
    for name in set(sys.modules) - before:
        if name.startswith("ismallnet_"):
            del sys.modules[name]
    monkeypatch.undo()
    plugins.forget()


@pytest.fixture
def example(install: Install) -> Path:
    """The plugin of examples/, with the entry points of its pyproject.toml: the folder it is installed in."""
    built = tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))
    site = install(built["project"]["name"], built["project"]["entry-points"])
    for file in built["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]:
        shutil.copy(PLUGIN / file, site)
    return site


# --- the example: a filter ----------------------------------------------------------------------------


@pytest.mark.usefixtures("example")
def test_example_is_listed_without_being_imported() -> None:
    assert list_filters() == [*FILTERS, "dog"]
    assert list_models() == [*MODELS, "stack"]
    assert not {"ismallnet_dog", "ismallnet_stack"} & set(sys.modules)


@pytest.mark.usefixtures("example")
def test_filter_from_outside_detects_like_one_of_ours() -> None:
    image = np.full((64, 64), 0.25, np.float32)
    image[20:23, 40:43] = 0.75
    (target,) = load("dog", k=8)(image).targets
    assert (target.x, target.y) == pytest.approx((41, 21), abs=0.01)


@pytest.mark.usefixtures("example")
def test_filter_from_outside_runs_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["detect", SCENE, "--model", "dog", "--k", "8", "--out", "found"]) == 0


@pytest.mark.usefixtures("example")
def test_filter_from_outside_without_k_says_how_to_choose_one() -> None:
    with pytest.raises(NotCalibratedError, match="ismallnet calibrate dog"):
        bundled_k("dog")
    ready, missing = enter(["top-hat", "dog"], "NUAA-SIRST", {})
    assert (list(ready), [each.name for each in missing]) == (["top-hat"], ["dog"])


# --- the example: a network ---------------------------------------------------------------------------


@pytest.mark.usefixtures("example")
def test_network_from_outside_is_trained_detects_is_evaluated_and_benchmarked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tiny.write_images(tmp_path / "mine")
    recipe = dataclasses.replace(tiny.recipe(root, steps=3), model=config.Model(options={"width": 4}))
    config.dump(recipe, "recipe.yaml")
    assert main(["train", "recipe.yaml", "--model.name", "stack", "--out", "run"]) == 0
    assert main(["train", "--out", "run", "--resume"]) == 0
    assert main(["detect", SCENE, "--model", "run", "--out", "found"]) == 0
    assert json.loads(Path("found/detections.json").read_text("utf-8"))["model"] == "stack (run/last)"
    data = ["--data", "folder", "--root", str(root), "--bootstrap", "0"]
    assert main(["evaluate", "run", *data, "--split", "train", "--out", "report"]) == 0
    table = ["benchmark", "table1", *data, "--detectors", "stack", "--device", "cpu", "--out", "table"]
    assert main([*table, "--weights", "stack=run"]) == 0
    assert "| stack |" in Path("table/table1.md").read_text("utf-8")


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (96, 64)])
def test_network_from_outside_keeps_the_contract_of_ours(size: tuple[int, int]) -> None:
    model = create_model("stack", width=4).train()
    logits = model(torch.rand(2, 1, *size))
    assert logits.target.shape == (2, 1, *size)
    logits.target.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.usefixtures("example")
def test_list_shows_what_is_from_outside(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {words[0]: words for words in lines if words}
    # by hand: 9·16 + 4·9·16² in the convolutions, 5·2·16 in the norms, 17 in the head
    assert rows["stack"][1:4] == ["9,537", "none", "recipes/fast-nuaa.yaml"]
    assert rows["dog"][1:4] == ["-", "none", "needed"]


@pytest.mark.usefixtures("example")
def test_network_from_outside_without_weights_says_how_to_train_it() -> None:
    with pytest.raises(NoWeightsError, match=r"ismallnet train recipes/fast-nuaa.yaml --model.name stack"):
        load("stack")
    assert {"stack", "dog"} <= set(list_entrants(None, {}))
    ready, (missing,) = enter(["top-hat", "stack"], "NUAA-SIRST", {})
    assert (list(ready), missing.name) == (["top-hat"], "stack")
    assert missing.reason.startswith("no weights: train with ismallnet train recipes/fast-nuaa.yaml")


def test_weights_whose_plugin_is_not_installed_name_its_distribution(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    checkpoint.save_model(run, create_model("stack", width=4), name="stack", options={"width": 4})
    detector = load(run, device="cpu")
    assert facts(detector).parameters == 4 * 9 * (1 + 4 * 4) + 5 * 2 * 4 + 5
    assert checkpoint.load_model(run)[1].plugin == "ismallnet-example"
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(example)])
    plugins.forget()
    why = r"weights of 'stack', a network of the distribution ismallnet-example, which is not installed here"
    with pytest.raises(plugins.PluginError, match=why):
        load(run)
    ready, (missing,) = enter(["top-hat", "stack"], "NUAA-SIRST", {"stack": str(run)})
    assert (list(ready), missing.name) == (["top-hat"], "stack")
    assert "ismallnet-example" in missing.reason


@pytest.mark.parametrize("plugin", ["another-distribution", None])
def test_weights_of_another_distribution_are_refused(
    example: Path, tmp_path: Path, plugin: str | None
) -> None:
    """A name of a plugin, with weights of another distribution's network or of one of ours of old."""
    assert example.is_dir()
    checkpoint.save_model(tmp_path / "m", create_model("stack", width=4), name="stack", options={"width": 4})
    stored = json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))
    (tmp_path / "m" / "config.json").write_text(json.dumps(stored | {"plugin": plugin}))
    why = rf"distribution {plugin or 'ismallnet'}, which .* here the name is that of .* ismallnet-example"
    with pytest.raises(plugins.PluginError, match=why):
        checkpoint.load_model(tmp_path / "m")


def test_weights_of_a_plugin_with_a_name_of_ours_are_refused(tmp_path: Path) -> None:
    model = create_model("tbcnet", widths=(4, 4))
    meta = {"widths": (4, 4)}
    checkpoint.save_model(tmp_path / "m", model, name="tbcnet", options=meta)
    stored = json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))
    (tmp_path / "m" / "config.json").write_text(json.dumps(stored | {"plugin": "somebody"}))
    with pytest.raises(plugins.PluginError, match="of the distribution somebody, which is not installed"):
        checkpoint.load_model(tmp_path / "m")


def test_weights_of_ours_name_no_distribution(tmp_path: Path) -> None:
    model = create_model("tbcnet", widths=(4, 4))
    checkpoint.save_model(tmp_path / "m", model, name="tbcnet", options={"widths": (4, 4)})
    assert checkpoint.load_model(tmp_path / "m")[1].plugin is None
    assert "plugin" not in json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))


# --- bad ones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "every", "find", "ours"),
    [
        (plugins.FILTERS, all_filters, find_filter, FILTERS),
        (plugins.MODELS, all_models, find_model, MODELS),
    ],
)
def test_broken_plugin_is_warned_of_by_name_and_does_not_break_the_others(
    install: Install,
    group: str,
    every: Callable[[], Mapping[str, object]],
    find: Callable[[str], object],
    ours: Mapping[str, object],
) -> None:
    install("half-done", {group: {"broken": "no_such_module:ROW", "wrong": "json:dumps"}})
    with warnings.catch_warnings(record=True) as caught:
        assert list(every()) == list(ours)
    broken, wrong = sorted(str(each.message) for each in caught)
    assert f"'broken' ({group}, no_such_module:ROW) of half-done cannot be imported" in broken
    assert f"'wrong' ({group}, json:dumps) of half-done is function" in wrong
    assert load("top-hat").name == "top-hat"
    assert load("ismallnet-s", device="cpu").name == "ismallnet-s"
    with pytest.raises(plugins.PluginError, match=r"'wrong' .* is function; it has to be an .*Entry"):
        find("wrong")
    ready, missing = enter(["broken", "lcm"], "NUAA-SIRST", {})
    assert (list(ready), [each.name for each in missing]) == (["lcm"], ["broken"])


def test_network_that_cannot_be_built_is_left_out_of_the_list(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    site = install("half-done", {plugins.MODELS: {"half": "ismallnet_half:MODEL"}})
    lines = ("from ismallnet.models import Entry", "def build():", " raise KeyError('kernel')")
    (site / "ismallnet_half.py").write_text("\n".join((*lines, "MODEL = Entry(build, 'half', 'none')")))
    assert main(["list"]) == 0
    printed = capsys.readouterr()
    assert "ismallnet-s " in printed.out
    assert "half of half-done cannot be built: KeyError('kernel')" in " ".join(printed.err.split())


@pytest.mark.parametrize("group", [plugins.FILTERS, plugins.MODELS])
@pytest.mark.parametrize("name", ["top-hat", "dnanet", "ismallnet-s"])
def test_name_of_ours_is_refused_in_both_groups(
    install: Install, group: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install("copycat", {group: {name: "anything:ROW"}})
    with pytest.raises(ValueError, match="of copycat has a name that ismallnet itself has"):
        load(name)
    assert main(["list"]) == 2
    assert "copycat" in capsys.readouterr().err


@pytest.mark.parametrize("names", [list_filters, list_models])
def test_two_plugins_of_one_name_are_refused_with_both(
    install: Install, names: Callable[[], list[str]]
) -> None:
    group = plugins.FILTERS if names is list_filters else plugins.MODELS
    install("first", {group: {"dog": "one:ROW"}})
    install("second", {group: {"dog": "two:ROW"}})
    with pytest.raises(ValueError, match=r"(first|second) and .*(first|second) clash"):
        names()


@pytest.mark.parametrize("names", [list_filters, list_models])
def test_filter_and_network_of_one_name_are_refused(install: Install, names: Callable[[], list[str]]) -> None:
    install("first", {plugins.FILTERS: {"dog": "one:FILTER"}, plugins.MODELS: {"dog": "two:MODEL"}})
    with pytest.raises(ValueError, match="clash"):
        names()


def test_one_distribution_found_twice_is_no_clash(install: Install) -> None:
    install("first", {plugins.FILTERS: {"dog": "one:FILTER"}})
    install("again", {plugins.FILTERS: {"dog": "one:FILTER"}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list_filters()[-1] == "dog"


def test_plugin_module_of_the_package_is_imported_without_arrays() -> None:
    code = "import ismallnet.plugins, sys; sys.exit(bool({'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
