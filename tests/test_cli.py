"""The command line, on a real narrow network and small scenes made here."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import yaml

from ismallnet.cli import command_parser, main
from ismallnet.data.clutter import Clutter

ROOT = Path(__file__).parents[1]
DOCUMENTED = [
    line
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for block in re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", document.read_text("utf-8"), re.S | re.M)
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"(\$ )?ismallnet ", line)
]
"""Commands in the code blocks of the documents."""
NARROW = {"widths": [8, 8, 8, 8, 8], "fusion_width": 8}
LISTED = [
    "ismallnet",
    "ismallnet-unet",
    "ismallnet-unet++",
    "ismallnet-dna",
    "ismallnet-single",
    "ismallnet-paper",
    "ismallnet-s",
    "top-hat",
    "max-median",
    "lcm",
    "tllcm",
    "ipi",
    "ript",
    "acm",
    "alcnet",
    "dnanet",
    "mdvsfa",
    "tbcnet",
]
"""The detectors that ismallnet has at least."""
Ended = tuple[int, str, str]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Ended]:
    """Run a command here, in an empty folder: its status, standard output and error, spaces folded."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ended:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out, " ".join(err.split())

    return run


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of the generic layout: eight 48×64 scenes with one bright 3×3 target each."""
    root = tmp_path_factory.mktemp("scenes")
    for name in ("images", "masks"):
        (root / name).mkdir()
    generator = np.random.default_rng(7)
    for index in range(8):
        image = generator.normal(90, 6, (48, 64))
        mask = np.zeros((48, 64), np.uint8)
        y, x = generator.integers(4, 40, 2)
        mask[y : y + 3, x : x + 3] = 255
        image[mask > 0] += 120
        cv2.imwrite(str(root / "images" / f"{index}.png"), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(root / "masks" / f"{index}.png"), mask)
    (root / "train.txt").write_text("0\n1\n2\n3\n4\n")
    (root / "test.txt").write_text("5\n6\n7\n")
    return root


@pytest.fixture(scope="session")
def recipe(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of the narrow network on the scenes."""
    path = tmp_path_factory.mktemp("recipe") / "narrow.yaml"
    values = {
        "model": {"name": "ismallnet-s", "options": NARROW},
        "data": {"root": str(scenes), "sets": [{"name": "folder"}]},
        "training": {"steps": 3, "stages": [{"sizes": [32], "batch": 2}], "precision": "float32"},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def trained(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `ismallnet train`."""
    out = tmp_path_factory.mktemp("runs") / "narrow"
    assert main(["train", str(recipe), "--out", str(out)]) == 0
    return out


# --- the program --------------------------------------------------------------------------------------


def test_help_names_every_verb(run: Callable[..., Ended]) -> None:
    status, out, _ = run("--help")
    assert status == 0
    verbs = ("detect", "train", "evaluate", "calibrate", "labels", "list", "data", "benchmark")
    assert all(verb in out for verb in verbs)


def test_help_is_instant_since_it_loads_nothing_heavy() -> None:
    code = """
import atexit, sys, time
from ismallnet.cli import main
atexit.register(lambda: print(time.process_time(), *sys.modules))
main(["--help"])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds, *modules = ended.stdout.splitlines()[-1].split()
    assert not {"torch", "numpy", "cv2", "rich", "yaml", "jsonargparse"} & set(modules)
    assert float(seconds) < 0.5


def test_module_is_the_command() -> None:
    ended = subprocess.run([sys.executable, "-m", "ismallnet", "--version"], capture_output=True, text=True)
    assert ended.stdout.startswith("ismallnet ")
    assert ended.returncode == 0


@pytest.mark.parametrize("line", DOCUMENTED)
def test_documented_command_is_understood(line: str) -> None:
    words = shlex.split(line.removeprefix("$ "), comments=True)
    if not {"--help", "--version"} & set(words):
        assert command_parser().parse_args(words[1:]).run


def test_unknown_option_is_a_usage_error_that_names_the_nearest(run: Callable[..., Ended]) -> None:
    status, _, err = run("detect", "x.png", "--treshold", "0.5")
    assert status == 2
    assert "'--treshold'; did you mean '--threshold'?" in err


def test_abbreviated_options_are_refused(run: Callable[..., Ended], recipe: Path) -> None:
    assert run("detect", "x.png", "--thresh", "0.5")[0] == 2
    assert run("train", recipe, "--optimizer.l", "0.5", "--print_config")[0] == 2


def test_our_errors_are_one_line_without_traceback(run: Callable[..., Ended]) -> None:
    status, out, err = run("train", "absent.yaml")
    assert (status, out) == (2, "")
    assert err.startswith("error: no recipe at absent.yaml")
    assert "Traceback" not in err


def test_debug_raises_what_went_wrong() -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        main(["train", "absent.yaml", "--debug"])


def test_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m ismallnet train --help | head -1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert ended.stdout.endswith("\n0\n")
    assert "Traceback" not in ended.stderr


def test_list_shows_every_model_its_parameters_and_weights(run: Callable[..., Ended]) -> None:
    status, out, _ = run("list")
    assert status == 0
    first = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert {name: first.count(name) for name in LISTED} == dict.fromkeys(LISTED, 1)
    assert "9,687,821" in out  # systems.md, section 12: one input channel
    assert "recipes/fast-joint.yaml" in out


def test_list_shows_the_form_that_weights_are_of(
    run: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ismallnet import checkpoint
    from ismallnet.models import create_model

    options = {"widths": [4, 4], "prior": 0.2}
    model = create_model("tbcnet", **options)
    checkpoint.save_model(tmp_path / "tbcnet", model, name="tbcnet", options=options)
    monkeypatch.setattr("ismallnet.catalogue.shelves", lambda: [tmp_path])
    monkeypatch.setenv("COLUMNS", "400")  # a cell is not wrapped
    row = next(line for line in run("list")[1].splitlines() if line.split()[:1] == ["tbcnet"])
    assert f" {sum(p.numel() for p in model.parameters()):,} " in row
    assert f"{tmp_path / 'tbcnet'}, tbcnet(widths=[4, 4], prior=0.2)" in row


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "tbcnet"),
        ('{"model": "tbcnet", "options": {"depth": 1}}', "left out: tbcnet of .*unknown option"),
    ],
)
def test_list_goes_on_past_weights_that_are_damaged(
    run: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, said: str
) -> None:
    (tmp_path / "tbcnet").mkdir()
    (tmp_path / "tbcnet" / "config.json").write_text(config)
    monkeypatch.setattr("ismallnet.catalogue.shelves", lambda: [tmp_path])
    status, out, err = run("list")
    assert status == 0
    assert re.search(said, " ".join(err.split()))
    assert "\n ript " in out


def test_list_shows_every_filter_which_needs_no_weights(run: Callable[..., Ended]) -> None:
    from ismallnet.filters import list_filters

    lines = [line.split() for line in run("list")[1].splitlines()]
    rows = {words[0]: words[1:5] for words in lines if words}
    filters = list_filters()
    assert [rows[name] for name in filters] == [["-", "none", "needed", "-"]] * len(filters)


# --- train --------------------------------------------------------------------------------------------


def test_positional_recipe_and_config_mean_the_same(run: Callable[..., Ended], recipe: Path) -> None:
    positional = run("train", recipe, "--print_config")
    assert positional[0] == 0
    assert positional == run("train", "--config", recipe, "--print_config")
    assert run("train", recipe, "--config", recipe)[0] == 2


def test_print_config_is_a_recipe_that_gives_itself(
    run: Callable[..., Ended], recipe: Path, tmp_path: Path
) -> None:
    printed = run("train", recipe, "--print_config")[1]
    (tmp_path / "printed.yaml").write_text(printed)
    assert run("train", tmp_path / "printed.yaml", "--print_config")[1] == printed


@pytest.mark.parametrize("place", ["before", "after"])
def test_keys_on_the_command_line_go_before_the_file(
    run: Callable[..., Ended], recipe: Path, place: str
) -> None:
    keys = [
        "--optimizer.lr",
        "0.1",
        "--labels=ldf",
        "--training.compile",
        "true",
        "--model.options.patch",
        "1",
        "--training.stages",
        "[{sizes: [64]}]",
        "--data.fold",
        "null",
    ]
    arguments = [*keys, recipe] if place == "before" else [recipe, *keys]
    values = yaml.safe_load(run("train", *arguments, "--print_config")[1])
    assert values["optimizer"]["lr"] == 0.1
    assert values["labels"] == "ldf"
    assert values["training"]["compile"] is True
    assert values["model"]["options"] == NARROW | {"patch": 1}
    stage = {"sizes": [64], "batch": 32, "fraction": 1.0, "batch_norm": "live"}
    assert values["training"]["stages"] == [stage]
    assert values["training"]["steps"] == 3


def test_unknown_key_on_the_command_line_names_the_nearest(run: Callable[..., Ended], recipe: Path) -> None:
    status, _, err = run("train", recipe, "--optimizer.lrr", "0.1")
    assert status == 2
    assert "did you mean '--optimizer.lr'?" in err


@pytest.mark.parametrize("value", ["fast", "-1"])
def test_wrong_value_on_the_command_line_is_refused_by_its_key(
    run: Callable[..., Ended], recipe: Path, value: str
) -> None:
    status, _, err = run("train", recipe, "--optimizer.lr", value, "--print_config")
    assert status == 2
    assert "error: " in err
    assert "optimizer.lr" in err.partition("error: ")[2]


def test_unknown_key_in_the_file_names_the_nearest(run: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("optimizer:\n  lrr: 0.1\n")
    status, _, err = run("train", tmp_path / "typo.yaml")
    assert status == 2
    assert "did you mean 'lr'?" in err


def test_help_of_train_explains_the_keys_of_the_recipe(run: Callable[..., Ended]) -> None:
    out = " ".join(run("train", "--help")[1].split())
    assert "--optimizer.lr LR Peak learning rate. (type: float, default: 0.002)" in out


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [
        ("alcnet", "{sizes: [32], batch: 2}", "sizes: got [32]; alcnet takes crops of at least 72×72"),
        ("acm", "{sizes: [32], batch: 1}", "batch: got 1; on crops of 32×32 acm needs at least 2 images"),
    ],
)
def test_stage_too_small_for_the_network_is_refused_before_the_runs_folder(
    run: Callable[..., Ended], scenes: Path, tmp_path: Path, name: str, stage: str, message: str
) -> None:
    data = ("--data.root", scenes, "--data.sets", "[{name: folder}]")
    recipe = ROOT / "recipes" / f"{name}-nuaa.yaml"
    stages = ("--training.stages", f"[{stage}]")
    status, _, err = run("train", recipe, *data, *stages, "--out", tmp_path / "run")
    assert status == 2
    assert f"error: training.stages.{message}" in err
    assert not (tmp_path / "run").exists()


def test_two_stages_are_refused_for_a_network_of_more_heads(
    run: Callable[..., Ended], recipe: Path, tmp_path: Path
) -> None:
    status, _, err = run("train", recipe, "--objective.name", "two-stage", "--out", tmp_path / "run")
    assert status == 2
    assert "ismallnet-s answers with interior, boundary too; leave these out" in err
    assert not (tmp_path / "run").exists()


def test_run_without_recipe_is_refused(run: Callable[..., Ended]) -> None:
    status, _, err = run("train")
    assert status == 2
    assert "ismallnet train RECIPE.yaml" in err


def test_run_is_not_overwritten_and_can_be_resumed(
    run: Callable[..., Ended], recipe: Path, trained: Path
) -> None:
    assert run("train", recipe, "--out", trained)[0] == 2
    status, out, _ = run("train", "--out", trained, "--resume")
    assert status == 0
    assert "finished after 3 steps" in out


# --- detect -------------------------------------------------------------------------------------------


def test_detect_writes_what_was_asked_for(
    run: Callable[..., Ended], scenes: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found"
    status, text, _ = run(
        "detect", scenes / "images", "--model", trained, "--out", out, "--save", "overlay,mask, csv,json"
    )
    assert status == 0
    assert "in 8 images" in text
    assert len(list((out / "overlay").iterdir())) == len(list((out / "mask").iterdir())) == 8
    assert json.loads((out / "detections.json").read_text())["images"][0]["range"]["rule"] == "8-bit"


def test_threshold_and_range_are_used_and_recorded(
    run: Callable[..., Ended], scenes: Path, trained: Path, tmp_path: Path
) -> None:
    image = scenes / "images" / "0.png"
    arguments = ("detect", image, "--model", trained, "--threshold", "0", "--range", "10", "200")
    assert run(*arguments, "--out", tmp_path / "found")[0] == 0
    found = json.loads((tmp_path / "found" / "detections.json").read_text())["images"][0]
    assert (found["range"]["low"], found["range"]["high"], found["threshold"]) == (10, 200, 0)
    assert [target["area"] for target in found["targets"]] == [48 * 64]  # every score is above 0


def test_views_and_confirmation_are_obeyed_and_recorded(
    run: Callable[..., Ended], scenes: Path, trained: Path, tmp_path: Path
) -> None:
    image = scenes / "images" / "0.png"
    scores = []
    for views, confirm in (("1", False), ("8", False), ("1", True)):
        out = tmp_path / f"{views}-{confirm}"
        arguments = (
            "detect",
            image,
            "--model",
            trained,
            "--save",
            "score,json",
            "--out",
            out,
            "--views",
            views,
            *(["--confirm"] if confirm else []),
        )
        assert run(*arguments)[0] == 0
        head = json.loads((out / "detections.json").read_text())
        assert (head["views"], head["confirm"]) == (int(views), confirm)
        scores.append(next((out / "score").iterdir()).read_bytes())
    assert len(set(scores)) == 3
    assert run("detect", image, "--model", trained, "--out", tmp_path / "3", "--views", "3")[0] == 2


def test_unreadable_file_is_named_the_rest_done_and_the_status_1(
    run: Callable[..., Ended], scenes: Path, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    image = scenes / "images" / "0.png"
    status, _, err = run(
        "detect", tmp_path / "broken.png", image, "--model", trained, "--out", tmp_path / "found"
    )
    assert status == 1
    assert "broken.png" in err
    assert [path.stem for path in (tmp_path / "found").rglob("*.png")] == ["0"]
    with (tmp_path / "found" / "detections.csv").open() as table:
        assert {row["image"] for row in csv.DictReader(table)} <= {str(image)}


def test_output_folder_is_replaced_only_with_force(
    run: Callable[..., Ended], scenes: Path, trained: Path, tmp_path: Path
) -> None:
    arguments = ("detect", scenes / "images" / "0.png", "--model", trained, "--out", tmp_path / "found")
    assert run(*arguments)[0] == 0
    status, _, err = run(*arguments)
    assert status == 2
    assert "--force" in err
    assert run(*arguments, "--force")[0] == 0


def test_missing_image_is_a_usage_error(run: Callable[..., Ended], trained: Path, tmp_path: Path) -> None:
    status, _, err = run("detect", tmp_path / "absent.png", "--model", trained, "--out", tmp_path / "found")
    assert status == 2
    assert "absent.png" in err
    assert not (tmp_path / "found").exists()


def test_model_without_weights_is_refused_with_the_command_that_trains_it(
    run: Callable[..., Ended], scenes: Path
) -> None:
    status, _, err = run("detect", scenes / "images", "--model", "ismallnet-unet++")
    assert status == 2
    assert "ismallnet train recipes/" in err


def test_filter_detects_by_its_bundled_k_or_by_the_one_given(
    run: Callable[..., Ended], scenes: Path, tmp_path: Path
) -> None:
    from ismallnet.filters import bundled_k

    decisions = {}
    for k in (None, 5.5):
        out = tmp_path / f"found-{k}"
        given = () if k is None else ("--k", k)
        status, text, _ = run("detect", scenes / "images", "--model", "top-hat", "--out", out, *given)
        assert status == 0
        assert "in 8 images by top-hat" in text
        decisions[k] = json.loads((out / "detections.json").read_text())["decision"]
    assert decisions == {None: f"Statistical(k={bundled_k('top-hat')})", 5.5: "Statistical(k=5.5)"}


def test_threshold_of_a_filter_and_k_of_a_network_are_refused(
    run: Callable[..., Ended], scenes: Path, trained: Path
) -> None:
    status, _, err = run("detect", scenes / "images", "--model", "top-hat", "--threshold", "0.5")
    assert (status, "give k (--k)" in err) == (2, True)
    status, _, err = run("detect", scenes / "images", "--model", trained, "--k", "5")
    assert (status, "give a threshold (--threshold)" in err) == (2, True)
    status, _, err = run("detect", scenes / "images", "--model", "top-hat", "--k", "5", "--calibration", "x")
    assert (status, "not allowed with argument --k" in err) == (2, True)


# --- evaluate -----------------------------------------------------------------------------------------


def test_evaluate_reports_under_the_protocol(
    run: Callable[..., Ended], scenes: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    out.mkdir()  # an empty folder will do
    arguments = ("evaluate", trained, "--data", "folder", "--root", scenes, "--protocol", "ismallnet")
    status, text, _ = run(*arguments, "--bootstrap", "10", "--out", out, "--curves")
    assert status == 0
    assert "3 images" in text
    report = json.loads((out / "report.json").read_text())
    assert (report["protocol"]["name"], report["n"]) == ("ismallnet", 3)
    assert {"report.md", "per_image.csv"} <= {path.name for path in out.iterdir()}
    assert run(*arguments, "--out", out)[0] == 2  # not overwritten


def test_purpose_of_a_look_at_a_test_list_is_logged(
    run: Callable[..., Ended], scenes: Path, trained: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", trained, "--data", "folder", "--root", scenes, "--bootstrap", "0")
    assert run(*arguments, "--purpose", "a test", "--log", tmp_path)[0] == 0
    with next(tmp_path.glob("*.csv")).open() as log:
        assert [row["purpose"] for row in csv.DictReader(log)] == ["a test"]


def test_look_at_a_test_list_without_a_purpose_is_logged_too(
    run: Callable[..., Ended], scenes: Path, trained: Path
) -> None:
    arguments = ("evaluate", trained, "--data", "folder", "--root", scenes, "--bootstrap", "0")
    assert run(*arguments)[0] == 0
    assert run(*arguments, "--split", "train")[0] == 0  # is none
    with Path("results/test_evaluations.csv").open() as log:
        assert [row["purpose"] for row in csv.DictReader(log)] == ["unstated"]


def test_unknown_protocol_is_refused_with_the_choices(
    run: Callable[..., Ended], scenes: Path, trained: Path
) -> None:
    status, _, err = run("evaluate", trained, "--data", "folder", "--root", scenes, "--protocol", "dna")
    assert status == 2
    assert "standard, ismallnet, dnanet, basicirstd, acm" in err


def test_confirmation_of_a_filter_is_refused(run: Callable[..., Ended], scenes: Path, tmp_path: Path) -> None:
    arguments = ("--confirm", "--out", tmp_path / "found")
    for verb in (
        ("detect", scenes / "images" / "0.png", "--model", "top-hat"),
        ("evaluate", "top-hat", "--data", "folder", "--root", scenes),
    ):
        status, _, err = run(*verb, *arguments)
        assert status != 0
        assert "top-hat is a filter" in err
        assert not (tmp_path / "found").exists()


def test_filter_is_evaluated_with_curves_strata_and_what_it_does_to_clutter(
    run: Callable[..., Ended], scenes: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", "top-hat", "--data", "folder", "--root", scenes, "--split", "train", "--k", "5")
    status, text, _ = run(*arguments, "--bootstrap", "20", "--curves", "--out", tmp_path / "report")
    assert status == 0
    assert all(row in text for row in ("SCR gain", "background suppression", "FROC area", "pixel recall"))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["rule"] == "score > mean + 5 std of the image's own response"
    assert report["rates"]["scr_gain"]["value"] > 0
    assert report["curve_areas"]["roc"] > 0.9


# --- calibrate ----------------------------------------------------------------------------------------


def test_calibration_is_shown_stored_and_used(
    run: Callable[..., Ended], scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "chosen"
    out.mkdir()  # an empty folder will do
    status, text, _ = run("calibrate", "top-hat", "--data", "folder", "--root", scenes, "--out", out)
    assert status == 0
    stored = json.loads((out / "calibration.json").read_text())
    assert f"k = {stored['value']:g}, by iou" in text
    assert {path.name for path in out.iterdir()} == {"calibration.json", "sweep.csv", "sweep.png"}
    evaluated = ("--data", "folder", "--root", scenes, "--split", "train", "--calibration", out)
    report = run("evaluate", "top-hat", *evaluated, "--bootstrap", "0", "--out", tmp_path / "report")
    assert report[0] == 0
    rates = json.loads((tmp_path / "report" / "report.json").read_text())["rates"]
    assert rates["iou"]["value"] == stored["rates"]["iou"]
    image = scenes / "images" / "0.png"
    assert run("detect", image, "--model", "top-hat", "--calibration", out / "calibration.json")[0] == 0
    status, _, err = run("detect", image, "--model", "lcm", "--calibration", out, "--out", tmp_path / "other")
    assert (status, "is for top-hat" in err) == (2, True)
    assert run("calibrate", "top-hat", "--data", "folder", "--root", scenes, "--out", out)[0] == 2  # kept


def test_network_is_calibrated_by_its_threshold(
    run: Callable[..., Ended], scenes: Path, trained: Path
) -> None:
    arguments = ("calibrate", trained, "--data", "folder", "--root", scenes)
    assert run(*arguments, "--criterion", "f1")[0] == 0
    stored = json.loads(Path("calibration/calibration.json").read_text())
    assert (stored["variable"], stored["criterion"]) == ("threshold", "f1")
    assert run("detect", scenes / "images", "--model", trained, "--calibration", "calibration")[0] == 0
    found = json.loads(Path("detections/detections.json").read_text())
    assert found["decision"] == f"Fixed(value={stored['value']})"
    assert found["weights_sha256"] == stored["weights_sha256"]


def test_budget_of_false_alarms_is_met_and_stands_for_the_criterion(
    run: Callable[..., Ended], scenes: Path
) -> None:
    arguments = ("calibrate", "top-hat", "--data", "folder", "--root", scenes)
    assert run(*arguments, "--fa", "10e-6")[0] == 0
    stored = json.loads(Path("calibration/calibration.json").read_text())
    assert stored["criterion"] == "fa <= 1e-05"
    assert stored["rates"]["fa"] <= 1e-5
    status, _, err = run(*arguments, "--fa", "10e-6", "--criterion", "f1", "--force")
    assert (status, "not allowed with argument --fa" in err) == (2, True)


def test_calibration_on_a_test_list_is_refused(run: Callable[..., Ended], scenes: Path) -> None:
    arguments = ("calibrate", "top-hat", "--data", "folder", "--root", scenes)
    status, _, err = run(*arguments, "--split", "test")
    assert (status, "folder test is a test list" in err) == (2, True)
    assert not Path("calibration").exists()


# --- labels -------------------------------------------------------------------------------------------


def test_labels_writes_three_pictures_a_mask(run: Callable[..., Ended], scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    status, text, _ = run("labels", scenes / "masks", "--out", out, "--recipe", "ldf")
    assert status == 0
    assert "8 masks" in text
    assert len(list(out.iterdir())) == 24
    mask = cv2.imread(str(scenes / "masks" / "0.png"), cv2.IMREAD_UNCHANGED)
    maps = [cv2.imread(str(out / f"0_{kind}.png"), cv2.IMREAD_UNCHANGED) for kind in ("interior", "boundary")]
    assert (maps[0] + maps[1] == mask).all()
    assert run("labels", scenes / "masks", "--out", out)[0] == 2  # not overwritten


def test_labels_names_a_broken_mask_and_does_the_rest(
    run: Callable[..., Ended], scenes: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"")
    status, _, err = run("labels", tmp_path / "broken.png", scenes / "masks", "--out", tmp_path / "labels")
    assert status == 1
    assert err == f"error: {tmp_path / 'broken.png'}: the file is empty (0 bytes)"
    assert len(list((tmp_path / "labels").rglob("*.png"))) == 24


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="no file that opens and cannot be read")
def test_labels_names_a_mask_that_the_system_does_not_read_and_does_the_rest(
    run: Callable[..., Ended], scenes: Path, tmp_path: Path
) -> None:
    (tmp_path / "locked.png").symlink_to("/proc/self/mem")  # root reads whatever lacks a permission only
    status, _, err = run("labels", tmp_path / "locked.png", scenes / "masks", "--out", tmp_path / "labels")
    assert status == 1
    assert err.startswith(f"error: {tmp_path / 'locked.png'}: ")
    assert len(list((tmp_path / "labels").rglob("*.png"))) == 24


# --- data ---------------------------------------------------------------------------------------------


def test_check_of_a_sound_data_set_ends_with_0(run: Callable[..., Ended], scenes: Path) -> None:
    status, out, _ = run("data", "check", scenes)
    assert status == 0
    assert "problem" not in out
    fingerprint = hashlib.sha256(b"5\n6\n7").hexdigest()  # of the test list; the table may fold it
    assert fingerprint in "".join(out.split())


def test_check_of_a_broken_data_set_ends_with_1(
    run: Callable[..., Ended], scenes: Path, tmp_path: Path
) -> None:
    subprocess.run(["cp", "-r", scenes, tmp_path / "broken"], check=True)
    (tmp_path / "broken" / "masks" / "3.png").unlink()
    status, out, _ = run("data", "check", tmp_path / "broken")
    assert status == 1
    assert "problem" in out


def test_check_of_a_pack_says_what_to_give(run: Callable[..., Ended], scenes: Path, tmp_path: Path) -> None:
    assert run("data", "pack", scenes, "--out", tmp_path / "all.pack")[0] == 0
    status, _, err = run("data", "check", tmp_path / "all.pack")
    assert (status, "give the folder that it was made of" in err) == (2, True)


def test_packed_data_set_is_evaluated_like_the_folder(
    run: Callable[..., Ended], scenes: Path, trained: Path, tmp_path: Path
) -> None:
    assert run("data", "pack", scenes, "--out", tmp_path / "all.pack")[0] == 0
    reports = []
    for root in (scenes, tmp_path / "all.pack"):
        arguments = ("evaluate", trained, "--data", "folder", "--root", root, "--bootstrap", "0")
        status, out, _ = run(*arguments)
        assert status == 0
        reports.append(out)
    assert reports[0] == reports[1]


def test_synthetic_scenes_are_a_sound_data_set(run: Callable[..., Ended], tmp_path: Path) -> None:
    made = run("data", "synth", tmp_path / "made", "--count", 3, "--height", 64, "--width", 96, "--bits", 16)
    assert made[0] == 0
    images = [
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (tmp_path / "made" / "images").iterdir()
    ]
    assert [(image.shape, image.dtype) for image in images] == 3 * [((64, 96), np.uint16)]
    assert run("data", "check", tmp_path / "made")[0] == 0


def test_format_and_clutter_of_synthetic_scenes(run: Callable[..., Ended], tmp_path: Path) -> None:
    size = ("--count", 3, "--height", 64, "--width", 96)
    made = run("data", "synth", tmp_path / "made", *size, "--format", "tiff", "--clutter", "sea", "terrain")
    assert made[0] == 0
    assert {path.suffix for path in (tmp_path / "made" / "images").iterdir()} == {".tiff"}
    text = (tmp_path / "made" / "scenes.json").read_text()
    assert ["sea" in text, "terrain" in text, "cloud" in text] == [True, True, False]
    assert run("data", "synth", tmp_path / "all", *size)[0] == 0
    text = (tmp_path / "all" / "scenes.json").read_text()
    assert all(kind in text for kind in get_args(Clutter))


@pytest.mark.parametrize("word", ["127", "half"])
def test_detect_refuses_a_tile_that_is_none(run: Callable[..., Ended], word: str) -> None:
    status, _, err = run("detect", "x.png", "--tile", word)
    assert status == 2
    assert f"'{word}'; give auto, off, or the side of a tile in pixels, at least 128" in err


def test_detect_cuts_as_it_is_told(run: Callable[..., Ended]) -> None:
    """IPI takes a tile for an image of its own: its map shows whether there were tiles."""
    random = np.random.default_rng(0)
    image = cv2.GaussianBlur(random.integers(0, 256, (100, 140), np.uint8), (0, 0), 2)
    image[30:33, 40:43] = image[60:63, 110:113] = 255
    cv2.imwrite("x.png", image)

    def score(tile: str) -> np.ndarray:
        words = ("--model", "ipi", "--tile", tile, "--save", "score", "--out", tile)
        assert run("detect", "x.png", *words)[0] == 0
        return cv2.imread(f"{tile}/score/x.tif", cv2.IMREAD_UNCHANGED)

    whole = score("off")
    np.testing.assert_array_equal(score("auto"), whole)
    np.testing.assert_array_equal(score("140"), whole)
    assert (score("128") != whole).any()


def test_data_retile_writes_a_file_that_is_read_by_rows(run: Callable[..., Ended]) -> None:
    tifffile = pytest.importorskip("tifffile")
    image = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)
    cv2.imwrite("x.png", image)
    assert run("data", "retile", "x.png", "tiled.tif")[0] == 0
    np.testing.assert_array_equal(tifffile.imread("tiled.tif"), image)
    status, _, err = run("data", "retile", "x.png", "tiled.tif")
    assert status == 2
    assert "tiled.tif exists" in err
