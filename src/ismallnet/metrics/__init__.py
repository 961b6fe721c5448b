"""Count, add, derive: the quantities of infrared small-target detection under named protocols.

>>> import numpy as np
>>> truth = np.zeros((5, 5), bool); truth[1:3, 1:3] = True
>>> prediction = np.zeros((5, 5), bool); prediction[1, 1:3] = prediction[4, 4] = True
>>> count = count_image(prediction, truth, protocol=PROTOCOLS["standard"])
>>> count.tp, count.fp, count.fn, count.matched, count.false_pixels
(2, 1, 2, 1, 1)
"""

from ismallnet.metrics.counts import ImageCount, TargetCounts, count_image
from ismallnet.metrics.curves import Curve, Curves, Sweep
from ismallnet.metrics.protocols import PROTOCOLS, Protocol, get_protocol
from ismallnet.metrics.rates import Rate, Rates, StratumRate, derive
from ismallnet.metrics.report import Report

__all__ = [
    "PROTOCOLS",
    "Curve",
    "Curves",
    "ImageCount",
    "Protocol",
    "Rate",
    "Rates",
    "Report",
    "StratumRate",
    "Sweep",
    "TargetCounts",
    "count_image",
    "derive",
    "get_protocol",
]
