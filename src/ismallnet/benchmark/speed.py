"""How fast each runtime and precision is, as a ratio to eager fp32 PyTorch in the same run, and how close.

The plain way comes first: the network as it is, in float32, in the default memory format, an image at a time.
All ways are timed in turns, so that whatever else the machine does meets them alike; a row has the median and
the middle half of its times. OpenVINO has a graph for the size by then, as it has for any that comes often.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ismallnet.benchmark.store import Row, Store
from ismallnet.catalogue import NoWeightsError, find_weights
from ismallnet.data.synthetic import scene
from ismallnet.evaluate import package_version, provenance
from ismallnet.export import check, describe, write
from ismallnet.openvino_cpu import OFTEN
from ismallnet.runtimes import RUNTIMES, Precision, RuntimeName, eager, is_installed, open_artefact

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from ismallnet.types import Sample

    Score = Callable[[NDArray[np.float32]], NDArray[np.float32]]

COLUMNS = (
    "model", "weights", "runtime", "precision", "side_px", "threads", "repetitions", "median_ms",
    "quartile_1_ms", "quartile_3_ms", "times_as_fast", "times_as_fast_as_first", "largest_difference",
    "p999_difference", "images", "iou", "iou_torch", "date", "commit", "hardware", "versions",
)  # fmt: skip
PLAIN = "torch", "fp32"
"""What the others are compared with."""
EXPORTED: tuple[tuple[RuntimeName, Precision], ...] = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """A way to run a network."""

    runtime: str
    precision: str
    score: Score
    """From pixels (H, W) in [0, 1] to a score (H, W)."""
    before: int = 3
    """Times that it is run before it is timed."""


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
        repetitions: Times that each way is timed, after some that are not.
        advance: Called with what is done, how much there is, and a name.

    Raises:
        ValueError: Fewer than one repetition, or the file has other columns.
    """
    if repetitions < 1:
        raise ValueError(f"repetitions is {repetitions}; give at least 1")
    store = Store(Path(out) / "speed.csv", COLUMNS)
    first: float | None = None
    for done, name in enumerate(models):
        if advance:
            advance(done, len(models), name)
        model, kind = network(name)
        with tempfile.TemporaryDirectory() as scratch:
            ways = list(_ways(model, Path(scratch), samples[::2]))
            times = _in_turns(ways, side, repetitions)
            plain = statistics.median(times[0])
            first = plain if first is None else first
            rows = []
            for way, each in zip(ways, times, strict=True):
                middle = statistics.median(each)
                gaps = _accuracy(way, ways[0], samples[1::2] if kind == "trained" else ())
                rows.append(
                    {
                        "model": name,
                        "weights": kind,
                        "runtime": way.runtime,
                        "precision": way.precision,
                        "side_px": str(side),
                        "repetitions": str(repetitions),
                        "median_ms": f"{1000 * middle:.2f}",
                        "quartile_1_ms": f"{1000 * float(np.quantile(each, 0.25)):.2f}",
                        "quartile_3_ms": f"{1000 * float(np.quantile(each, 0.75)):.2f}",
                        "times_as_fast": f"{plain / middle:.2f}",
                        "times_as_fast_as_first": f"{first / middle:.2f}",
                        **gaps,
                        **circumstances(),
                    }
                )
        store.replace({"model": name, "side_px": str(side)}, rows)
    if advance:
        advance(len(models), len(models), "")
    return store.rows


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


def _ways(model: nn.Module, scratch: Path, calibration: Sequence[Sample]) -> Iterator[Way]:
    """Yield the ways that are installed here, the plain one first."""
    from ismallnet.models.inference import inference_form

    yield Way(*PLAIN, check.torch_score(model))
    for precision in ("fp32", "bf16"):
        function = eager(inference_form(model), "cpu", bf16=precision == "bf16")
        yield Way("torch, folded, channels last", precision, _of_logits(function))
    calibration = calibration or [scene(seed).sample(str(seed)) for seed in range(8)]
    for runtime, precision in EXPORTED:
        stored: Precision = "int8" if precision == "int8" else "fp32"
        if not is_installed(runtime) or not is_installed("onnxruntime"):
            continue
        folder = scratch / stored
        if not folder.exists():
            folder.mkdir()
            artefact = describe(model, "network", "", precision=stored)
            write(artefact, model, folder, calibration)
        try:
            artefact, _, run = open_artefact(folder, runtime=runtime, bf16=precision == "bf16")
        except ValueError:  # no bfloat16 here
            continue
        before = OFTEN if runtime == "openvino" else 3
        yield Way(runtime, precision, check.run_score(artefact, run), before)


def _of_logits(function: Any) -> Score:
    from scipy.special import expit

    return lambda pixels: np.asarray(expit(function(pixels[None]).target[0]), np.float32)


def _in_turns(ways: Sequence[Way], side: int, repetitions: int) -> list[list[float]]:
    """Time each way on one image, all of them in every round; in seconds."""
    pixels = scene(0, height=side, width=side).image
    for way in ways:
        for _ in range(way.before):
            way.score(pixels)
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(repetitions):
        for way, own in zip(ways, times, strict=True):
            start = time.perf_counter()
            way.score(pixels)
            own.append(time.perf_counter() - start)
    return times


def _accuracy(way: Way, plain: Way, samples: Sequence[Sample]) -> dict[str, str]:
    """Compare the scores of a way with the plain one's, on samples or else on the seeded scenes."""
    if samples:
        found = check.compare_samples(plain.score, way.score, samples, 0.5)
    else:
        found = check.compare_pixels(plain.score, way.score, check.seeded_scenes(1))
    return {
        "largest_difference": f"{found.largest:.3g}",
        "p999_difference": f"{found.p999:.3g}",
        "images": str(found.images),
        "iou": "" if found.iou is None else f"{found.iou:.3f}",
        "iou_torch": "" if found.iou_torch is None else f"{found.iou_torch:.3f}",
    }


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


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a page."""
    lines = [
        "# Speed",
        "",
        "One image at a time. Ratios are to eager fp32 PyTorch, default memory format, timed in turns in "
        f"the same run: of the same network, and of {rows[0]['model']}. Times are medians, with the middle "
        "half in brackets. Differences of scores and pooled IoU are against it too.",
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
    wheres = dict.fromkeys((r["date"][:10], r["commit"], r["hardware"], r["versions"]) for r in rows)
    lines += ["", *(f"{date}, commit {commit}, {on}; {what}." for date, commit, on, what in wheres)]
    return "\n".join(lines) + "\n"
