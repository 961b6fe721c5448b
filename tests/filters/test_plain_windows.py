"""What `examples/filter_speed.py` times the filters against has the filters' responses."""

from __future__ import annotations

from typing import Any

import numpy as np
import plain_windows
import pytest
from numpy.typing import NDArray
from plain_lowrank import cloud, toy

from ismallnet.filters.background import max_median, top_hat
from ismallnet.filters.contrast import lcm, tllcm

FILTERS = pytest.mark.parametrize("fast", [top_hat, max_median, lcm, tllcm])


@FILTERS
@pytest.mark.parametrize("image", [toy(64), cloud(48)[:, :40], np.rint(cloud(40))])
def test_plain_version_has_the_response_to_1e_6(fast: Any, image: NDArray[np.float64]) -> None:
    plain = getattr(plain_windows, fast.__name__)
    np.testing.assert_allclose(plain(image), fast(image), rtol=0, atol=1e-6)
