"""Evaluation end to end on toy scenes: each protocol's geometry and rule, the report's files, the log."""

import csv
import dataclasses
import json
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ismallnet import data
from ismallnet.detector import Detector
from ismallnet.evaluate import evaluate, log_test_evaluation, write_report
from ismallnet.metrics import PROTOCOLS
from ismallnet.rules import Fixed, Statistical
from ismallnet.types import Sample


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Bright squares on noise, in memory."""

    samples: tuple[Sample, ...]
    name: str = "toy"
    split: str = "train"
    split_sha256: str = "ab12"

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


def scene(seed: int, shape: tuple[int, int] = (64, 96)) -> Sample:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 40, shape).astype(np.uint8)
    mask = np.zeros(shape, bool)
    for y, x in zip(rng.integers(4, shape[0] - 10, 2), rng.integers(4, shape[1] - 10, 2), strict=True):
        mask[y : y + 5, x : x + 5] = True
    image[mask] = 240
    return Sample(f"s{seed}", image, mask)


@pytest.fixture
def scenes() -> Scenes:
    return Scenes(tuple(scene(seed) for seed in range(5)))


def bright(image: np.ndarray) -> np.ndarray:
    """A perfect detector of the toy scenes: a probability of 0.98 on targets, 0 elsewhere."""
    return np.where(image > 0.5, 0.98, 0).astype(np.float32)


class Recorder:
    """A detector that notes what it was given."""

    name = "recorder"
    rule = Fixed()

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []
        self.input_sizes: list[tuple[int, int] | None] = []

    def score(self, image: np.ndarray, *, input_size: tuple[int, int] | None = None) -> np.ndarray:
        self.images.append(image)
        self.input_sizes.append(input_size)
        return bright(image)


def perfect(rule=None) -> Detector:
    return Detector(bright, name="bright", rule=rule or Fixed())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_perfect_detector_finds_everything_under_every_protocol(scenes, protocol):
    report = evaluate(perfect(), scenes, protocol=protocol, bootstrap=20)
    headline = {name: rate.value for name, rate in report.headline.items()}
    exact = protocol in ("standard", "ismallnet", "basicirstd")  # resizing blurs the outline
    assert headline["pd"] == 1
    assert headline["fa"] == 0
    assert headline["iou"] == 1 if exact else headline["iou"] > 0.8
    assert report.protocol is PROTOCOLS[protocol]


def test_the_report_knows_where_it_is_from(scenes):
    report = evaluate(perfect(), scenes, bootstrap=0, seed=7)
    assert (report.detector, report.data, report.split, report.split_sha256) == (
        "bright",
        "toy",
        "train",
        "ab12",
    )
    assert (report.rule, report.seed, len(report.counts)) == ("score > 0.5", 7, 5)
    wanted = {"date", "commit", "hardware", "versions", "weights_sha256", "score_s", "count_s"}
    assert wanted <= report.provenance.keys()
    assert json.loads(report.to_json())["n"] == 5


def test_standard_scores_the_native_image_in_0_to_1(scenes):
    recorder = Recorder()
    evaluate(recorder, scenes)
    assert recorder.images[0].dtype == np.float32
    np.testing.assert_array_equal(recorder.images[0], scenes.samples[0].image / np.float32(255))
    assert set(recorder.input_sizes) == {None}


@pytest.mark.parametrize(("protocol", "side"), [("dnanet", 256), ("acm", 512)])
def test_resizing_protocols_score_a_square(scenes, protocol, side):
    recorder = Recorder()
    report = evaluate(recorder, scenes, protocol=protocol, bootstrap=0)
    assert {image.shape for image in recorder.images} == {(side, side)}
    assert {count.pixels for count in report.counts} == {side * side}


def test_resizing_is_that_of_pil():
    pil = pytest.importorskip(
        "PIL.Image", reason="Pillow, which DNANet and ACM resize with, is the reference"
    )
    sample = scene(3, (300, 211))  # one side shrinks, one grows
    recorder = Recorder()
    report = evaluate(recorder, Scenes((sample,)), protocol="dnanet", bootstrap=0)
    image = np.asarray(pil.fromarray(sample.image).resize((256, 256), pil.Resampling.BILINEAR))
    mask = np.asarray(pil.fromarray(sample.mask).resize((256, 256), pil.Resampling.NEAREST))
    assert np.abs(recorder.images[0] * 255 - image).max() <= 1.001  # PIL rounds between its two passes
    (count,) = report.counts
    prediction = bright(recorder.images[0]) > 0.5
    assert count.tp + count.fn == mask.sum()
    assert count.tp == (prediction & mask).sum()


def test_basicirstd_pads_with_zeros_to_32_and_crops_back():
    recorder, sample = Recorder(), scene(1, (50, 70))
    report = evaluate(recorder, Scenes((sample,)), protocol="basicirstd", bootstrap=0)
    (seen,) = recorder.images
    assert seen.shape == (64, 96)
    np.testing.assert_array_equal(seen[:50, :70], sample.image / np.float32(255))
    assert seen[50:].max() == seen[:, 70:].max() == 0
    assert report.counts[0].pixels == 50 * 70


def test_ismallnet_shows_only_nuaa_at_352(scenes):
    for name, expected in (("NUAA-SIRST", (352, 352)), ("NUDT-SIRST", None)):
        recorder = Recorder()
        evaluate(recorder, dataclasses.replace(scenes, name=name), protocol="ismallnet", bootstrap=0)
        assert set(recorder.input_sizes) == {expected}
        assert recorder.images[0].shape == (64, 96)


@pytest.mark.parametrize(("score", "positive"), [(0.5 / 255, False), (0.00196, False), (0.00197, True)])
def test_ismallnet_takes_what_an_8_bit_picture_would_keep(score, positive):
    sample = Sample("a", np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool))
    detector = Detector(lambda image: np.full_like(image, score), name="flat", rule=Fixed())
    counts = {
        p: evaluate(detector, Scenes((sample,)), protocol=p).counts[0].fp for p in ("ismallnet", "standard")
    }
    assert counts == {"ismallnet": 64 * positive, "standard": 0}


def test_trap_5_a_weak_map_stays_below_the_threshold(scenes):
    """Normalised by its own maximum, every image would yield a detection."""
    weak = Detector(lambda image: 0.3 * bright(image), name="weak", rule=Fixed())
    assert {count.predicted for count in evaluate(weak, scenes, bootstrap=0).counts} == {0}


@pytest.mark.parametrize("protocol", ["standard", "ismallnet", "basicirstd"])
def test_the_rule_of_a_filter_is_the_same_under_every_protocol(scenes, protocol):
    detector = Detector(lambda image: 1e6 * image - 5, name="raw", rule=Statistical(3.0))
    scenes = Scenes(tuple(scene(seed, (64, 64)) for seed in range(3)))
    report = evaluate(detector, scenes, protocol=protocol, bootstrap=0)
    for count, sample in zip(report.counts, scenes, strict=True):
        response = sample.image.astype(float)
        mask = response > response.mean() + 3 * response.std(ddof=1)
        assert count.tp + count.fp == mask.sum()


def test_curves_and_boxes_of_a_filter_do_not_depend_on_its_scale(scenes):
    reports = [
        evaluate(
            Detector(lambda image, a=a: image * a, name="raw", rule=Statistical(3.0)),
            scenes,
            curves=True,
            bootstrap=0,
        )
        for a in (1.0, 1024.0)
    ]
    areas = [[getattr(r.curves, name).area for name in ("roc", "pr", "froc")] for r in reports]
    assert areas[0] == pytest.approx(areas[1], abs=1e-9)
    rates = [dict(report.rates.overall) for report in reports]
    suppression = [each.pop("suppression").value for each in rates]  # has the unit of the response
    assert rates[0] == rates[1]
    assert suppression[0] == 1024 * suppression[1]


def test_the_gain_of_a_filter_is_reported_and_that_of_a_probability_is_not(scenes):
    names = {"scr_gain", "suppression", "flat_rings"}
    unscaled = Detector(lambda image: 255 * image / 4, name="quarter", rule=Statistical(3.0))
    rates = evaluate(unscaled, scenes, bootstrap=50).rates.overall
    for name, expected in (("scr_gain", 1), ("suppression", 4), ("flat_rings", 0)):
        assert rates[name] == pytest.approx((expected,) * 3, rel=1e-5)
    assert not names & evaluate(perfect(), scenes, bootstrap=0).rates.overall.keys()
    assert not names & evaluate(unscaled, scenes, bootstrap=0, details=False).rates.overall.keys()


def test_a_response_that_is_flat_around_most_targets_has_an_infinite_gain_and_null_in_json(scenes):
    flat = Detector(lambda image: (image > 0.5) * image, name="flat", rule=Statistical(3.0))
    report = evaluate(flat, scenes, bootstrap=20)
    assert report.rates.overall["scr_gain"] == (np.inf, np.inf, np.inf)
    assert report.rates.overall["flat_rings"].value == 1
    assert json.loads(report.to_json())["rates"]["scr_gain"]["value"] is None
    assert "| SCR gain (median image) | inf | [inf, inf] |" in report.to_markdown()


def test_a_constant_response_has_no_target_and_no_curve_above_chance(scenes):
    flat = Detector(lambda image: np.full_like(image, 7), name="flat", rule=Statistical(0.0))
    report = evaluate(flat, scenes, curves=True, bootstrap=0)
    assert report.headline["pd"].value == report.headline["fa"].value == 0
    assert report.curves.roc.area == 0.5
    assert report.curves.froc.area == 0


def test_another_threshold_than_the_protocols_is_noted(scenes):
    report = evaluate(perfect(Fixed(0.4)), scenes, bootstrap=0)
    assert report.rule == "score > 0.4"
    assert report.notes == ("threshold 0.4 of the detector, not 0.5 of `standard`",)
    assert evaluate(perfect(), scenes, bootstrap=0).notes == ()
    unused = evaluate(perfect(Fixed(0.4)), scenes, protocol="ismallnet", bootstrap=0)
    assert unused.rule == "round(255 * score) != 0"
    assert unused.notes == ("threshold 0.4 is not used: `ismallnet` has a decision of its own",)
    assert evaluate(perfect(), scenes, protocol="ismallnet", bootstrap=0).notes == ()


def test_test_time_augmentation_is_noted(scenes):
    detector = perfect()
    detector.views, detector.confirm = 4, True
    report = evaluate(detector, scenes, bootstrap=0)
    assert report.provenance["views"] == 4
    assert report.provenance["confirm"] is True
    assert report.notes == (
        "test-time augmentation: the mean over 4 flips and quarter turns of each image",
        "test-time augmentation: targets confirmed by the image enlarged or shrunk 1.25 times",
    )


def test_acm_on_other_lists_than_its_own_is_noted(scenes):
    assert "idx_427" in evaluate(perfect(), scenes, protocol="acm", bootstrap=0).notes[0]
    own = dataclasses.replace(scenes, split="idx_427/test")
    assert evaluate(perfect(), own, protocol="acm", bootstrap=0).notes == ()


def test_the_cheap_path_gives_the_same_counts_without_strata_boxes_and_intervals(scenes):
    full = evaluate(perfect(), scenes, bootstrap=20, curves=True)
    cheap = evaluate(perfect(), scenes, bootstrap=0, details=False)
    assert full.rates.strata
    assert cheap.rates.strata == ()
    assert cheap.curves is None
    assert {name: rate.value for name, rate in cheap.headline.items()} == {
        name: rate.value for name, rate in full.headline.items()
    }


def test_progress_counts_every_image(scenes):
    seen = []
    evaluate(perfect(), scenes, bootstrap=0, advance=lambda *step: seen.append(step))
    assert seen == [(index + 1, 5, f"s{index}") for index in range(5)]


def test_what_cannot_be_scored_is_refused(scenes):
    with pytest.raises(ValueError, match="toy train has no image"):
        evaluate(perfect(), Scenes(()))
    seen: list[tuple[int, int, str]] = []
    with pytest.raises(ValueError, match="bootstrap is -1"):
        evaluate(perfect(), scenes, bootstrap=-1, advance=lambda *step: seen.append(step))
    assert not seen
    with pytest.raises(ValueError, match="unknown protocol 'best'"):
        evaluate(perfect(), scenes, protocol="best")
    with pytest.raises(ValueError, match="nan or infinite"):
        evaluate(Detector(lambda image: image * np.nan, name="broken", rule=Fixed()), scenes)

    class Small(Recorder):
        def score(self, image, *, input_size=None):  # noqa: ARG002
            return image[1:]

    with pytest.raises(ValueError, match=r"score of \(63, 96\) for an image of \(64, 96\)"):
        evaluate(Small(), scenes)


def test_a_report_is_written_whole_with_its_pictures(scenes, tmp_path):
    report = evaluate(perfect(), scenes, bootstrap=20, curves=True)
    paths = write_report(report, tmp_path / "deep" / "out")
    names = ["froc.png", "per_image.csv", "pr.png", "report.json", "report.md", "roc.png"]
    assert [path.name for path in paths] == sorted(names)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]  # no scratch folder is left
    with (tmp_path / "deep" / "out" / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [sample.id for sample in scenes]
    assert sum(int(row["tp"]) for row in rows) == sum(sample.mask.sum() for sample in scenes)
    assert (tmp_path / "deep" / "out" / "roc.png").read_bytes().startswith(b"\x89PNG")


def test_an_existing_folder_is_refused_and_with_force_only_the_reports_files_change(scenes, tmp_path):
    report = evaluate(perfect(), scenes, bootstrap=0)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="--force"):
        write_report(report, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "report.json").write_text("old")
    write_report(report, tmp_path, force=True)
    assert json.loads((tmp_path / "report.json").read_text())["n"] == 5
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_without_matplotlib_the_error_names_the_extra_and_the_numbers_are_kept(scenes, tmp_path, monkeypatch):
    report = evaluate(perfect(), scenes, bootstrap=0, curves=True)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # what an absent package looks like
    with pytest.raises(ImportError, match=r"ismallnet\[plot\].*out"):
        write_report(report, tmp_path / "out")
    assert (tmp_path / "out" / "report.json").is_file()


def test_every_look_at_a_test_list_is_one_row(scenes, tmp_path):
    report = evaluate(perfect(), dataclasses.replace(scenes, split="test"), bootstrap=0)
    log_test_evaluation(report, tmp_path / "results", purpose="first, with a comma")
    path = log_test_evaluation(report, tmp_path / "results", purpose="second")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["purpose"] for row in rows] == ["first, with a comma", "second"]
    assert rows[0]["protocol"] == "standard"
    assert (float(rows[0]["iou"]), float(rows[0]["pd"]), float(rows[0]["fa"]), rows[0]["n"]) == (1, 1, 0, "5")
    assert rows[0]["date"] == report.provenance["date"]


def test_the_log_refuses_what_does_not_belong_there(scenes, tmp_path):
    report = evaluate(perfect(), scenes, bootstrap=0)
    with pytest.raises(ValueError, match="toy train is not a test list"):
        log_test_evaluation(report, tmp_path, purpose="x")
    tested = dataclasses.replace(report, split="test")
    with pytest.raises(ValueError, match="purpose is empty"):
        log_test_evaluation(tested, tmp_path, purpose=" ")
    (tmp_path / "test_evaluations.csv").write_text("date,iou\n")
    with pytest.raises(ValueError, match="other columns"):
        log_test_evaluation(tested, tmp_path, purpose="x")


def test_counting_costs_less_than_the_forward_pass_of_the_compact_network():
    from ismallnet.models import create_model

    samples = Scenes(tuple(scene(seed, (256, 256)) for seed in range(12)))
    torch.manual_seed(0)
    detector = Detector.from_model(create_model("ismallnet-s"), name="ismallnet-s", device="cpu")
    evaluate(detector, samples, bootstrap=0)  # warm up
    report = evaluate(detector, samples, bootstrap=0)
    assert report.provenance["count_s"] < report.provenance["score_s"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_trap_6_misc_111_is_counted_in_every_protocol(data_root, protocol):
    dataset = data.load("NUAA-SIRST", data_root, "test")
    assert len(dataset) == 214
    few = dataset.subset(("Misc_111", next(id for id in dataset.ids if id != "Misc_111")))
    report = evaluate(perfect(), few, protocol=protocol, bootstrap=0)
    assert len(report.counts) == 2
    expected = {"dnanet": 256 * 256, "acm": 512 * 512}.get(protocol, 220 * 325)
    assert report.counts[0].pixels == expected
    assert report.counts[0].targets >= 1
    assert report.doubtful is not None
    assert len(report.doubtful.counts) == 1
