"""How fast each runtime and precision is, as a ratio to eager fp32 PyTorch in the same run, and how close.

The plain way comes first: the network as it is, in float32, in the default memory format, an image at a time.
Each way lives in a process of its own, as in use; all of all models are timed in turns, so that whatever else
the machine does meets them alike. A row has the median and the middle half of its times. OpenVINO has a graph
for the size by then, as it has for any that comes often.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ismallnet import openvino_cpu
from ismallnet.benchmark.processes import processes
from ismallnet.benchmark.store import Row, Store
from ismallnet.catalogue import NoWeightsError, find_weights
from ismallnet.data.synthetic import scene
from ismallnet.evaluate import package_version, provenance
from ismallnet.export import check, describe, write
from ismallnet.runtimes import (
    RUNTIMES,
    Precision,
    RuntimeName,
    eager,
    has_bf16,
    is_installed,
    name_of,
    open_artefact,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from ismallnet.types import Sample

    Score = Callable[[NDArray[np.float32]], NDArray[np.float32]]
    Ask = Callable[[tuple[NDArray[np.float32], int]], tuple[NDArray[np.float32], float]]
    """From pixels (H, W) in [0, 1], and how often to score them, to the score and the seconds of the last."""

COLUMNS = (
    "model", "weights", "runtime", "precision", "side_px", "threads", "repetitions", "median_ms",
    "quartile_1_ms", "quartile_3_ms", "times_as_fast", "times_as_fast_as_first", "largest_difference",
    "p999_difference", "images", "iou", "iou_torch", "date", "commit", "hardware", "versions",
)  # fmt: skip
PLAIN: tuple[str, Precision] = ("torch", "fp32")
"""What the others are compared with."""
EXPORTED: tuple[tuple[RuntimeName, Precision], ...] = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
FOLDED = "torch, folded, channels last"
"""The inference form of a network in PyTorch."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run a network."""

    model: str
    weights: str
    """`trained` or `random`."""
    runtime: str
    precision: Precision
    artefact: Path | None = None
    """The exported network; None: PyTorch."""

    def __str__(self) -> str:
        return f"{self.model}, {self.runtime}, {self.precision}"

    @property
    def is_plain(self) -> bool:
        """Whether the others are compared with this one."""
        return (self.runtime, self.precision) == PLAIN

    @property
    def before(self) -> int:
        """Times that it is run before it is timed."""
        return openvino_cpu.OFTEN if self.runtime == "openvino" else 3

    def open(self) -> Ask:
        """Open the network in this process."""
        score = self._score()

        def ask(question: tuple[NDArray[np.float32], int]) -> tuple[NDArray[np.float32], float]:
            pixels, times = question
            for _ in range(times - 1):
                score(pixels)
            began = time.perf_counter()
            result = score(pixels)
            return result, time.perf_counter() - began

        return ask

    def _score(self) -> Score:
        bf16 = self.precision == "bf16"
        if self.artefact:
            artefact, _, run = open_artefact(self.artefact, runtime=name_of(self.runtime), bf16=bf16)
            return check.run_score(artefact, run)
        model, _ = network(self.model)
        return _folded_score(model, bf16=bf16) if self.runtime == FOLDED else check.torch_score(model)


def speed(
    models: Sequence[str],
    *,
    out: str | Path,
    samples: Sequence[Sample] = (),
    side: int = 256,
    repetitions: int = 50,
    advance: Callable[[int, int, str], None] | None = None,
) -> list[Row]:
    """Measure every way of every model that is installed here, and write speed.csv.

    Args:
        models: Names or folders; the first is the one that all are compared with too. A network without
            weights is measured with random ones, and has no IoU.
        out: Folder of speed.csv; rows of the same model and side are replaced.
        samples: Images with masks, of train lists, whose pooled IoU is compared; half of them calibrate int8.
        side: Height and width of the images that are timed.
        repetitions: Times that each way is timed, each right after a run that is not.
        advance: Called with what is done, how much there is, and a text.

    Raises:
        ValueError: Fewer than one repetition, or the file has other columns.
        RuntimeError: A process died, as for lack of memory.
    """
    if repetitions < 1:
        raise ValueError(f"repetitions is {repetitions}; give at least 1")
    store = Store(Path(out) / "speed.csv", COLUMNS)
    advance = advance or (lambda *_: None)
    models = tuple(dict.fromkeys(models))
    with tempfile.TemporaryDirectory() as scratch:
        ways: list[Way] = []
        for done, name in enumerate(models):
            advance(done, len(models), f"graphs of {name}")
            ways += _ways(name, Path(scratch) / str(done), samples[::2])
        with processes({str(way): way.open for way in ways}) as asked:
            asks: list[Ask] = [asked[str(way)] for way in ways]
            times = _in_turns(ways, asks, side, repetitions, advance)
            gaps = _accuracies(ways, asks, samples[1::2], advance)
    rows = _rows(ways, times, gaps)
    for name in models:
        about = {"model": name, "side_px": str(side)}
        common = about | {"repetitions": str(repetitions)} | circumstances()
        store.replace(about, [common | row for row in rows if row["model"] == name])
    return store.rows


def _rows(ways: Sequence[Way], times: Sequence[Sequence[float]], gaps: Sequence[Row]) -> list[dict[str, str]]:
    middles = [statistics.median(own) for own in times]
    plain = {way.model: middle for way, middle in zip(ways, middles, strict=True) if way.is_plain}
    rows = []
    for way, own, middle, gap in zip(ways, times, middles, gaps, strict=True):
        low, high = (float(np.quantile(own, share)) for share in (0.25, 0.75))
        row = {key: str(getattr(way, key)) for key in ("model", "weights", "runtime", "precision")}
        row |= gap
        for key, seconds in (("median_ms", middle), ("quartile_1_ms", low), ("quartile_3_ms", high)):
            row[key] = f"{1000 * seconds:.2f}"
        row["times_as_fast"] = f"{plain[way.model] / middle:.2f}"
        row["times_as_fast_as_first"] = f"{middles[0] / middle:.2f}"
        rows.append(row)
    return rows


def network(name: str) -> tuple[nn.Module, str]:
    """Return a network, with weights where there are any; else random ones that give a score that varies."""
    import torch

    from ismallnet.checkpoint import load_model
    from ismallnet.models import create_model

    try:
        return load_model(find_weights(name))[0], "trained"
    except NoWeightsError:
        torch.manual_seed(0)
        model = create_model(name).train()
        with torch.no_grad():  # the batch norms see what they will
            for _ in range(3):
                model(torch.rand(2, 1, 64, 64))
        return model.eval(), "random"


def _ways(name: str, scratch: Path, calibration: Sequence[Sample]) -> Iterator[Way]:
    """Yield the ways that are installed here, the plain one first; their graphs are in ``scratch``."""
    model, weights = network(name)
    yield Way(name, weights, *PLAIN)
    yield Way(name, weights, FOLDED, "fp32")
    if has_bf16("cpu"):
        yield Way(name, weights, FOLDED, "bf16")
    if not is_installed("onnxruntime"):
        return
    calibration = calibration or [scene(seed).sample(str(seed)) for seed in range(8)]
    for stored in ("fp32", "int8"):
        (scratch / stored).mkdir(parents=True)
        write(describe(model, "network", "", precision=stored), model, scratch / stored, calibration)
    for runtime, precision in EXPORTED:
        folder = scratch / ("int8" if precision == "int8" else "fp32")
        if is_installed(runtime) and (precision != "bf16" or openvino_cpu.has_bf16()):
            yield Way(name, weights, runtime, precision, folder)


def _folded_score(model: nn.Module, *, bf16: bool) -> Score:
    from scipy.special import expit

    from ismallnet.models.inference import inference_form

    function = eager(inference_form(model), "cpu", bf16=bf16)
    return lambda pixels: np.asarray(expit(function(pixels[None]).target[0]), np.float32)


def _in_turns(
    ways: Sequence[Way],
    asks: Sequence[Ask],
    side: int,
    repetitions: int,
    advance: Callable[[int, int, str], None],
) -> list[list[float]]:
    """Time each way on one image, all of them in every round; in seconds."""
    pixels = scene(0, height=side, width=side).image
    for done, (way, ask) in enumerate(zip(ways, asks, strict=True)):
        advance(done, len(ways), f"warming up {way}")
        ask((pixels, way.before))
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(repetitions):
        advance(turn, repetitions, "timing")
        for ask, own in zip(asks, times, strict=True):
            own.append(ask((pixels, 2))[1])
    return times


def _accuracies(
    ways: Sequence[Way],
    asks: Sequence[Ask],
    samples: Sequence[Sample],
    advance: Callable[[int, int, str], None],
) -> list[Row]:
    """Compare the scores of each way with its plain one's, on samples or else on the seeded scenes."""

    def scored(ask: Ask) -> Score:
        return lambda pixels: ask((pixels, 1))[0]

    rows: list[Row] = []
    for done, (way, ask) in enumerate(zip(ways, asks, strict=True)):
        advance(done, len(ways), f"scores of {way}")
        if way.is_plain:
            plain = _remembered(scored(ask))
        if samples and way.weights == "trained":
            found = check.compare_samples(plain, scored(ask), samples, 0.5)
        else:
            found = check.compare_pixels(plain, scored(ask), check.seeded_scenes(1))
        rows.append(
            {
                "largest_difference": f"{found.largest:.3g}",
                "p999_difference": f"{found.p999:.3g}",
                "images": str(found.images),
                "iou": "" if found.iou is None else f"{found.iou:.3f}",
                "iou_torch": "" if found.iou_torch is None else f"{found.iou_torch:.3f}",
            }
        )
    return rows


def _remembered(score: Score) -> Score:
    """Return a score that is computed once an image."""
    known: dict[tuple[tuple[int, ...], bytes], NDArray[np.float32]] = {}

    def recall(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        key = pixels.shape, pixels.tobytes()
        if key not in known:
            known[key] = score(pixels)
        return known[key]

    return recall


def circumstances() -> dict[str, str]:
    """Return what a time depends on."""
    import torch

    known = provenance()
    packages = ("torch", *(row.package for name, row in RUNTIMES.items() if name != "torch"))
    return {
        "threads": str(torch.get_num_threads()),
        "date": str(known["date"]),
        "commit": str(known["commit"]),
        "hardware": str(known["hardware"]),
        "versions": ", ".join(f"{name} {package_version(name)}" for name in packages),
    }


def origins(rows: Sequence[Row]) -> list[str]:
    """Return when, by what and on what the rows were measured, a line for each that differs."""
    wheres = dict.fromkeys((r["date"][:10], r["commit"], r["hardware"], r["versions"]) for r in rows)
    return [f"{date}, commit {commit}, {on}; {what}." for date, commit, on, what in wheres]


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a page."""
    lines = [
        "# Speed",
        "",
        "One image at a time, each way in a process of its own, timed in turns in the same run. Ratios are "
        "to eager fp32 PyTorch, default memory format, of the same network, and of "
        f"{rows[0]['model']}. Times are medians, with the middle half in brackets. Differences of scores and "
        "pooled IoU are against it too.",
        "",
        "| network | weights | runtime | precision | ms | times as fast | as first | largest difference "
        "| 99.9 % within | images | IoU (torch fp32) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        iou = f"{row['iou']} ({row['iou_torch']})" if row["iou"] else "-"
        lines.append(
            f"| {row['model']} | {row['weights']} | {row['runtime']} | {row['precision']} "
            f"| {row['median_ms']} [{row['quartile_1_ms']}, {row['quartile_3_ms']}] | {row['times_as_fast']} "
            f"| {row['times_as_fast_as_first']} | {row['largest_difference']} | {row['p999_difference']} "
            f"| {row['images']} | {iou} |"
        )
    lines += ["", *origins(rows)]
    return "\n".join(lines) + "\n"
