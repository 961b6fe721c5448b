"""Calibration: what is chosen, on what, and for which detector; cases that can be worked out by hand."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ismallnet import checkpoint, data
from ismallnet.calibrate import RATES, THRESHOLDS, K, calibrate, write_calibration
from ismallnet.data import Dataset
from ismallnet.detector import Detector, load
from ismallnet.evaluate import evaluate
from ismallnet.models import create_model
from ismallnet.rules import Fixed, Statistical
from ismallnet.types import Sample

Plane = NDArray[np.uint8]


def dataset(images: Sequence[tuple[Plane, Plane]], split: str = "train", name: str = "toy") -> Dataset:
    """A data set in memory, of images and masks."""
    samples = {str(i): Sample(str(i), image, mask > 0) for i, (image, mask) in enumerate(images)}
    return Dataset(name, Path(), split, tuple(samples), samples.__getitem__)


def image(**pixels: int) -> Plane:
    """10×10 px, 0 but for a target at (2, 2) and a false one at (7, 7)."""
    plane = np.zeros((10, 10), np.uint8)
    plane[2, 2], plane[7, 7] = pixels.get("target", 0), pixels.get("false", 0)
    return plane


def two_images() -> Dataset:
    """The first with its target alone, the second with a false one half as bright.

    In the first, mean 0.01 and std 0.1: the target is 9.9 deviations out. In the second (of 250 and 125) the
    mean is 0.015 of the peak, the variance (1.25 - 100 · 0.015²) / 99, the std 0.11135: the target is
    0.985 / 0.11135 = 8.846 deviations out, the false one 0.485 / 0.11135 = 4.356.
    """
    mask = image(target=1)
    return dataset([(image(target=250), mask), (image(target=250, false=125), mask)])


def identity(rule: Fixed | Statistical) -> Detector:
    return Detector(lambda pixels: pixels, name="identity", rule=rule)


# --- what is chosen -----------------------------------------------------------------------------------


def test_k_of_the_highest_iou_is_the_middle_of_equals() -> None:
    result = calibrate(identity(Statistical(1)), [two_images()])
    assert (result.variable, result.criterion, result.value) == ("k", "iou", 6.6)  # of 4.4, 4.5, ..., 8.8
    assert result.rates["iou"] == result.rates["pd"] == 1
    at = {
        k: {name: rates[np.searchsorted(K, k)] for name, rates in result.sweep.items()}
        for k in (2, 4.4, 9, 12)
    }
    assert (at[2]["iou"], at[2]["niou"], at[2]["fa"]) == (pytest.approx(2 / 3), 0.75, 1 / 200)
    assert (at[4.4]["iou"], at[4.4]["fa"]) == (1, 0)
    assert (at[9]["iou"], at[9]["pd"]) == (0.5, 0.5)
    assert (at[12]["iou"], at[12]["pd"], at[12]["fa"]) == (0, 0, 0)
    assert np.isnan(at[12]["precision"])


def test_threshold_of_a_network_is_chosen_likewise() -> None:
    mask = image(target=1)
    result = calibrate(identity(Fixed()), [dataset([(image(target=200, false=150), mask)])])
    assert (result.variable, result.value) == ("threshold", 0.685)  # of 0.590 to 0.780: 150/255 to 200/255
    assert result.values is THRESHOLDS


def test_grids_are_those_that_are_documented() -> None:
    assert (K[0], K[395], K[-1], len(K)) == (0.5, 40, 450, 445)
    assert np.all(np.diff(K) > 0)
    assert (THRESHOLDS[0], THRESHOLDS[-1], len(THRESHOLDS)) == (0.005, 0.995, 199)


def test_criteria_may_disagree() -> None:
    """One dim target of 100 px, and three bright ones of 4 px, each beside a false one half as bright.

    Below 60, pooled IoU is 112 / 124 and nIoU (1 + 3 / 2) / 4; between 100 and 200, 12 / 112 and 3 / 4.
    """
    large, small, false = np.zeros((3, 20, 20), np.uint8)
    large[5:15, 5:15] = small[3:5, 3:5] = false[15:17, 15:17] = 1
    images = dataset([(60 * large, large), *[(200 * small + 100 * false, small)] * 3])
    pooled = calibrate(identity(Fixed()), [images], criterion="iou")
    mean = calibrate(identity(Fixed()), [images], criterion="niou")
    assert (pooled.value, pooled.rates["iou"]) == (0.12, pytest.approx(112 / 124))  # of 0.005 to 0.235
    assert (mean.value, mean.rates["niou"], mean.criterion) == (0.59, 0.75, "niou")  # of 0.395 to 0.780
    assert calibrate(identity(Fixed()), [images], criterion="f1").value == pooled.value


@pytest.mark.parametrize(("budget", "k"), [(0.004, 4.4), (0.0, 4.4), (0.005, 0.5)])
def test_budget_of_false_alarms_takes_the_lowest_k_within_it(budget: float, k: float) -> None:
    result = calibrate(identity(Statistical(1)), [two_images()], fa=budget)
    assert (result.value, result.criterion) == (k, f"fa <= {budget:g}")
    assert result.rates["fa"] <= budget
    assert result.rates["pd"] == 1
    assert result.at_edge == (k == 0.5)


def test_budget_holds_for_every_higher_threshold_too() -> None:
    """A streak of 7 px whose end is brightest: that end alone is 3 px off the centroid, a false alarm."""
    streak, mask = np.zeros((2, 10, 20), np.uint8)
    streak[5, 5:12], mask[5, 5:12] = 100, 1
    streak[5, 11] = 200
    result = calibrate(identity(Fixed()), [dataset([(streak, mask)])], fa=0)
    assert result.sweep["fa"][np.searchsorted(THRESHOLDS, 0.2)] == 0  # the whole streak: matched
    assert result.sweep["fa"][np.searchsorted(THRESHOLDS, 0.6)] == 1 / 200
    assert result.value == 0.785  # the first above 200/255 = 0.784, where nothing is found
    assert result.rates["pd"] == 0


def test_filter_has_a_k_for_every_budget_where_a_lone_pixel_rules_the_image() -> None:
    """One false pixel of 100 × 100 is 99 deviations out; the dim target beside it, 3."""
    image, mask = np.zeros((2, 100, 100), np.uint8)
    image[20, 20], image[60:62, 60:62], mask[60:62, 60:62] = 250, 10, 1
    result = calibrate(identity(Statistical(1)), [dataset([(image, mask)])], fa=0)
    assert result.rates["fa"] == 0
    assert 99 < result.value < 110


def test_budget_that_no_value_stays_within_is_an_error_with_the_least_fa() -> None:
    everywhere = Detector(np.ones_like, name="everywhere", rule=Fixed())
    with pytest.raises(
        ValueError, match=r"stays within 1e-05 at no value up to 0\.995.*least is 1, at 0\.005"
    ):
        calibrate(everywhere, [two_images()], fa=1e-5)


def scenes(seed: int, count: int = 4) -> Dataset:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        clutter = cv2.GaussianBlur(random.uniform(0, 255, (50, 60)), (0, 0), 1.5)
        mask = np.zeros((50, 60), np.uint8)
        y, x = random.integers(5, 40, 2)
        mask[y : y + 3, x : x + 4] = 1
        made.append(((clutter + 40 * mask).clip(0, 255).astype(np.uint8), mask))
    return dataset(made, name=f"scenes {seed}")


@pytest.mark.parametrize("k", [0.5, 1.7, 3.0, 4.2, 9.0])
def test_sweep_has_what_evaluate_has_at_that_k(k: float) -> None:
    images = scenes(1)
    result = calibrate(load("top-hat", k=1), [images])
    report = evaluate(load("top-hat", k=k), images, bootstrap=0)
    for name in RATES:
        expected = report.rates.overall[name].value
        assert result.sweep[name][np.searchsorted(K, k)] == pytest.approx(expected, abs=0, nan_ok=True), name


def test_data_sets_are_pooled_and_reported_one_by_one() -> None:
    both = [scenes(1), scenes(2, count=3)]
    result = calibrate(load("top-hat", k=1), both)
    reports = [evaluate(load("top-hat", k=result.value), each, bootstrap=0) for each in both]
    assert result.rates["iou"] == (reports[0] + reports[1]).rates.overall["iou"].value
    assert [(part.name, part.n, part.rates["iou"]) for part in result.data] == [
        (report.data, len(report.counts), report.rates.overall["iou"].value) for report in reports
    ]


def test_every_image_is_scored_once() -> None:
    seen = []

    def score(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(pixels)
        return pixels

    steps: list[tuple[int, int, str]] = []
    detector = Detector(score, name="counter", rule=Statistical(1))
    calibrate(detector, [two_images()], advance=lambda *step: steps.append(step))
    assert len(seen) == 2
    assert steps == [(1, 2, "0"), (2, 2, "1")]


def test_share_of_a_list_is_drawn_the_same_way_each_time_and_named() -> None:
    images = scenes(1, count=9)
    one, other = (calibrate(load("top-hat", k=1), [images], share=1 / 3) for _ in range(2))
    (part,) = one.data
    assert part.split == "train, 3 of 9 images drawn with seed 0"
    assert part.n == 3
    assert part.split_sha256 != images.split_sha256
    assert one.data == other.data


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["test", "idx_427/test", "trainvaltest", "all"])
def test_test_list_is_refused_before_an_image_is_read(split: str) -> None:
    def read(id: str) -> Sample:
        raise AssertionError(f"{id} was read")

    tested = Dataset("toy", Path(), split, ("a",), read)
    with pytest.raises(ValueError, match=f"toy {split} is a test list, or holds one"):
        calibrate(identity(Fixed()), [two_images(), tested], share=0.5)


def test_public_test_list_is_refused(data_root: Path) -> None:
    with pytest.raises(ValueError, match="NUAA-SIRST test is a test list"):
        calibrate(load("top-hat"), [data.load("NUAA-SIRST", data_root, "test")])


def test_what_makes_no_sense_is_refused() -> None:
    detector, images = identity(Fixed()), two_images()
    with pytest.raises(ValueError, match="one train list or more"):
        calibrate(detector, [])
    with pytest.raises(ValueError, match="each data set once"):
        calibrate(detector, [images, images])
    with pytest.raises(ValueError, match="unknown criterion 'ap'; choose from iou, niou, f1"):
        calibrate(detector, [images], criterion="ap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fraction of all pixels, such as 10e-6; got 10"):
        calibrate(detector, [images], fa=10)
    with pytest.raises(ValueError, match="above 0 and at most 1; got 0"):
        calibrate(detector, [images], share=0)
    with pytest.raises(ValueError, match="no target"):
        calibrate(detector, [dataset([(image(target=9), image())])])


# --- files, and the detector they are for -------------------------------------------------------------


def test_files_hold_the_choice_its_provenance_and_the_sweep(tmp_path: Path) -> None:
    result = calibrate(identity(Statistical(1)), [two_images()])
    paths = write_calibration(result, tmp_path / "out")
    assert [path.name for path in paths] == ["calibration.json", "sweep.csv", "sweep.png"]
    stored = json.loads(paths[0].read_text())
    assert (stored["detector"], stored["value"], stored["criterion"]) == ("identity", 6.6, "iou")
    assert stored["protocol"] == "standard"
    assert stored["tried"] == {"least": 0.5, "largest": 450.0, "count": 445}
    assert stored["data"][0]["split_sha256"] == two_images().split_sha256
    assert {"date", "commit", "hardware"} <= stored["provenance"].keys()
    with paths[1].open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["k"]) for row in rows] == K.tolist()
    assert float(rows[0]["iou"]) == pytest.approx(2 / 3, abs=1e-6)
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    with pytest.raises(FileExistsError, match="--force"):
        write_calibration(result, tmp_path / "out")
    write_calibration(result, tmp_path / "out", force=True)


def test_without_matplotlib_there_is_a_warning_in_place_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = calibrate(identity(Statistical(1)), [two_images()])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # what an absent package looks like
    with pytest.warns(UserWarning, match=r"ismallnet\[plot\]"):
        paths = write_calibration(result, tmp_path / "out")
    assert [path.name for path in paths] == ["calibration.json", "sweep.csv"]


def test_calibration_is_used_by_the_file_or_its_folder(tmp_path: Path) -> None:
    result = calibrate(load("top-hat", k=1), [scenes(1)])
    write_calibration(result, tmp_path / "out")
    for place in (tmp_path / "out", tmp_path / "out" / "calibration.json"):
        assert load("top-hat", calibration=place).rule == Statistical(result.value)


def test_calibration_of_another_filter_is_refused(tmp_path: Path) -> None:
    write_calibration(calibrate(load("top-hat", k=1), [scenes(1)]), tmp_path / "out")
    with pytest.raises(ValueError, match=r"is for top-hat \(no weights\), not for lcm \(no weights\)"):
        load("lcm", calibration=tmp_path / "out")
    with pytest.raises(ValueError, match=r"is for top-hat \(no weights\), not for ismallnet-s \(weights "):
        load("ismallnet-s", calibration=tmp_path / "out", device="cpu")


def test_calibration_of_a_network_is_for_its_weights_wherever_they_are(tmp_path: Path) -> None:
    options = {"widths": (4, 4, 4, 4, 4), "fusion_width": 4}
    for name in ("one", "other"):
        model = create_model("ismallnet-s", **options)
        checkpoint.save_model(tmp_path / name, model, name="ismallnet-s", options=options)
    result = calibrate(load(tmp_path / "one", device="cpu"), [scenes(1)])
    write_calibration(result, tmp_path / "out")
    assert load(tmp_path / "one", calibration=tmp_path / "out", device="cpu").rule == Fixed(result.value)
    (tmp_path / "one").rename(tmp_path / "moved")
    assert load(tmp_path / "moved", calibration=tmp_path / "out", device="cpu").rule == Fixed(result.value)
    with pytest.raises(ValueError, match=r"calibration\.json is for .*weights.*, not for .*other"):
        load(tmp_path / "other", calibration=tmp_path / "out", device="cpu")


def test_absent_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no calibration at .*calibration\.json; make one"):
        load("top-hat", calibration=tmp_path)
    for text in ("no json", "[]", '{"value": 3}'):
        (tmp_path / "foreign.json").write_text(text)
        with pytest.raises(ValueError, match=r"foreign\.json is no file that ismallnet calibrate wrote"):
            load("top-hat", calibration=tmp_path / "foreign.json")
