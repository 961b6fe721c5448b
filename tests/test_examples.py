"""The scripts in examples/ do what their first lines say, on data made here."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tiny
from ismallnet import checkpoint, config
from ismallnet.filters import list_filters
from ismallnet.models import create_model
from ismallnet.train import train

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch, **replaced: object) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for key, value in replaced.items():
        monkeypatch.setattr(module, key, value)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    module.main()
    return module


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_seed_spread_stores_a_row_a_seed_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny.write_images(tmp_path / "data")
    config.dump(tiny.recipe(root), tmp_path / "recipe.yaml")
    for seeds in ([0], [0, 1]):
        places = ("--runs", tmp_path / "runs", "--out", tmp_path / "seeds.csv")
        run(
            "seed_spread", tmp_path / "recipe.yaml", "--root", root, "--steps", 3, *places, "--seeds", *seeds,
            monkeypatch=monkeypatch,
        )  # fmt: skip
    assert [(row["seed"], row["steps"]) for row in rows(tmp_path / "seeds.csv")] == [("0", "3"), ("1", "3")]


def test_padding_compares_what_is_far_from_the_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "padding.csv"
    run(
        "padding", "ismallnet-s", "--data", "folder", "--root", EXAMPLES / "scenes", "--images", 2,
        "--out", table,
        monkeypatch=monkeypatch,
    )  # fmt: skip
    assert [row["cut_px"] for row in rows(table)] == ["1", "8", "15"]
    assert all(0 <= float(row["mean"]) <= float(row["largest"]) <= 1 for row in rows(table))


def test_bundled_weights_are_the_last_of_the_run_and_foreign_reports_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = create_model(tiny.MODEL["name"], **tiny.MODEL["options"])
    checkpoint.save_model(
        tmp_path / "run" / "last", network, name=tiny.MODEL["name"], options=tiny.MODEL["options"]
    )
    places = {"WEIGHTS": tmp_path / "weights", "README": tmp_path / "README.md"}
    (tmp_path / "weights").mkdir()
    run("bundle_weights", tmp_path / "run", "small", monkeypatch=monkeypatch, **places)
    back, _ = checkpoint.load_model(tmp_path / "weights" / "small")
    assert sum(p.numel() for p in back.parameters()) == sum(p.numel() for p in network.parameters())
    report = {
        "provenance": {"weights_sha256": "another"},
        "data": "NUAA-SIRST",
        "protocol": {"name": "standard"},
    }
    (tmp_path / "reports" / "a").mkdir(parents=True)
    (tmp_path / "reports" / "a" / "report.json").write_text(json.dumps(report))
    with pytest.raises(SystemExit, match="other weights"):
        run(
            "bundle_weights", tmp_path / "run", "small", "--reports", tmp_path / "reports",
            monkeypatch=monkeypatch, **places,
        )  # fmt: skip
    (tmp_path / "table1.csv").write_text("detector,weights_sha256\nsmall,another\n")
    with pytest.raises(SystemExit, match="no row of the weights"):
        run(
            "bundle_weights", tmp_path / "run", "small", "--table", tmp_path / "table1.csv",
            monkeypatch=monkeypatch, **places,
        )  # fmt: skip


def test_views_are_judged_on_the_fold_that_was_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny.write_images(tmp_path / "data")
    train(tiny.recipe(root, fold=0), out=tmp_path / "run")
    arguments = (tmp_path / "run", "--root", root, "--data", "folder", "--protocols", "standard")
    for views in ([1], [1, 2]):
        table = ("--out", tmp_path / "views.csv", "--views", *views)
        run("views", *arguments, *table, monkeypatch=monkeypatch)
    found = rows(tmp_path / "views.csv")
    assert [row["views"] for row in found] == ["1", "1", "2", "2"]
    assert [row["confirm"] for row in found] == ["False", "True", "False", "True"]
    assert found[0]["n"] == found[1]["n"] != "20"  # a fold, not the list
    with pytest.raises(SystemExit, match=r"was trained with data\.fold 0, not 1"):
        run("views", *arguments, "--fold", 1, monkeypatch=monkeypatch)


def test_bundled_calibrations_are_one_a_filter_and_those_of_another_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k, name in enumerate(list_filters()):
        (tmp_path / name).mkdir()
        (tmp_path / name / "calibration.json").write_text(json.dumps({"detector": name, "value": k}))
    bundle = tmp_path / "bundle.json"
    run("bundle_calibrations", tmp_path, monkeypatch=monkeypatch, CALIBRATION=bundle)
    assert [each["value"] for each in json.loads(bundle.read_text()).values()] == [0, 1, 2, 3, 4, 5]
    (tmp_path / "lcm" / "calibration.json").write_text(json.dumps({"detector": "tllcm", "value": 1}))
    with pytest.raises(SystemExit, match="lcm is of another detector"):
        run("bundle_calibrations", tmp_path, monkeypatch=monkeypatch, CALIBRATION=bundle)
