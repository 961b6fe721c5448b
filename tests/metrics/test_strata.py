"""The bins are those of the issue and cover every target once."""

import numpy as np
import pytest

from ismallnet.metrics.strata import STRATA

SIZE, SHAPE, CONTRAST = STRATA


@pytest.mark.parametrize(
    ("stratum", "value", "label"),
    [
        (SIZE, 1, "<=9"),
        (SIZE, 9, "<=9"),
        (SIZE, 10, "10-25"),
        (SIZE, 25, "10-25"),
        (SIZE, 26, "26-64"),
        (SIZE, 64, "26-64"),
        (SIZE, 65, ">64"),
        (SHAPE, 0.0, "<0.5"),
        (SHAPE, 0.5, "0.5-0.75"),
        (SHAPE, 0.89, "0.75-0.9"),
        (SHAPE, 0.9, ">=0.9"),
        (CONTRAST, 0.99, "<1"),
        (CONTRAST, 1.0, "1-3"),
        (CONTRAST, 5.9, "3-6"),
        (CONTRAST, 6.1, ">6"),
    ],
)
def test_a_value_falls_into_the_bin_of_its_label(stratum, value, label):
    assert stratum.labels[stratum.bins(np.array([value]))[0]] == label


def test_a_contrast_that_is_not_defined_is_in_no_bin():
    assert CONTRAST.bins(np.array([np.nan])).tolist() == [-1]


def test_every_stratum_has_a_label_for_each_bin():
    assert all(len(stratum.labels) == len(stratum.edges) + 1 for stratum in STRATA)
