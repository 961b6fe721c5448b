"""The detector: rules, padding, resizing, networks and filters alike, loading."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ismallnet
from ismallnet import catalogue, checkpoint
from ismallnet.catalogue import NoWeightsError
from ismallnet.detector import Detector, load
from ismallnet.maps import Maps
from ismallnet.media import Image, normalise
from ismallnet.models import create_model
from ismallnet.rules import Fixed, Statistical
from ismallnet.tiles import Tiling
from ismallnet.types import Detection

NARROW: dict[str, Any] = {"widths": (4, 4, 4, 8, 8), "depths": (1,) * 5, "decoder_depths": (1,) * 4}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model("ismallnet", **NARROW).eval()


def network(model: nn.Module, **options: Any) -> Detector:
    return Detector.from_model(model, name="narrow", device="cpu", **options)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width), dtype=np.float32)


def top_hat(image: np.ndarray) -> np.ndarray:
    return cv2.morphologyEx(image, cv2.MORPH_TOPHAT, np.ones((9, 9), np.uint8))


# --- rules ---


def test_fixed_is_strict() -> None:
    score = np.array([[0.25, 0.5, 0.75]], np.float32)
    assert Fixed(0.5).apply(score).tolist() == [[False, False, True]]
    assert Fixed(0.5).threshold(score) == 0.5


def test_statistical_uses_the_sample_standard_deviation() -> None:
    score = np.array([[0, 0, 0, 4]], np.float32)  # mean 1, squares 1 + 1 + 1 + 9 = 12, 12 / 3 = 4, std 2
    assert Statistical(1.25).threshold(score) == 3.5
    assert Statistical(1.25).apply(score).tolist() == [[False, False, False, True]]
    assert not Statistical(1.5).apply(score).any()  # strict: 4 > 1 + 1.5 · 2 is false


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-8, 3e7])
@pytest.mark.parametrize("k", [-1.0, 0.0, 3.0])
def test_statistical_finds_nothing_in_a_constant_score(value: float, k: float) -> None:
    assert not Statistical(k).apply(np.full((33, 47), value, np.float32)).any()


# --- any function ---


def test_a_function_becomes_a_detector() -> None:
    image = np.full((40, 50), 0.25, np.float32)
    image[10:12, 20:23] = 0.75
    found = Detector(top_hat, name="top-hat", rule=Statistical(5))(image)
    assert isinstance(found, Detection)
    (target,) = found.targets
    assert (target.x0, target.y0, target.x1, target.y1, target.area) == (20, 10, 23, 12, 6)
    assert (target.x, target.y, target.peak) == (21, 10.5, 0.5)
    np.testing.assert_array_equal(found.score, top_hat(image))  # a filter's response is not rescaled
    np.testing.assert_array_equal(found.mask, image > 0.5)
    assert found.threshold == Statistical(5).threshold(top_hat(image))
    assert (found.interior, found.boundary) == (None, None)


def test_an_image_is_taken_as_its_pixels() -> None:
    image = normalise((noise(30, 30) * 255).astype(np.uint8))
    one = Detector(top_hat, name="top-hat", rule=Statistical(3))
    assert one(image).targets == one(image.pixels).targets


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.full((4, 4), 1.01, np.float32),
        np.full((4, 4), -0.01, np.float32),
        np.full((4, 4), np.nan, np.float32),
        np.zeros((1, 4, 4), np.float32),
        np.zeros((0, 4), np.float32),
    ],
)
def test_what_is_no_grey_image_in_0_1_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="normalise"):
        Detector(top_hat, name="top-hat", rule=Fixed())(wrong)


def test_a_function_that_changes_the_size_is_named() -> None:
    with pytest.raises(ValueError, match="halver"):
        Detector(lambda image: image[::2], name="halver", rule=Fixed())(noise(8, 8))


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 40), (15, 16)])
def test_a_small_image_is_mirrored_to_the_minimum_and_cropped_back(size: tuple[int, int]) -> None:
    seen = []

    def identity(image: np.ndarray) -> np.ndarray:
        seen.append(image)
        return image

    image = noise(*size)
    found = Detector(identity, name="identity", rule=Fixed(), minimum=16)(image)
    np.testing.assert_array_equal(found.score, image)
    assert seen[0].shape == tuple(max(16, length) for length in size)
    assert set(seen[0].ravel()) == set(image.ravel())  # mirrored, nothing made up


def test_mirroring_goes_on_as_often_as_it_takes() -> None:
    seen = []

    def identity(image: np.ndarray) -> np.ndarray:
        seen.append(image)
        return image

    row = np.array([[0.0, 0.5, 1.0]], np.float32)
    Detector(identity, name="identity", rule=Fixed(), minimum=9)(row)
    assert seen[0][0].tolist() == [0.5, 1, 0.5, 0, 0.5, 1, 0.5, 0, 0.5]  # three before, three after


# --- networks ---


@pytest.mark.parametrize("size", [(64, 64), (50, 71), (16, 16)])
def test_the_score_of_a_network_is_the_models_own(model: nn.Module, size: tuple[int, int]) -> None:
    image = noise(*size)
    with torch.inference_mode():
        expected = model.score(torch.from_numpy(image)[None, None])[0, 0].numpy()
    score = network(model).score(image)
    assert score.dtype == np.float32
    np.testing.assert_allclose(score, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (3, 200)])
def test_a_network_takes_images_of_any_size(model: nn.Module, size: tuple[int, int]) -> None:
    found = network(model)(noise(*size))
    for values in (found.score, found.mask, found.interior, found.boundary):
        assert values is not None
        assert values.shape == size


def test_input_size_resizes_the_image_and_then_the_logits(model: nn.Module) -> None:
    image = noise(40, 60)
    with torch.inference_mode():
        batch = torch.from_numpy(image)[None, None]
        larger = F.interpolate(batch, (96, 80), mode="bilinear", align_corners=False)
        logits = F.interpolate(model(larger).target, (40, 60), mode="bilinear", align_corners=False)
    score = network(model).score(image, input_size=(96, 80))
    np.testing.assert_allclose(score, torch.sigmoid(logits)[0, 0].numpy(), atol=1e-5)


def test_interior_and_boundary_are_probabilities(model: nn.Module) -> None:
    image = noise(48, 48)
    with torch.inference_mode():
        logits = model(torch.from_numpy(image)[None, None])
    found = network(model)(image)
    for ours, theirs in ((found.interior, logits.interior), (found.boundary, logits.boundary)):
        np.testing.assert_allclose(ours, torch.sigmoid(theirs)[0, 0].numpy(), atol=1e-6)


def test_a_network_without_the_streams_has_no_such_maps() -> None:
    found = network(create_model("ismallnet-single", **NARROW))(noise(32, 32))
    assert (found.interior, found.boundary) == (None, None)


def test_a_model_left_in_training_is_evaluated_and_unchanged() -> None:
    model = create_model("ismallnet-s", widths=(4, 4, 4, 8, 8))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    one = network(model)
    model.train()
    first, second = one.score(noise(32, 32)), one.score(noise(32, 32))
    np.testing.assert_array_equal(first, second)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_bf16_is_close_to_float32_and_only_on_request(model: nn.Module) -> None:
    image = noise(64, 64)
    exact, rounded = network(model).score(image), network(model, precision="bf16").score(image)
    assert 0 < np.abs(exact - rounded).max() < 0.05


@pytest.mark.gpu
def test_a_gpu_gives_the_score_of_the_cpu(model: nn.Module) -> None:
    image = noise(64, 80)
    on_cpu = network(model).score(image)
    on_gpu = Detector.from_model(copy.deepcopy(model), name="gpu", device="cuda")
    np.testing.assert_allclose(on_gpu.score(image), on_cpu, atol=1e-3)


# --- loading ---


@pytest.fixture
def saved(model: nn.Module, tmp_path: Path) -> Path:
    checkpoint.save_model(tmp_path / "mine", model, name="ismallnet", options=NARROW)
    return tmp_path / "mine"


def test_a_model_folder_is_loaded(model: nn.Module, saved: Path) -> None:
    loaded = load(saved, device="cpu")
    np.testing.assert_array_equal(loaded.score(noise(32, 48)), network(model).score(noise(32, 48)))
    assert loaded.rule == Fixed(0.5)
    assert loaded.name == f"ismallnet ({saved})"
    assert loaded.weights_sha256 is not None
    assert len(loaded.weights_sha256) == 64


def test_a_runs_folder_gives_its_best_weights_else_its_last(model: nn.Module, tmp_path: Path) -> None:
    checkpoint.save_model(tmp_path / "last", model, name="ismallnet", options=NARROW)
    assert load(tmp_path, device="cpu").name == f"ismallnet ({tmp_path / 'last'})"
    checkpoint.save_model(tmp_path / "best", model, name="ismallnet", options=NARROW)
    assert load(str(tmp_path), device="cpu").name == f"ismallnet ({tmp_path / 'best'})"


def test_the_threshold_may_be_set(saved: Path) -> None:
    assert load(saved, device="cpu", threshold=0.0).rule == Fixed(0.0)
    with pytest.raises(ValueError, match=r"1\.5.*\[0, 1\]"):
        load(saved, threshold=1.5)


def test_a_bundled_model_goes_by_its_name(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path)
    checkpoint.save_model(tmp_path / "ismallnet", model, name="ismallnet", options=NARROW)
    assert load("ismallnet", device="cpu").name == "ismallnet"


def test_a_model_without_weights_is_refused_with_the_command_that_trains_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path)
    with pytest.raises(
        NoWeightsError, match=r"ismallnet train recipes/\S+\.yaml --model\.name ismallnet-dna --out \S+"
    ):
        load("ismallnet-dna")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(FileNotFoundError, match=r"; did you mean ismallnet-s\? choose from ismallnet, "):
        load("ismalnet-s")
    with pytest.raises(FileNotFoundError, match="nor a model; choose from ismallnet, "):
        load("foo")


def test_a_device_that_is_not_here_is_named(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"device 'tpu'.*choose auto or cpu"):
        Detector.from_model(model, name="narrow", device="tpu")


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*best and last"):
        load(tmp_path)


# --- the intensity range, end to end ---


def scene() -> np.ndarray:
    """An 8-bit scene: soft clutter with three bright spots."""
    field = cv2.GaussianBlur(noise(128, 160), (0, 0), 12)
    field = 40 + 120 * (field - field.min()) / np.ptp(field)
    for y, x in ((20, 30), (64, 100), (110, 50)):
        field[y : y + 3, x : x + 3] += 60
    return np.round(field).astype(np.uint8)


def boxes(found: Detection) -> list[tuple[int, int, int, int]]:
    return sorted((t.x0, t.y0, t.x1, t.y1) for t in found.targets)


def test_a_scene_stored_in_16_bits_gives_the_targets_of_8_bits() -> None:
    one = Detector(top_hat, name="top-hat", rule=Statistical(8))
    expected = boxes(one(normalise(scene())))
    assert len(expected) == 3
    stored = [one(normalise(scene().astype(np.uint16) * factor)) for factor in (16, 64, 257)]
    assert [boxes(found) for found in stored] == [expected] * 3
    assert stored[0].targets == stored[1].targets == stored[2].targets


def test_the_public_names_lead_from_a_file_to_targets(saved: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), scene())
    image = ismallnet.read_image(tmp_path / "x.png")
    assert isinstance(image, Image)
    found = ismallnet.load(saved, device="cpu")(image)
    assert found.score.shape == found.mask.shape == (128, 160)
    assert all(isinstance(target, ismallnet.Target) for target in found.targets)


def test_import_ismallnet_is_light_and_every_public_name_is_there() -> None:
    code = """
import sys, ismallnet
heavy = {"torch", "cv2", "numpy", "scipy"} & set(sys.modules)
assert not heavy, heavy
for name in ismallnet.__all__:
    getattr(ismallnet, name)
assert set(ismallnet.__all__) <= set(dir(ismallnet))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="it has"):
        ismallnet.nothing  # noqa: B018


def test_maps_may_come_from_any_function() -> None:
    one = Detector(lambda x: Maps(x, interior=x / 2), name="two", rule=Fixed())
    found = one(noise(8, 8))
    np.testing.assert_array_equal(found.interior, found.score / 2)
    assert found.boundary is None


# --- tiles and batches ---


def test_a_large_image_is_cut_and_a_local_filter_sees_no_difference() -> None:
    image = noise(300, 420)
    one = Detector(top_hat, name="top-hat", rule=Statistical(3))
    whole = one(image)
    one.tiling = Tiling(side=160, overlap=48, above=300 * 420 - 1)
    assert_same(one(image), whole)


def test_only_images_above_the_size_are_cut() -> None:
    seen = []

    def function(image: np.ndarray) -> np.ndarray:
        seen.append(image.shape)
        return image

    one = Detector(function, name="identity", rule=Fixed())
    one.tiling = Tiling(side=128, overlap=32, above=200 * 100)
    one(noise(200, 100))
    one(noise(201, 100))
    assert seen == [(200, 100), (128, 100), (105, 100)]
    one.tiling = None
    one(noise(201, 100))
    assert seen[3:] == [(201, 100)]


def test_a_networks_maps_are_those_of_its_tiles_away_from_their_borders(model: nn.Module) -> None:
    image = noise(200, 320)
    one = network(model)
    corners = (image[:160, :160], image[64:, 160:])  # of the first and of the last tile
    first, last = map(one, corners)
    one.tiling = Tiling(side=160, overlap=48, above=0)
    tiled = one(image)
    for map_, of_first, of_last in (
        (tiled.score, first.score, last.score),
        (tiled.interior, first.interior, last.interior),
        (tiled.boundary, first.boundary, last.boundary),
    ):
        assert map_ is not None
        assert map_.shape == image.shape
        np.testing.assert_allclose(map_[:90, :90], of_first[:90, :90], atol=1e-5)
        np.testing.assert_allclose(map_[-60:, -60:], of_last[-60:, -60:], atol=1e-5)


def test_images_go_through_together_and_are_answered_one_by_one(model: nn.Module) -> None:
    sizes = [(40, 48)] * 3 + [(64, 32)] + [(40, 48)]
    images = [noise(*size, seed=n) for n, size in enumerate(sizes)]
    one, seen = network(model), []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    together = list(one.many(images))
    assert seen == [(3, 1, 40, 48), (1, 1, 64, 32), (1, 1, 40, 48)]
    for found, image in zip(together, images, strict=True):
        np.testing.assert_allclose(found.score, one(image).score, atol=1e-5)


def test_many_takes_any_function_and_cuts_what_is_large() -> None:
    images = [noise(30, 40), noise(30, 40, seed=1), noise(200, 200)]
    one = Detector(top_hat, name="top-hat", rule=Statistical(3))
    one.tiling = Tiling(side=128, overlap=32, above=200 * 200 - 1)
    for found, image in zip(one.many(images), images, strict=True):
        assert_same(found, one(image))


def assert_same(one: Detection, other: Detection) -> None:
    np.testing.assert_array_equal(one.score, other.score)
    np.testing.assert_array_equal(one.mask, other.mask)
    assert (one.targets, one.threshold) == (other.targets, other.threshold)


def test_bf16_that_would_be_emulated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ismallnet.runtimes.has_bf16", lambda _: False)
    with pytest.raises(ValueError, match="only emulates bfloat16, many times slower; leave"):
        load("ismallnet-s", device="cpu", precision="bf16")
