"""How much faster the filters are than the same steps written down plainly, and how far the responses differ.

OMP_NUM_THREADS=1 python examples/filter_speed.py --repeats 3

Plain and fast take turns in one run; of each the quickest turn counts. The plain filters are those that the
tests compare with. IPI and RIPT: full singular value decompositions in place of Gram matrices; patches are
cut and joined alike, so that the ratio is that of the solvers. On a machine that does other things as well
the ratio of processor times is the steadier one.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "filters"))

import plain_lowrank

from ismallnet.data.clutter import cloud
from ismallnet.filters.lowrank import LowRank
from ismallnet.filters.patch_image import ipi_decompose
from ismallnet.filters.patch_tensor import ript_decompose

Array = NDArray[np.float64]


class Answer(NamedTuple):
    """A response, (H, W), and the iterations it took; None where a filter has none."""

    response: Array
    iterations: int | None = None


class Row(NamedTuple):
    """A filter twice: image to answer."""

    name: str
    plain: Callable[[Array], Answer]
    fast: Callable[[Array], Answer]


def low_rank(decompose: Callable[[Array], LowRank]) -> Callable[[Array], Answer]:
    """Make a filter of a low-rank decomposition."""

    def respond(image: Array) -> Answer:
        split = decompose(image)
        return Answer(np.maximum(split.target, 0), split.iterations)

    return respond


ROWS = (
    Row("ipi", low_rank(plain_lowrank.ipi), low_rank(ipi_decompose)),
    Row("ript", low_rank(plain_lowrank.ript), low_rank(ript_decompose)),
)
"""Another filter is another row."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=256, help="of the cloud image, in pixels")
    options = parser.parse_args()
    images = {"toy 128": plain_lowrank.toy(), f"cloud {options.side}": scene(options.side)}
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores,")
    print(f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, ", end="")
    print(f"NumPy {np.__version__}, SciPy {scipy.__version__}, quickest of {options.repeats}")
    print("filter  image      plain ms   fast ms  ratio  CPU ratio  iterations  max difference")
    for row in ROWS:
        for name, image in images.items():
            print(f"{row.name:7} {name:9} {compare(row, image, options.repeats)}", flush=True)


def scene(side: int) -> Array:
    """Return a cloud image of grey levels with a target of 60 levels."""
    y, x = np.mgrid[:side, :side] - np.array([0.4, 0.6])[:, None, None] * side
    field = cloud(np.random.default_rng(0), side, side)
    return np.asarray(255 * field + 60 * np.exp(-(y**2 + x**2) / (2 * 1.5**2)))


def compare(row: Row, image: Array, repeats: int) -> str:
    """Time both filters in turn."""
    turns = [(timed(row.plain, image), timed(row.fast, image)) for _ in range(repeats)]
    (plain_s, plain_cpu_s), (fast_s, fast_cpu_s) = (
        [min(turn[which][clock] for turn in turns) for clock in (1, 2)] for which in (0, 1)
    )
    plain, fast = turns[-1][0][0], turns[-1][1][0]
    difference = np.abs(plain.response - fast.response).max()
    ratio, cpu_ratio = plain_s / fast_s, plain_cpu_s / fast_cpu_s
    iterations = "-" if plain.iterations is None else f"{plain.iterations} / {fast.iterations}"
    return (
        f"{1000 * plain_s:9.1f} {1000 * fast_s:9.1f} {ratio:6.1f} {cpu_ratio:10.1f} "
        f"{iterations:>11} {difference:15.1e}"
    )


def timed(function: Callable[[Array], Answer], image: Array) -> tuple[Answer, float, float]:
    """Return the answer, the seconds on the wall and those of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    answer = function(image)
    return answer, time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    main()
