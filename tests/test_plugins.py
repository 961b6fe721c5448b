"""Detectors from outside: an entry point is enough, and a bad one hurts no other."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ismallnet import plugins
from ismallnet.benchmark.entrants import enter
from ismallnet.cli import main
from ismallnet.detector import load
from ismallnet.filters import FILTERS, NotCalibratedError, all_filters, bundled_k, find_filter, list_filters

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "plugin"
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with entry points on the path as an installer would, its metadata beside it."""

    def install(name: str, group: str = plugins.FILTERS, /, **points: str) -> None:
        site = tmp_path / name
        metadata = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
        lines = [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(site))
        plugins.forget()

    yield install
    sys.modules.pop("ismallnet_dog", None)
    monkeypatch.undo()
    plugins.forget()


@pytest.fixture
def example(install: Install, tmp_path: Path) -> None:
    """The plugin of examples/, with the entry points of its pyproject.toml."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))["project"]
    install(project["name"], **project["entry-points"][plugins.FILTERS])
    shutil.copy(PLUGIN / "ismallnet_dog.py", tmp_path / project["name"])


@pytest.mark.usefixtures("example")
def test_example_is_listed_without_being_imported() -> None:
    assert list_filters() == [*FILTERS, "dog"]
    assert "ismallnet_dog" not in sys.modules


@pytest.mark.usefixtures("example")
def test_example_detects_like_a_filter_of_ours() -> None:
    image = np.full((64, 64), 0.25, np.float32)
    image[20:23, 40:43] = 0.75
    (target,) = load("dog", k=8)(image).targets
    assert (target.x, target.y) == pytest.approx((41, 21), abs=0.01)


@pytest.mark.usefixtures("example")
def test_example_runs_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = str(ROOT / "examples" / "scenes" / "images" / "cloud_thin.png")
    assert main(["detect", scenes, "--model", "dog", "--k", "8", "--out", "found"]) == 0
    assert main(["list"]) == 0
    assert "differences of Gaussians" in capsys.readouterr().out


@pytest.mark.usefixtures("example")
def test_filter_from_outside_without_k_says_how_to_choose_one() -> None:
    with pytest.raises(NotCalibratedError, match="ismallnet calibrate dog"):
        bundled_k("dog")
    ready, missing = enter(["top-hat", "dog"], "NUAA-SIRST", {})
    assert (list(ready), [each.name for each in missing]) == (["top-hat"], ["dog"])


def test_broken_plugin_is_warned_of_by_name_and_does_not_break_the_others(install: Install) -> None:
    install("half-done", broken="no_such_module:FILTER", wrong="json:dumps")
    with warnings.catch_warnings(record=True) as caught:
        assert list(all_filters()) == list(FILTERS)
    broken, wrong = sorted(str(each.message) for each in caught)
    assert "'broken' (ismallnet.filters, no_such_module:FILTER) of half-done cannot be imported" in broken
    assert "'wrong' (ismallnet.filters, json:dumps) of half-done is function" in wrong
    assert load("top-hat").name == "top-hat"
    with pytest.raises(plugins.PluginError, match=r"'wrong' .* is function; it has to be an .*Entry"):
        find_filter("wrong")
    ready, missing = enter(["broken", "lcm"], "NUAA-SIRST", {})
    assert (list(ready), [each.name for each in missing]) == (["lcm"], ["broken"])


def test_name_of_ours_is_refused(install: Install) -> None:
    install("copycat", **{"top-hat": "anything:FILTER"})
    with pytest.raises(ValueError, match="of copycat has a name that ismallnet itself has"):
        load("top-hat")


def test_two_plugins_of_one_name_are_refused_with_both(install: Install) -> None:
    install("first", dog="one:FILTER")
    install("second", dog="two:FILTER")
    with pytest.raises(ValueError, match=r"(first|second) and .*(first|second) clash"):
        list_filters()


def test_filter_and_network_of_one_name_are_refused(install: Install) -> None:
    install("first", dog="one:FILTER")
    install("second", plugins.MODELS, dog="two:MODEL")
    with pytest.raises(ValueError, match="clash"):
        list_filters()


def test_one_distribution_found_twice_is_no_clash(install: Install) -> None:
    install("first", dog="one:FILTER")
    install("again", dog="one:FILTER")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list_filters()[-1] == "dog"


def test_plugin_module_of_the_package_is_imported_without_arrays() -> None:
    code = "import ismallnet.plugins, sys; sys.exit(bool({'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
