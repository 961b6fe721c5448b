"""Pixel counts and ratios, against torchmetrics and by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex, BinaryPrecision, BinaryRecall

from ismallnet.metrics.pixel import count_pixels, harmonic_mean, iou, precision, recall


def test_counts_of_a_5x5_example():
    truth, prediction = np.zeros((2, 5, 5), bool)
    truth[1:3, 1:3] = True
    prediction[2, 1:4] = True
    assert count_pixels(prediction, truth) == (2, 1, 2)


def test_pooled_ratios_agree_with_torchmetrics():
    rng = np.random.default_rng(0)
    truth, prediction = rng.random((6, 40, 50)) < 0.1, rng.random((6, 40, 50)) < 0.2
    prediction |= truth & (rng.random((6, 40, 50)) < 0.7)
    tp, fp, fn = np.sum([count_pixels(p, t) for p, t in zip(prediction, truth, strict=True)], axis=0)
    ours = (
        iou(tp, fp, fn),
        precision(tp, fp),
        recall(tp, fn),
        harmonic_mean(precision(tp, fp), recall(tp, fn)),
    )
    reference = [BinaryJaccardIndex(), BinaryPrecision(), BinaryRecall(), BinaryF1Score()]
    for value, metric in zip(ours, reference, strict=True):
        expected = metric(torch.from_numpy(prediction).int(), torch.from_numpy(truth).int())
        assert value == pytest.approx(expected.item(), abs=1e-7)


def test_empty_cases_are_nan_unless_stated():
    assert np.isnan([iou(0, 0, 0), precision(0, 0), recall(0, 0), harmonic_mean(0, 0)]).all()
    assert np.isnan(harmonic_mean(np.nan, 0.5))
    assert (iou(0, 0, 0, empty=1), precision(0, 0, empty=0), recall(0, 0, empty=0)) == (1, 0, 0)


def test_an_empty_value_that_is_an_integer_keeps_fractions():
    assert iou([1, 0], [1, 0], [0, 0], empty=0).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4))])
def test_masks_that_are_not_boolean_are_refused(bad):
    with pytest.raises(TypeError, match="pass a boolean mask"):
        count_pixels(bad, np.zeros((4, 4), bool))
    with pytest.raises(TypeError, match="truth has dtype"):
        count_pixels(np.zeros((4, 4), bool), bad)


def test_masks_of_two_sizes_are_refused_as_misc_111_would_be():
    with pytest.raises(ValueError, match=r"\(220, 325\) and truth \(400, 592\).*nearest"):
        count_pixels(np.zeros((220, 325), bool), np.zeros((400, 592), bool))
