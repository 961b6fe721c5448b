"""Exact sweeps, against torchmetrics for pixels and against labelling at every threshold for targets."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from ismallnet.metrics import Sweep
from ismallnet.metrics.curves import sweep_components, sweep_pixels
from ismallnet.metrics.target import components, match


def smooth_scores(seed: int, *, levels: int | None = None) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((28, 30)), 1.2)
    score = (noise - noise.min()) / np.ptp(noise)
    return (score if levels is None else np.round(score * levels) / levels).astype(np.float32)


def spots(seed: int, count: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed + 50)
    mask = np.zeros((28, 30), bool)
    for y, x in rng.integers(1, 26, (count, 2)):
        mask[y : y + 2, x : x + 2] = True
    return mask


@pytest.mark.parametrize("levels", [None, 20, 1])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_areas_agree_with_torchmetrics(seed, levels):
    score, truth = smooth_scores(seed, levels=levels), spots(seed)
    score = np.clip(score + 0.2 * truth, 0, 1).astype(np.float32)
    roc, pr = sweep_pixels(score[truth], score[~truth])
    flat, target = torch.from_numpy(score.reshape(-1)), torch.from_numpy(truth.reshape(-1)).int()
    assert roc.area == pytest.approx(binary_auroc(flat, target).item(), abs=1e-6)
    assert pr.area == pytest.approx(binary_average_precision(flat, target).item(), abs=1e-6)


def test_pixel_curves_of_four_scores_by_hand():
    roc, pr = sweep_pixels(np.array([0.9, 0.4], np.float32), np.array([0.6, 0.1], np.float32))
    assert roc.area == 0.75  # three of the four pairs of a true and a background pixel are in order
    assert pr.area == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert list(zip(pr.x, pr.y, strict=True)) == [(0.5, 1.0), (1.0, pytest.approx(2 / 3))]
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)


def test_a_score_that_says_nothing_has_half_the_roc_area():
    same = np.full(10, 0.3, np.float32)
    assert sweep_pixels(same[:3], same)[0].area == 0.5


def test_areas_without_a_true_pixel_are_nan():
    roc, pr = sweep_pixels(np.zeros(0, np.float32), np.zeros(5, np.float32))
    assert np.isnan([roc.area, pr.area]).all()


@pytest.mark.parametrize("levels", [None, 12])
@pytest.mark.parametrize("seed", range(4))
def test_the_component_sweep_is_labelling_at_every_distinct_score(seed, levels):
    score, truth = smooth_scores(seed, levels=levels), components(spots(seed)).centroid
    floor = 0.3
    events = sweep_components(score, truth, floor=floor)
    totals = np.cumsum(events[:, 1:], axis=0)
    for value in np.unique(score[score > floor]):
        labels, count = ndimage.label(score >= value, np.ones((3, 3)))
        centroids = np.array(ndimage.center_of_mass(labels > 0, labels, range(1, count + 1)))
        matched = int((match(truth, centroids) >= 0).sum())
        reached = np.flatnonzero(events[:, 0] >= value)
        assert totals[reached[-1]].tolist() == [matched, count - matched]


def test_the_component_sweep_of_a_map_below_the_floor_is_empty():
    assert sweep_components(np.zeros((5, 5), np.float32), np.zeros((1, 2)), floor=0.05).shape == (0, 3)


def test_froc_of_two_images_by_hand():
    """Targets at 0.9 and 0.5, a false component at 0.7: Pd is 1/2 for free, 1 at 1/2 false ones an image."""
    sweep = Sweep(floor=0.05)
    for target, false in ((0.9, 0.7), (0.5, 0.0)):
        truth = np.zeros((12, 12), bool)
        truth[2, 2] = True
        score = np.where(truth, target, 0).astype(np.float32)
        score[9, 9] = false
        sweep.add(score, truth)
    froc = sweep.curves().froc
    assert list(zip(froc.x, froc.y, strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1)]
    assert froc.threshold == pytest.approx([np.inf, 0.9, 0.7, 0.5])
    assert froc.area == 0.5 * 0.5 + 0.5 * 1


def test_froc_of_silence_is_zero_and_without_targets_nan():
    silent, blind = Sweep(floor=0.05), Sweep(floor=0.05)
    truth = np.zeros((6, 6), bool)
    blind.add(np.zeros((6, 6), np.float32), truth.copy())
    truth[2, 2] = True
    silent.add(np.zeros((6, 6), np.float32), truth)
    assert silent.curves().froc.area == 0
    assert np.isnan(blind.curves().froc.area)


def test_curves_of_no_image_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        Sweep(floor=0.05).curves()
