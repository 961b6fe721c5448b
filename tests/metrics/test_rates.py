"""Rates from counts: checked values, empty cases and intervals."""

import dataclasses

import numpy as np
import pytest

from ismallnet.metrics import PROTOCOLS, ImageCount, TargetCounts, count_image, derive


def pixels(tp: int, fp: int, fn: int, id: str = "a") -> ImageCount:
    return ImageCount(
        "d", id, 10_000, tp, fp, fn, targets=1, matched=int(tp > 0), predicted=1, false_pixels=fp
    )


CHECKED = [pixels(8, 2, 2), pixels(0, 3, 5), pixels(4, 0, 4)]
"""The three images of the facts: TP 8, 0, 4; FP 2, 3, 0; FN 2, 5, 4."""


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_the_checked_values(protocol):
    overall = derive(CHECKED, protocol).overall
    expected = {
        "mean_iou": 0.388889,
        "niou": 0.388889,
        "mean_precision": 0.6,
        "mean_recall": 0.433333,
        "f1_of_means": 0.503226,
        "iou": 0.428571,
        "f1": 0.6,
    }
    assert {name: overall[name].value for name in expected} == pytest.approx(expected, abs=1e-6)


def test_f1_of_means_is_neither_micro_f1_nor_the_mean_of_f1():
    overall = derive(CHECKED, PROTOCOLS["ismallnet"]).overall
    assert overall["f1"].value == pytest.approx(0.6)
    mean_f1 = (0.8 + 0 + 2 / 3) / 3
    assert mean_f1 == pytest.approx(0.488889, abs=1e-6)
    assert overall["f1_of_means"].value not in (pytest.approx(0.6), pytest.approx(mean_f1))


def test_trap_8_f1_weighs_precision_and_recall_alike():
    reference = pytest.importorskip(
        "py_irstd_metrics", reason="needs `pip install --no-deps pyirstdmetrics` and scikit-image"
    )
    rng = np.random.default_rng(0)
    truth, prediction = rng.random((2, 30, 30)) < 0.3
    handlers = {
        beta: reference.FmeasureHandler(with_dynamic=False, with_binary=True, sample_based=False, beta=beta)
        for beta in (1, 0.3)
    }
    metrics = reference.CMMetrics(metric_handlers=handlers)
    metrics.update(prediction.astype(float), truth)
    theirs = {beta: result["binary"] for beta, result in metrics.get().items()}
    ours = derive([count_image(prediction, truth, protocol=PROTOCOLS["standard"])], PROTOCOLS["standard"])
    assert ours.overall["f1"].value == pytest.approx(theirs[1])
    assert ours.overall["f1"].value != pytest.approx(theirs[0.3])


def test_pooled_and_mean_iou_agree_with_pyirstdmetrics():
    reference = pytest.importorskip(
        "py_irstd_metrics", reason="needs `pip install --no-deps pyirstdmetrics` and scikit-image"
    )
    rng = np.random.default_rng(1)
    handlers = {
        name: reference.IoUHandler(with_dynamic=False, with_binary=True, sample_based=name == "niou")
        for name in ("iou", "niou")
    }
    metrics, counts = reference.CMMetrics(metric_handlers=handlers), []
    for _ in range(10):
        truth, prediction = rng.random((2, 20, 20)) < rng.random()
        metrics.update(prediction.astype(float), truth)
        counts.append(count_image(prediction, truth, protocol=PROTOCOLS["standard"]))
    overall = derive(counts, PROTOCOLS["standard"]).overall
    for name, result in metrics.get().items():
        assert overall[name].value == pytest.approx(result["binary"])


def test_two_empty_masks_are_perfect_under_standard_and_nothing_under_ismallnet():
    empty = np.zeros((8, 8), bool)
    values = {
        name: derive([count_image(empty, empty, protocol=PROTOCOLS[name])], PROTOCOLS[name])
        .overall["niou"]
        .value
        for name in ("standard", "ismallnet")
    }
    assert values == {"standard": 1.0, "ismallnet": 0.0}


def test_with_no_positive_anywhere_pooled_rates_are_nan_and_fa_is_zero():
    empty = np.zeros((8, 8), bool)
    overall = derive(
        [count_image(empty, empty, protocol=PROTOCOLS["standard"])], PROTOCOLS["standard"]
    ).overall
    assert all(np.isnan(overall[name].value) for name in ("iou", "precision", "recall", "f1", "pd"))
    assert overall["fa"].value == overall["false_components"].value == 0


def test_fa_is_false_pixels_over_all_pixels_of_images_of_different_size():
    small, large = np.zeros((10, 10), bool), np.zeros((30, 30), bool)
    alarm = small.copy()
    alarm[3:5, 3:5] = True
    counts = [
        count_image(alarm, small, protocol=PROTOCOLS["standard"]),
        count_image(large, large, protocol=PROTOCOLS["standard"]),
    ]
    overall = derive(counts, PROTOCOLS["standard"]).overall
    assert overall["fa"].value == 4 / 1000
    assert overall["false_components"].value == 1 / 2


def varied(n: int = 40) -> list[ImageCount]:
    rng = np.random.default_rng(5)
    return [pixels(*(int(v) for v in rng.integers(0, 30, 3)), id=str(index)) for index in range(n)]


def test_the_interval_is_that_of_resampled_images_rederived_one_by_one():
    counts, standard = varied(), PROTOCOLS["standard"]
    low, high = derive(counts, standard, bootstrap=4000, seed=1).overall["iou"][1:]
    rng = np.random.default_rng(9)  # another generator, images drawn as indices
    drawn = [
        derive([counts[index] for index in rng.integers(0, len(counts), len(counts))], standard)
        for _ in range(1500)
    ]
    expected = np.percentile([rates.overall["iou"].value for rates in drawn], [2.5, 97.5])
    assert (low, high) == pytest.approx(tuple(expected), abs=0.006)


def test_every_rate_has_an_interval_that_holds_its_value():
    for name, rate in derive(varied(), PROTOCOLS["standard"], bootstrap=300).overall.items():
        assert rate.low <= rate.value <= rate.high, name


def test_the_seed_decides_the_interval_and_nothing_else():
    first, again, other = (
        derive(varied(), PROTOCOLS["standard"], bootstrap=100, seed=s).overall["iou"] for s in (1, 1, 2)
    )
    assert first == again
    assert first.value == other.value
    assert first.low != other.low


def test_without_bootstrap_there_is_no_interval():
    rate = derive(varied(), PROTOCOLS["standard"]).overall["iou"]
    assert np.isnan([rate.low, rate.high]).all()


def test_the_interval_of_equal_images_is_a_point():
    rate = derive([pixels(3, 1, 1)] * 5, PROTOCOLS["standard"], bootstrap=50).overall["iou"]
    assert rate == (0.6, 0.6, 0.6)


def test_strata_are_the_targets_of_a_bin():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 4, (60, 60))
    truth = np.zeros((60, 60), bool)
    truth[5:7, 5:7] = truth[30:35, 30:35] = True  # 4 and 25 pixels
    image[truth] += 80
    prediction = truth.copy()
    prediction[5:7, 5:7] = False
    prediction[30, 30:35] = False
    count = count_image(prediction, truth, protocol=PROTOCOLS["standard"], image=image)
    strata = {(s.property, s.label): s for s in derive([count], PROTOCOLS["standard"]).strata}
    assert (strata["area", "<=9"].targets, strata["area", "10-25"].targets) == (1, 1)
    assert (strata["area", "<=9"].pd.value, strata["area", "10-25"].pd.value) == (0, 1)
    assert strata["area", "10-25"].recall.value == 20 / 25
    assert strata["eccentricity", "<0.5"].targets == 2
    assert strata["scr", ">6"].targets == 2
    assert np.isnan(strata["area", ">64"].pd.value)


def test_strata_and_boxes_are_absent_where_they_were_not_counted():
    rates = derive(varied(), PROTOCOLS["standard"])
    assert rates.strata == ()
    assert "ap50" not in rates.overall


def test_a_perfect_score_map_has_a_box_ap_of_one():
    truth = np.zeros((40, 40), bool)
    truth[5:8, 5:8] = truth[20:24, 20:24] = True
    count = count_image(truth, truth, protocol=PROTOCOLS["standard"], score=truth.astype(np.float32))
    overall = derive([count], PROTOCOLS["standard"], bootstrap=20).overall
    assert overall["ap50"] == overall["ap"] == (1, 1, 1)


def test_boxes_are_of_the_map_above_the_floor_and_scored_by_their_peak():
    score = np.zeros((20, 20), np.float32)
    score[2:5, 2:5] = 0.06
    score[3, 3] = 0.4
    score[10, 10] = 0.05  # not above the floor
    count = count_image(score > 0.5, score > 0.05, protocol=PROTOCOLS["standard"], score=score)
    assert count.boxes is not None
    assert count.boxes.score.tolist() == [pytest.approx(0.4)]
    assert count.boxes.hit.all()


def test_no_image_and_negative_bootstraps_are_refused():
    with pytest.raises(ValueError, match="no image was counted"):
        derive([], PROTOCOLS["standard"])
    with pytest.raises(ValueError, match="bootstrap is -1"):
        derive(varied(), PROTOCOLS["standard"], bootstrap=-1)


def cluttered(*targets: tuple[float, float]) -> ImageCount:
    """An image with that gain and suppression of each of its targets."""
    gain, suppression = np.array(targets, float).reshape(-1, 2).T
    blank = np.ones(len(targets))
    details = TargetCounts(blank, blank, blank, blank > 0, blank, gain, suppression)
    return dataclasses.replace(pixels(1, 0, 0), details=details)


def test_gain_is_the_median_over_images_of_the_mean_over_targets():
    """Means 3, 10, infinity; one image with no target whose gain is defined is left out."""
    nan, inf = np.nan, np.inf
    counts = [
        cluttered((2, 1), (4, 3)),
        cluttered((10, 8), (nan, nan)),
        cluttered((inf, inf)),
        cluttered((nan, nan)),
    ]
    overall = derive(counts, PROTOCOLS["standard"]).overall
    assert overall["scr_gain"].value == 10
    assert overall["suppression"].value == 8
    assert overall["flat_rings"].value == 1 / 4  # of the targets whose ring is not flat in the image
    assert derive(counts[:2], PROTOCOLS["standard"]).overall["scr_gain"].value == 3  # of two the lower
    assert np.isnan(derive(counts[3:], PROTOCOLS["standard"]).overall["scr_gain"].value)


def test_interval_of_the_gain_is_between_gains_that_were_seen():
    counts = [cluttered((gain, 2 * gain)) for gain in range(1, 40)] + [cluttered((np.inf, np.inf))] * 30
    gain = derive(counts, PROTOCOLS["standard"], bootstrap=200).overall["scr_gain"]
    assert gain.value == 35
    assert {gain.low, gain.high} <= {*map(float, range(1, 40)), np.inf}
    assert gain.low < gain.value < gain.high


def test_gain_is_not_reported_unless_every_image_has_it():
    without = dataclasses.replace(pixels(1, 0, 0), details=None)
    assert "scr_gain" not in derive([cluttered((2, 1)), without], PROTOCOLS["standard"]).overall
