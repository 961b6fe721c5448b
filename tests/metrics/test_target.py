"""Components, their matching and their properties; the traps of the field's evaluators by name."""

from itertools import permutations

import numpy as np
import pytest
from scipy import ndimage

from ismallnet.metrics import PROTOCOLS, count_image
from ismallnet.metrics.target import (
    components,
    eccentricity,
    gain_and_suppression,
    match,
    signal_to_clutter,
)


def blobs(seed: int, count: int, shape=(64, 64)) -> np.ndarray:
    """Random rectangles, some of them touching."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    for y, x, h, w in zip(*rng.integers(0, 60, (2, count)), *rng.integers(1, 5, (2, count)), strict=True):
        mask[y : y + h, x : x + w] = True
    return mask


def moved(mask: np.ndarray, seed: int) -> np.ndarray:
    """The same components, each shifted by up to 3 pixels, and some invented."""
    rng = np.random.default_rng(seed)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    out = blobs(seed + 1000, 4)
    for index in range(1, count + 1):
        out |= np.roll(labels == index, tuple(rng.integers(-3, 4, 2)), (0, 1))
    return out


def square(y: int, x: int, side: int, shape=(32, 32)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_components_are_8_connected_and_in_raster_order():
    mask = np.array([[0, 0, 0, 1, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], bool)
    found = components(mask)
    assert found.area.tolist() == [2, 2, 1]
    assert found.centroid.tolist() == [[0.5, 2.5], [1.5, 0], [3, 4]]
    assert found.box.tolist() == [[0, 2, 2, 4], [1, 0, 3, 1], [3, 4, 4, 5]]


def test_raster_order_holds_where_block_based_labelling_gives_another():
    mask = np.zeros((6, 30), bool)
    mask[1, 0] = mask[0, 20] = True  # 2x2 blocks would number the left one first
    assert components(mask).centroid.tolist() == [[0, 20], [1, 0]]


@pytest.mark.parametrize("seed", range(4))
def test_components_agree_with_scikit_image(seed):
    measure = pytest.importorskip("skimage.measure", reason="scikit-image is the reference here")
    mask = blobs(seed, 25)
    found, expected = components(mask), measure.regionprops(measure.label(mask, connectivity=2))
    assert found.area.tolist() == [region.area for region in expected]
    assert found.box.tolist() == [list(region.bbox) for region in expected]
    np.testing.assert_allclose(found.centroid, [region.centroid for region in expected], atol=1e-12)
    variances = (
        np.array([region.inertia_tensor_eigvals for region in expected]) + 1 / 12
    )  # pixels as unit squares
    np.testing.assert_allclose(eccentricity(found), np.sqrt(1 - variances[:, 1] / variances[:, 0]), atol=1e-6)


def test_an_empty_mask_has_no_component():
    found = components(np.zeros((8, 9), bool))
    assert len(found) == 0
    assert found.centroid.shape == (0, 2)
    assert eccentricity(found).shape == (0,)


def best_by_hand(truth: np.ndarray, prediction: np.ndarray) -> tuple[int, float]:
    """Most pairs, then least distance, by trying every assignment."""
    distance = np.linalg.norm(truth[:, None] - prediction[None], axis=2)
    padded = np.full((len(truth), len(prediction) + len(truth)), np.inf)
    padded[:, : len(prediction)] = np.where(distance < 3, distance, np.inf)
    best = (0, 0.0)
    for columns in permutations(range(padded.shape[1]), len(truth)):
        chosen = padded[np.arange(len(truth)), list(columns)]
        pairs = int(np.isfinite(chosen).sum())
        best = min(best, (-pairs, float(chosen[np.isfinite(chosen)].sum())))
    return -best[0], best[1]


@pytest.mark.parametrize("seed", range(30))
def test_bipartite_matching_has_the_most_pairs_and_then_the_least_distance(seed):
    rng = np.random.default_rng(seed)
    truth, prediction = rng.uniform(0, 6, (4, 2)), rng.uniform(0, 6, (3, 2))
    partner = match(truth, prediction)
    rows = np.flatnonzero(partner >= 0)
    distance = np.linalg.norm(truth[rows] - prediction[partner[rows]], axis=1)
    pairs, total = best_by_hand(truth, prediction)
    assert len(rows) == pairs == len(set(partner[rows]))
    assert distance.sum() == pytest.approx(total)
    assert (distance < 3).all()


def test_trap_2_greedy_matching_depends_on_order_and_bipartite_does_not():
    truth = np.array([[0.0, 0.0], [0.0, 4.0]])
    near_both, near_first = [0.0, 2.0], [0.0, -2.0]
    forwards, backwards = np.array([near_both, near_first]), np.array([near_first, near_both])
    assert [(match(truth, p, method="greedy") >= 0).sum() for p in (forwards, backwards)] == [1, 2]
    assert [(match(truth, p) >= 0).sum() for p in (forwards, backwards)] == [2, 2]


def test_the_most_pairs_come_before_the_least_distance():
    truth = np.array([[0.0, 0.0], [0.0, 2.9]])
    prediction = np.array(
        [[0.0, 0.1], [0.0, -2.8]]
    )  # 0.1 alone is nearest, but leaves the second target missed
    assert match(truth, prediction).tolist() == [1, 0]


@pytest.mark.parametrize("method", ["bipartite", "greedy"])
def test_exactly_three_pixels_are_too_far(method):
    origin = np.zeros((1, 2))
    assert match(origin, np.array([[0.0, 3.0]]), method=method).tolist() == [-1]
    assert match(origin, np.array([[0.0, np.nextafter(3, 0)]]), method=method).tolist() == [0]


def test_nothing_to_match_is_no_match():
    none, one = np.zeros((0, 2)), np.zeros((1, 2))
    assert match(none, one).tolist() == []
    assert match(one, none).tolist() == [-1]


def test_an_unknown_matching_is_refused():
    with pytest.raises(ValueError, match="choose from bipartite, greedy"):
        match(np.zeros((1, 2)), np.zeros((1, 2)), method="nearest")  # type: ignore[arg-type]


def test_trap_1_false_alarms_go_by_identity_not_by_area():
    """Predicted areas 4, 4, 9 with one 4 matched: 13 false pixels; `x not in matched_areas` says 9."""
    truth = square(2, 2, 2)
    prediction = truth | square(2, 20, 2) | square(20, 20, 3)
    for protocol in PROTOCOLS.values():
        count = count_image(prediction, truth, protocol=protocol)
        assert (count.matched, count.false_components, count.false_pixels) == (1, 2, 13)


def test_trap_3_one_blob_over_two_targets_matches_at_most_one():
    truth = square(10, 10, 2) | square(10, 13, 2)
    blob = np.zeros((32, 32), bool)
    blob[10:12, 10:15] = True
    count = count_image(blob, truth, protocol=PROTOCOLS["standard"])
    assert (count.targets, count.matched, count.predicted, count.false_pixels) == (2, 1, 1, 0)


def test_trap_3_a_second_blob_beside_a_matched_target_is_a_false_alarm():
    truth = square(10, 10, 3)
    prediction = square(10, 9, 1) | square(10, 11, 2)  # both centroids within 3 px
    count = count_image(prediction, truth, protocol=PROTOCOLS["standard"])
    assert (count.matched, count.false_components, count.false_pixels) == (1, 1, 1)


@pytest.mark.parametrize("method", ["greedy", "bipartite"])
def test_target_counts_agree_with_pyirstdmetrics(method):
    reference = pytest.importorskip(
        "py_irstd_metrics", reason="needs `pip install --no-deps pyirstdmetrics` and scikit-image"
    )
    metric = reference.ProbabilityDetectionAndFalseAlarmRate()
    counts = []
    for seed in range(40):
        truth = blobs(seed, 5)
        prediction = moved(truth, seed)
        protocol = PROTOCOLS["basicirstd" if method == "greedy" else "standard"]
        one = reference.ProbabilityDetectionAndFalseAlarmRate()
        one.update(prediction.astype(float), truth)
        count = count_image(prediction, truth, protocol=protocol)
        if method == "bipartite" and count.matched != one.tp_objs[0]:
            assert count.matched > one.tp_objs[0]  # the reference is greedy, it can only lose pairs
            continue
        metric.update(prediction.astype(float), truth)
        counts.append(count)
    assert len(counts) >= 30
    assert [sum(c.matched for c in counts), sum(c.false_components for c in counts)] == [
        metric.tp_objs[0],
        metric.fp_objs[0],
    ]
    if method == "greedy":
        expected = metric.get()
        pd = sum(c.matched for c in counts) / sum(c.targets for c in counts)
        fa = sum(c.false_pixels for c in counts) / sum(c.pixels for c in counts)
        assert (pd, fa) == pytest.approx(
            (expected["probability_detection"][0], expected["false_alarm"][0]), abs=1e-15
        )


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.ones((1, 1), bool), 0),
        (np.ones((3, 3), bool), 0),
        (np.ones((1, 2), bool), np.sqrt(3) / 2),  # variances 1/4 + 1/12 and 1/12: 1 - 1/4
        (np.eye(2, dtype=bool), np.sqrt(1 - 1 / 7)),  # along 1/2 + 1/12 = 7/12, across 1/12
    ],
)
def test_eccentricity_of_shapes_by_hand(mask, expected):
    assert eccentricity(components(np.pad(mask, 2))) == pytest.approx(expected, abs=1e-9)


def test_signal_to_clutter_by_hand():
    """A target of 10 on a checkerboard of 1 and 3: mean 2, std 1 outside, so (10 - 2) / 1 = 8."""
    image = 1.0 + 2 * (np.indices((9, 9)).sum(axis=0) % 2)
    mask = np.zeros((9, 9), bool)
    mask[4, 4:6] = True
    image[mask] = 10
    ring = image[~mask]
    expected = abs(10 - ring.mean()) / ring.std()
    assert signal_to_clutter(image, mask, components(mask)) == pytest.approx(expected)
    assert expected == pytest.approx(8, abs=0.1)


def test_signal_to_clutter_leaves_other_targets_out_and_stops_20_px_away():
    image = np.random.default_rng(0).normal(100, 5, (80, 80))
    mask = square(30, 30, 2, (80, 80)) | square(40, 40, 2, (80, 80))
    before = signal_to_clutter(image, mask, components(mask))
    image[40:42, 40:42] += 1000  # the other target
    image[:9], image[:, 53:] = 1e6, 1e6  # beyond 30 - 20 and 32 + 20 of the first
    assert signal_to_clutter(image, mask, components(mask))[0] == pytest.approx(before[0])


def test_signal_to_clutter_of_a_dark_target_is_positive_and_of_a_flat_ring_nan():
    mask = square(5, 5, 2)
    assert np.isnan(signal_to_clutter(np.where(mask, 9.0, 4.0), mask, components(mask)))
    noisy = np.random.default_rng(1).normal(100, 5, mask.shape)
    assert signal_to_clutter(np.where(mask, 0, noisy), mask, components(mask)) > 10


def test_signal_to_clutter_of_a_target_that_fills_the_image_is_nan():
    mask = np.ones((4, 4), bool)
    assert np.isnan(signal_to_clutter(np.ones((4, 4)), mask, components(mask)))


def test_counting_takes_bytes_without_overflow():
    image = np.full((32, 32), 250, np.uint8)
    image[::2] = 240
    mask = square(8, 8, 4)
    image[mask] = 255
    assert signal_to_clutter(image, mask, components(mask)) == pytest.approx(10 / 5, abs=0.1)


def chequered(height: float) -> tuple[np.ndarray, np.ndarray]:
    """A target of 2 px and that height on rows of 4 and 8 in turn: the ring has mean 6 and std 2."""
    image = np.full((60, 60), 4.0)
    image[::2] = 8
    mask = np.zeros((60, 60), bool)
    mask[30:32, 30] = True
    return np.where(mask, height, image), mask


def test_gain_and_suppression_by_hand():
    image, mask = chequered(16)
    response = np.where(mask, 30, (image - 4) / 8).astype(np.float32)  # ring of 0 and 0.5, target 30
    gain, suppression = gain_and_suppression(image, response, mask, components(mask))
    assert suppression == 8  # 2 / 0.25
    assert gain == pytest.approx((30 - 0.25) / 0.25 / ((16 - 6) / 2))  # 119 / 5


def test_gain_has_no_unit_and_suppression_has():
    image, mask = chequered(16)
    response = np.where(mask, 30, image / 8).astype(np.float32)
    one = gain_and_suppression(image, response, mask, components(mask))
    ten = gain_and_suppression(image, 10 * response, mask, components(mask))
    assert ten[0] == pytest.approx(one[0])
    assert ten[1] == pytest.approx(one[1] / 10)


def test_gain_in_a_flat_response_is_infinite_or_where_the_target_is_gone_0():
    image, mask = chequered(16)
    found = components(mask)
    assert gain_and_suppression(image, mask.astype(np.float32), mask, found) == (np.inf, np.inf)
    assert gain_and_suppression(image, np.zeros(mask.shape, np.float32), mask, found) == (0, np.inf)


def test_gain_in_a_flat_image_is_not_defined():
    _, mask = chequered(16)
    response = np.random.default_rng(0).random(mask.shape, dtype=np.float32)
    gain, suppression = gain_and_suppression(np.where(mask, 9, 4), response, mask, components(mask))
    assert np.isnan([gain, suppression]).all()
