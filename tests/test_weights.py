"""The bundled weights: small, described, and useful on what a user brings."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

import ismallnet
from ismallnet import data
from ismallnet.catalogue import WEIGHTS, list_weights
from ismallnet.detector import Detector
from ismallnet.evaluate import evaluate
from ismallnet.media import RangeWarning

NAMES = sorted(folder.name for folder in WEIGHTS.iterdir() if folder.is_dir())
SCENES = Path(__file__).parents[1] / "examples" / "scenes"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return ismallnet.load("ismallnet-s", device="cpu")


def test_the_default_detector_is_bundled_in_under_8_mb() -> None:
    assert "ismallnet-s" in NAMES
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) < 8e6


@pytest.mark.parametrize("name", NAMES)
def test_the_model_card_is_of_these_very_weights(name: str) -> None:
    checksum = hashlib.sha256((WEIGHTS / name / "model.safetensors").read_bytes()).hexdigest()
    assert checksum in (WEIGHTS / name / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_only_whole_train_lists_were_trained_on(name: str) -> None:
    config = json.loads((WEIGHTS / name / "config.json").read_text(encoding="utf-8"))
    assert {entry["split"] for entry in config["data"]} == {"train"}


@pytest.mark.parametrize("name", list_weights())
def test_a_bright_target_in_a_plain_sky_is_found_by_every_network_with_weights(name: str) -> None:
    image = np.full((256, 256), 0.3, np.float32)
    image[100:103, 150:153] = 1
    (target,) = ismallnet.load(name, device="cpu")(image).targets
    assert (target.x, target.y) == pytest.approx((151, 101), abs=1)


def test_the_targets_of_the_sample_scenes_are_found_with_few_false_alarms(detector: Detector) -> None:
    """The scenes are synthetic, were not trained on, and hold dim targets: a floor, not a claim."""
    report = evaluate(detector, data.load("folder", SCENES, "all"), bootstrap=0, details=False)
    assert report.rates.overall["pd"].value >= 0.9
    assert report.rates.overall["false_components"].value <= 0.5


@pytest.mark.parametrize("factor", [16, 64, 257])
def test_a_scene_in_16_bits_has_the_same_targets_whatever_its_gain(
    detector: Detector, factor: int, tmp_path: Path
) -> None:
    found = []
    for gain in (16, factor):
        levels = cv2.imread(str(SCENES / "images" / "cloud_thin.png"), cv2.IMREAD_UNCHANGED).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "scene.png"), levels * gain)
        found.append(detector(ismallnet.read_image(tmp_path / "scene.png")).targets)
    assert len(found[0]) > 0
    assert found[0] == found[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("level", "sigma", "dtype"), [(120, 3, np.uint8), (20000, 30, np.uint16)])
def test_a_flat_noisy_frame_has_no_target(
    detector: Detector, level: int, sigma: float, dtype: type, seed: int
) -> None:
    frame = np.random.default_rng(seed).normal(level, sigma, (240, 320)).round().astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        image = ismallnet.normalise(frame)
    assert detector(image).targets == ()


@pytest.mark.parametrize(("name", "least"), [("NUAA-SIRST", 0.7), ("NUDT-SIRST", 0.7)])
def test_trained_images_are_segmented(detector: Detector, data_root: Path, name: str, least: float) -> None:
    """The weights are the trained ones and the input is as in training; says nothing of new images."""
    images = data.load(name, data_root, "train")
    report = evaluate(detector, images.subset(images.ids[:25]), bootstrap=0, details=False)
    assert report.rates.overall["iou"].value > least
