from __future__ import annotations

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet import media
from ismallnet.data import load
from ismallnet.data.clutter import CLUTTER, random_field
from ismallnet.data.synthetic import HIGH, LOW, Scene, scene, write_scenes
from ismallnet.targets import find, label

KINDS = ("point", "spot", "extended")
EXAMPLES = Path(__file__).parents[2] / "examples" / "scenes"


def ratios(image: np.ndarray, mask: np.ndarray) -> list[float]:
    """Signal-to-clutter ratio of each component, straight from the words of the definition."""
    image, (count, labels) = image.astype(np.float64), label(mask)
    found = []
    for n in range(1, count + 1):
        ys, xs = np.nonzero(labels == n)
        ring = np.zeros(mask.shape, bool)
        ring[max(ys.min() - 20, 0) : ys.max() + 21, max(xs.min() - 20, 0) : xs.max() + 21] = True
        ring &= ~mask
        found.append(abs(image[labels == n].mean() - image[ring].mean()) / image[ring].std())
    return found


@pytest.mark.parametrize("clutter", CLUTTER)
@pytest.mark.parametrize("scr", [0.8, 2.0, 6.0, 20.0])
def test_every_target_has_the_ratio_asked_for(clutter, scr: float) -> None:
    made = scene(1, clutter=clutter, targets=KINDS, scr=scr)
    assert ratios(made.image, made.mask) == pytest.approx([scr] * 3, rel=0.005)


@pytest.mark.parametrize("clutter", CLUTTER)
def test_rounding_changes_the_ratio_little(clutter) -> None:
    made = scene(2, clutter=clutter, targets=KINDS, scr=6.0)
    assert ratios(made.to_uint8(), made.mask) == pytest.approx([6.0] * 3, rel=0.06)
    assert ratios(made.to_uint16(), made.mask) == pytest.approx([6.0] * 3, rel=0.005)


@pytest.mark.parametrize("clutter", CLUTTER)
def test_the_same_seed_gives_the_same_scene_and_another_seed_another(clutter) -> None:
    one, same, other = (scene(seed, clutter=clutter, targets=KINDS) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.mask, same.mask)
    assert one.targets == same.targets
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("clutter", CLUTTER)
@pytest.mark.parametrize("size", [(64, 64), (100, 301), (256, 320)])
def test_a_scene_is_float32_in_0_1_of_the_size_asked_for(clutter, size: tuple[int, int]) -> None:
    made = scene(0, height=size[0], width=size[1], clutter=clutter)
    assert (made.image.dtype, made.image.shape, made.mask.shape) == (np.float32, size, size)
    assert made.image.min() >= 0
    assert made.image.max() <= 1


def test_the_mask_has_one_component_a_target_around_its_centre() -> None:
    for seed in range(8):
        made = scene(seed, targets=KINDS)
        centres = sorted((target.x, target.y) for target in made.targets)
        found = sorted((target.x, target.y) for target in find(made.mask))
        np.testing.assert_allclose(found, centres, atol=0.6)


def test_the_mask_is_where_the_profile_reaches_a_quarter_of_its_peak() -> None:
    # A Gaussian falls to 1/4 at sqrt(2 ln 4) = 1.665 sigma: an ellipse of pi * 1.665^2 = 8.71 a b pixels.
    for seed in range(5):
        made = scene(seed, targets=("extended",))
        target = made.targets[0]
        assert made.mask.sum() == pytest.approx(8.71 * target.along * target.across, rel=0.2)


def test_the_kinds_differ_in_size_and_elongation() -> None:
    areas = {kind: [scene(seed, targets=(kind,)).mask.sum() for seed in range(6)] for kind in KINDS}
    assert max(areas["point"]) <= 9
    assert max(areas["point"]) < np.mean(areas["spot"]) < np.mean(areas["extended"])
    long = scene(0, targets=("extended",)).targets[0]
    assert long.along > 1.4 * long.across


def test_without_targets_the_mask_is_empty() -> None:
    made = scene(0, targets=())
    assert not made.mask.any()
    assert made.targets == ()


def test_the_background_does_not_depend_on_the_targets_ratio() -> None:
    faint, bright = scene(0, scr=1.0), scene(0, scr=5.0)
    far = ~cv2.dilate(faint.mask.astype(np.uint8), np.ones((31, 31))).astype(bool)
    np.testing.assert_allclose(faint.image[far], bright.image[far], atol=1e-6)


def test_16_bits_span_the_sensor_counts() -> None:
    image = np.array([[0.0, 0.5, 1.0]], np.float32)
    made = Scene(image, image > 2, (), "cloud", 0, 1.0)
    assert made.to_uint16().tolist() == [[LOW, (LOW + HIGH) // 2, HIGH]]
    assert made.to_uint16(0, 65535).tolist() == [[0, 32768, 65535]]
    assert made.to_uint8().tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_a_random_field_has_the_spectrum_asked_for(exponent: float) -> None:
    field = random_field(np.random.default_rng(0), 256, 256, exponent=exponent)
    assert (field.mean(), field.std()) == pytest.approx((0, 1), abs=1e-9)
    power = np.abs(np.fft.fft2(field)) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    low, high = (power[(frequency > f / 1.2) & (frequency < f * 1.2)].mean() for f in (0.02, 0.2))
    assert np.log10(low / high) == pytest.approx(exponent, abs=0.25)


def test_stretch_makes_structures_longer_along_x() -> None:
    field = random_field(np.random.default_rng(0), 128, 128, exponent=3, stretch=3)
    assert np.abs(np.diff(field, axis=1)).mean() < 0.7 * np.abs(np.diff(field, axis=0)).mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 63}, "at least 64x64"),
        ({"clutter": "desert"}, "unknown clutter 'desert'; choose from cloud, sea, terrain"),
        ({"targets": ("ship",)}, "unknown target 'ship'; choose from point, spot, extended"),
        ({"scr": 0.0}, "above 0"),
        ({"noise": 0.0}, "above 0"),
        ({"height": 64, "width": 64, "targets": ("point",) * 40}, "no room for 40 targets"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scene(0, **options)


@pytest.mark.parametrize(("count", "scr"), [(0, (4.0, 10.0)), (-1, (4.0, 10.0)), (1, (9.0, 2.0))])
def test_no_scenes_or_a_falling_range_are_refused(tmp_path: Path, count: int, scr) -> None:
    with pytest.raises(ValueError, match="ask for 1 or more"):
        write_scenes(tmp_path / "s", count, scr=scr)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("bit_depth", "suffix"), [(8, ".png"), (16, ".png"), (16, ".tiff")])
def test_written_scenes_are_a_generic_data_set(tmp_path: Path, bit_depth, suffix) -> None:
    out = write_scenes(tmp_path / "s", 4, seed=5, height=96, width=128, bit_depth=bit_depth, suffix=suffix)
    data = load("folder", out, "test")
    assert data.ids == ("cloud_0000", "cloud_0003", "sea_0001", "terrain_0002")
    stored = cv2.imread(str(out / "images" / f"sea_0001{suffix}"), cv2.IMREAD_UNCHANGED)
    assert (stored.dtype, stored.shape) == (np.dtype(f"uint{bit_depth}"), (96, 128))
    text = json.loads((out / "scenes.json").read_text())
    by_id = {entry["id"]: entry for entry in text["scenes"]}
    for sample in data:
        entry = by_id[sample.id]
        assert label(sample.mask)[0] == len(entry["targets"]) >= 1
        kinds = tuple(target["kind"] for target in entry["targets"])
        again = scene(
            entry["seed"], height=96, width=128, clutter=entry["clutter"], targets=kinds, scr=entry["scr"]
        )
        np.testing.assert_array_equal(again.mask, sample.mask)
        assert 4 <= entry["scr"] <= 10


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="not empty"):
        write_scenes(tmp_path, 1)
    write_scenes(tmp_path, 1, height=64, width=64, force=True)
    assert (tmp_path / "mine.txt").exists()


def test_the_sample_scenes_are_small_readable_and_of_every_kind() -> None:
    data = load("folder", EXAMPLES, "all")
    assert 6 <= len(data) <= 8
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < 1e6
    assert all(label(sample.mask)[0] >= 1 for sample in data)
    images = [media.read_image(path) for path in sorted((EXAMPLES / "images").iterdir())]
    assert {image.dtype for image in images} == {"uint8", "uint16"}
    assert {image.path.suffix for image in images if image.path} == {".png", ".tiff"}
    assert not any(image.warning for image in images)


def test_the_sample_scenes_are_what_their_script_makes(tmp_path: Path) -> None:
    runpy.run_path(str(EXAMPLES / "make.py"))["main"](tmp_path)
    assert (tmp_path / "scenes.json").exists()
    for path in sorted((EXAMPLES / "masks").iterdir()):
        np.testing.assert_array_equal(
            cv2.imread(str(path), -1), cv2.imread(str(tmp_path / "masks" / path.name), -1)
        )
    for path in sorted((EXAMPLES / "images").iterdir()):
        kept, made = (cv2.imread(str(p), -1).astype(int) for p in (path, tmp_path / "images" / path.name))
        assert np.abs(kept - made).max() <= 1  # another processor may round the last bit otherwise
