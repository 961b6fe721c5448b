"""What holds of every filter of the table, as a function and as a detector."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ismallnet.data.synthetic import scene
from ismallnet.detect import detect_files
from ismallnet.detector import Detector, list_detectors, load
from ismallnet.filters import CALIBRATION, FILTERS, bundled_k, create_filter, list_filters
from ismallnet.rules import Statistical

RESULTS = Path(__file__).parents[2] / "results" / "calibration"
EVERY = pytest.mark.parametrize("name", FILTERS)


def levels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth clutter with one bright target of 3×3 px in the middle."""
    field = cv2.GaussianBlur(np.random.default_rng(seed).random((height, width)), (0, 0), 6)
    field = 60 + 80 * (field - field.min()) / max(np.ptp(field), 1e-9)
    field[height // 2 - 1 : height // 2 + 2, width // 2 - 1 : width // 2 + 2] += 90
    return np.rint(field).astype(np.uint8)


def unit(image: NDArray[Any]) -> NDArray[np.float32]:
    return image.astype(np.float32) / np.float32(255)


# --- every filter -------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("level", [0.0, 77 / 255, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (61, 43)])
def test_constant_image_has_no_target(name: str, level: float, shape: tuple[int, int]) -> None:
    for k in (0.0, 3.0):
        found = load(name, k=k)(np.full(shape, level, np.float32))
        assert found.targets == ()
        assert not found.mask.any()


@EVERY
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (26, 27), (49, 30), (61, 59), (75, 101)])
def test_image_of_any_size_gets_a_score_of_that_size(name: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(3).random(shape, dtype=np.float32)
    found = load(name)(image)
    assert found.score.dtype == np.float32
    assert found.score.shape == found.mask.shape == shape
    assert np.isfinite(found.score).all()


@EVERY
def test_filter_takes_an_image_of_its_minimum(name: str) -> None:
    side = FILTERS[name].minimum
    response = FILTERS[name].function(levels(side, side))
    assert response.dtype == np.float64
    assert response.shape == (side, side)


@EVERY
def test_response_is_float64_of_the_images_shape_finite_and_never_negative(name: str) -> None:
    response = FILTERS[name].function(levels(61, 72) - 128.0)
    assert response.dtype == np.float64
    assert response.shape == (61, 72)
    assert np.isfinite(response).all()
    assert response.min() >= 0


@EVERY
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
def test_every_type_of_number_gives_the_response_of_float64(name: str, dtype: type) -> None:
    function, image = FILTERS[name].function, levels(61, 72)
    np.testing.assert_array_equal(function(image.astype(dtype)), function(image.astype(np.float64)))


@EVERY
def test_image_in_any_memory_layout_is_read_right_and_left_as_it_is(name: str) -> None:
    function, whole = FILTERS[name].function, levels(122, 144).astype(np.float64)
    before = whole.copy()
    view = whole[::2, ::-2]
    np.testing.assert_array_equal(function(view), function(view.copy()))
    function(whole)
    np.testing.assert_array_equal(whole, before)


@EVERY
@pytest.mark.parametrize(
    "image",
    [np.zeros(5), np.zeros((4, 4, 3)), np.zeros((0, 4)), np.zeros((4, 4), complex), np.zeros((4, 4), bool)],
)
def test_what_is_not_a_grey_image_is_refused(name: str, image: Any) -> None:
    with pytest.raises(
        ValueError, match=r"takes \(H, W\) integers or floats, .* got .*; turn colours to grey"
    ):
        FILTERS[name].function(image)


@EVERY
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_and_counted(name: str, value: float) -> None:
    image = levels(4, 5).astype(np.float64)
    image[1, 2:4] = value
    with pytest.raises(ValueError, match="finite grey levels; got 2 of 20 pixels"):
        FILTERS[name].function(image)


@EVERY
def test_score_is_the_response_to_the_grey_levels_themselves(name: str) -> None:
    image = levels(70, 90)
    np.testing.assert_array_equal(
        load(name).score(unit(image)), FILTERS[name].function(image).astype(np.float32)
    )


@EVERY
def test_same_image_gives_the_same_score_and_is_left_as_it_is(name: str) -> None:
    image = unit(levels(70, 90))
    before = image.copy()
    one, other = load(name), load(name)
    np.testing.assert_array_equal(one.score(image), other.score(image))
    np.testing.assert_array_equal(image, before)


@EVERY
def test_clear_target_is_found_in_8_and_in_16_bits(name: str, tmp_path: Path) -> None:
    made = scene(4, height=96, width=112, clutter="cloud", targets=("spot",), scr=12.0)
    cv2.imwrite(str(tmp_path / "8.png"), made.to_uint8())
    cv2.imwrite(str(tmp_path / "16.png"), made.to_uint16())
    report = detect_files([tmp_path / "8.png", tmp_path / "16.png"], load(name), out=tmp_path / "out")
    (true,) = made.targets
    for frame in report.frames:
        first = frame.targets[0]
        assert np.hypot(first.x - true.x, first.y - true.y) < 3
    assert [frame.rule for frame in report.frames] == ["8-bit", "percentile"]


@pytest.mark.parametrize("name", json.loads(CALIBRATION.read_text("utf-8")))
def test_bundled_k_is_the_one_of_the_committed_calibration_on_train_lists(name: str) -> None:
    bundled = json.loads(CALIBRATION.read_text("utf-8"))[name]
    assert bundled == json.loads((RESULTS / name / "calibration.json").read_text("utf-8"))
    assert bundled_k(name) == bundled["value"]
    assert (bundled["detector"], bundled["variable"], bundled["protocol"]) == (name, "k", "standard")
    assert [(each["name"], each["split"].split(",")[0]) for each in bundled["data"]] == [
        ("NUAA-SIRST", "train"),
        ("NUDT-SIRST", "train"),
    ]
    assert {"date", "commit"} <= bundled["provenance"].keys()


# --- the table, and detectors of it -------------------------------------------------------------------


def test_table_has_the_six_filters_and_they_are_calibrated() -> None:
    six = {"top-hat", "max-median", "lcm", "tllcm", "ipi", "ript"}
    calibrated = json.loads(CALIBRATION.read_text("utf-8")).keys()
    assert six <= calibrated <= set(list_filters())


@EVERY
def test_every_filter_has_a_k_of_its_own_or_of_the_bundled_calibration(name: str) -> None:
    calibrated = name in json.loads(CALIBRATION.read_text("utf-8"))
    assert calibrated != (FILTERS[name].k is not None)
    assert np.isfinite(bundled_k(name))


def test_detectors_are_the_bundled_networks_and_the_filters() -> None:
    names, filters = list_detectors(), list_filters()
    assert "ismallnet-s" in names[: -len(filters)]
    assert names[-len(filters) :] == filters


@pytest.mark.parametrize(("name", "side"), [("ipi", 59), ("ript", 29)])
def test_minimum_is_not_larger_than_the_filter_needs(name: str, side: int) -> None:
    with pytest.raises(ValueError, match="mirror it at its edges"):
        FILTERS[name].function(levels(side, side))


def test_parameters_reach_the_filter_and_are_part_of_the_name() -> None:
    small = Detector.from_filter("top-hat", rule=Statistical(8), size=5)
    image = levels(40, 50)
    assert small.name == "top-hat (size=5)"
    assert small.rule == Statistical(8)
    expected = FILTERS["top-hat"].function(image, size=5).astype(np.float32)
    np.testing.assert_array_equal(small.score(unit(image)), expected)


def test_parameters_need_a_rule_since_the_bundled_one_is_for_the_defaults() -> None:
    with pytest.raises(ValueError, match=r"default parameters; give rule=Statistical\(k\)"):
        Detector.from_filter("top-hat", size=5)
    assert Detector.from_filter("top-hat").rule == Statistical(bundled_k("top-hat"))


def test_unknown_filter_and_parameter_are_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'top-hat'[?] choose from top-hat, max-median"):
        create_filter("tophat")
    with pytest.raises(ValueError, match="top-hat has no parameter 'sise'; choose from size, shape"):
        create_filter("top-hat", sise=5)


def test_threshold_is_for_networks_and_k_for_filters() -> None:
    assert load("top-hat", k=3.5).rule == Statistical(3.5)
    with pytest.raises(ValueError, match=r"top-hat is a filter.*give k \(--k\)"):
        load("top-hat", threshold=0.5)
    with pytest.raises(ValueError, match=r"k is for the filters.*give a threshold \(--threshold\)"):
        load("ismallnet-s", k=3)
    with pytest.raises(ValueError, match="exclude each other"):
        load("ismallnet-s", k=3, threshold=0.5)
    with pytest.raises(ValueError, match="finite number of standard deviations, such as 8; got nan"):
        load("top-hat", k=float("nan"))


def test_filter_is_loaded_without_torch() -> None:
    code = "import sys, ismallnet; ismallnet.load('top-hat'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_misspelt_filter_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(FileNotFoundError, match="did you mean max-median"):
        load("max-meadian")
