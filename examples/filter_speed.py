"""How much faster the filters are than the same steps written down plainly, and how far the responses differ.

OMP_NUM_THREADS=1 python examples/filter_speed.py --repeats 3
OMP_NUM_THREADS=1 python examples/filter_speed.py --root /data --images 4 --out results/filter_speed.csv

Plain and fast take turns in one run; of the times the quickest call counts, of the ratios the median. A turn
is one call, or four in a row where a call takes milliseconds: after the other one's turn the first one has to
get its memory from the system again. The plain filters are in tests/filters:

- IPI and RIPT with full singular value decompositions in place of Gram matrices; patches are cut and joined
  alike, so that the ratio is that of the solvers. Responses are compared at the same number of iterations,
  the smaller one of the two;
- the others with NumPy's sliding windows. Max-median and TLLCM are faster on the real images, which are
  8-bit, than on the made ones, whose grey levels are no whole numbers.

Times are on the wall and of the processor (`cpu`), this process's own. On a machine that does other things as
well, those of the processor and their ratio are the steadier ones.

With a root, also the first images of 55,000 to 85,000 pixels of the train lists of NUAA-SIRST and NUDT-SIRST.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "filters"))

import plain_lowrank
import plain_windows

from ismallnet import data
from ismallnet.data.clutter import cloud
from ismallnet.evaluate import provenance
from ismallnet.filters.background import max_median, top_hat
from ismallnet.filters.contrast import lcm, tllcm
from ismallnet.filters.lowrank import LowRank
from ismallnet.filters.patch_image import ipi_decompose
from ismallnet.filters.patch_tensor import ript_decompose

Array = NDArray[np.float64]


class Answer(NamedTuple):
    """A response, (H, W), and the iterations it took; None where a filter has none."""

    response: Array
    iterations: int | None = None


class Row(NamedTuple):
    """A filter twice: image, and at most so many iterations, to answer."""

    name: str
    plain: Callable[..., Answer]
    fast: Callable[..., Answer]
    calls: int = 1
    """In a row, in every turn."""


class Comparison(NamedTuple):
    """Of plain and fast; times in ms, the CPU's of its own clock."""

    plain_ms: float
    fast_ms: float
    plain_cpu_ms: float
    fast_cpu_ms: float
    ratio: float
    cpu_ratio: float
    plain_iterations: int | None
    fast_iterations: int | None
    difference: float

    def __str__(self) -> str:
        counts = "-" if self.plain_iterations is None else f"{self.plain_iterations} / {self.fast_iterations}"
        return (
            f"{self.plain_ms:9.1f} {self.fast_ms:9.1f} {self.ratio:6.1f} {self.cpu_ratio:10.1f} "
            f"{counts:>11} {self.difference:15.1e}"
        )


def low_rank(decompose: Callable[..., LowRank]) -> Callable[..., Answer]:
    """Make a filter of a low-rank decomposition."""

    def respond(image: Array, **options: int) -> Answer:
        split = decompose(image, **options)
        return Answer(np.maximum(split.target, 0), split.iterations)

    return respond


def windowed(function: Callable[[Array], Array]) -> Callable[..., Answer]:
    """Make a filter of one that has no iterations."""
    return lambda image: Answer(function(image))


ROWS = (
    Row("top-hat", windowed(plain_windows.top_hat), windowed(top_hat), calls=4),
    Row("max-median", windowed(plain_windows.max_median), windowed(max_median), calls=4),
    Row("lcm", windowed(plain_windows.lcm), windowed(lcm), calls=4),
    Row("tllcm", windowed(plain_windows.tllcm), windowed(tllcm), calls=4),
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
    parser.add_argument("--root", type=Path, help="the folder with NUAA-SIRST/ and NUDT-SIRST/")
    parser.add_argument("--images", type=int, default=4, help="so many of each data set")
    parser.add_argument("--out", type=Path, help="a CSV file of what is printed")
    options = parser.parse_args()
    origin = {key: provenance()[key] for key in ("date", "commit", "hardware")}
    images = {"toy 128": plain_lowrank.toy(), f"cloud {options.side}": scene(options.side)}
    images.update(real(options.root, options.images) if options.root else ())
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores,")
    print(f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, ", end="")
    print(f"NumPy {np.__version__}, SciPy {scipy.__version__}, {options.repeats} turns")
    print(f"{'':24} plain ms   fast ms  ratio  CPU ratio  iterations  max difference")
    table = []
    for row in ROWS:
        for name, image in images.items():
            compared = compare(row, image, options.repeats)
            print(f"{row.name:10} {name:19} {compared}", flush=True)
            size = {"height": image.shape[0], "width": image.shape[1], "repeats": options.repeats * row.calls}
            table.append({"filter": row.name, "image": name} | size | compared._asdict() | origin)
    if options.out:
        with options.out.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)


def real(root: Path, count: int) -> Iterator[tuple[str, Array]]:
    """Yield images of the train lists, with the name of the data set and the identifier."""
    for name in ("NUAA-SIRST", "NUDT-SIRST"):
        dataset = data.load(name, root, "train")
        found = 0
        for sample in dataset:
            if found < count and 55_000 <= sample.image.size <= 85_000:
                found += 1
                yield f"{name} {sample.id}", sample.image.astype(np.float64)


def scene(side: int) -> Array:
    """Return a cloud image of grey levels with a target of 60 levels."""
    y, x = np.mgrid[:side, :side] - np.array([0.4, 0.6])[:, None, None] * side
    field = cloud(np.random.default_rng(0), side, side)
    return np.asarray(255 * field + 60 * np.exp(-(y**2 + x**2) / (2 * 1.5**2)))


def compare(row: Row, image: Array, repeats: int) -> Comparison:
    """Time both filters in turn, so many turns each."""
    turns = [[timed(which, image, row.calls) for which in (row.plain, row.fast)] for _ in range(repeats)]
    plain, fast = (answer for answer, _ in turns[-1])
    seconds = np.array([[times for _, times in turn] for turn in turns])  # (turns, 2, calls, 2): which, clock
    counts = plain.iterations, fast.iterations
    if plain.iterations is not None and fast.iterations is not None and plain.iterations != fast.iterations:
        fewer = min(plain.iterations, fast.iterations)
        plain, fast = row.plain(image, iterations=fewer), row.fast(image, iterations=fewer)
    (plain_ms, plain_cpu_ms), (fast_ms, fast_cpu_ms) = (1000 * seconds.min((0, 2))).tolist()
    ratio, cpu_ratio = np.median(seconds[:, 0] / seconds[:, 1], axis=(0, 1)).tolist()
    difference = float(np.abs(plain.response - fast.response).max())
    return Comparison(
        plain_ms, fast_ms, plain_cpu_ms, fast_cpu_ms, ratio, cpu_ratio, *counts, difference=difference
    )


def timed(function: Callable[[Array], Answer], image: Array, calls: int) -> tuple[Answer, Array]:
    """Return the answer and, for every call, the seconds on the wall and those of the processor."""
    seconds = np.empty((calls, 2))
    for call in seconds:
        wall, processor = time.perf_counter(), time.process_time()
        answer = function(image)
        call[:] = time.perf_counter() - wall, time.process_time() - processor
    return answer, seconds


if __name__ == "__main__":
    main()
