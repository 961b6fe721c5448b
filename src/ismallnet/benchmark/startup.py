"""From the command to the first result: `ismallnet detect` on one image, a fresh process each time.

PyTorch comes first, the others are compared with it. A graph is made in an empty cache, then kept there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from ismallnet.benchmark.speed import circumstances, origins
from ismallnet.benchmark.store import Row, Store
from ismallnet.data.synthetic import scene
from ismallnet.runtimes import RuntimeName, is_installed

WAYS: tuple[tuple[RuntimeName, str], ...] = (
    ("torch", ""),
    ("onnxruntime", "made"),
    ("onnxruntime", "kept"),
    ("openvino", "made"),
    ("openvino", "kept"),
)
"""Runtime, and whether the graph has to be made or is in the cache."""
COLUMNS = (
    "model", "runtime", "graph", "side_px", "repetitions", "median_s", "quartile_1_s", "quartile_3_s",
    "times_as_fast", "threads", "date", "commit", "hardware", "versions",
)  # fmt: skip


def startup(
    model: str,
    *,
    out: str | Path,
    side: int = 256,
    repetitions: int = 5,
    advance: Callable[[int, int, str], None] | None = None,
) -> list[Row]:
    """Measure every way that is installed here, in turns, and write startup.csv.

    Args:
        model: A name or folder with weights.
        out: Folder of startup.csv; rows of the same model and side are replaced.
        side: Height and width of the image.
        repetitions: Commands of each way.
        advance: Called with what is done, how much there is, and a text.

    Raises:
        RuntimeError: A command failed; the text has what it said.
        ValueError: The file has other columns.
    """
    store = Store(Path(out) / "startup.csv", COLUMNS)
    ways = [way for way in WAYS if is_installed(way[0])]
    times: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "scene.png"
        cv2.imwrite(str(image), np.rint(255 * scene(0, height=side, width=side).image).astype(np.uint8))
        for turn in range(repetitions):
            for way in ways:
                if advance:
                    advance(turn, repetitions, " ".join(("start of", *way)))
                times[way].append(_first_result(model, image, *way))
    if advance:
        advance(repetitions, repetitions, "")
    quartiles = {
        way: [float(np.quantile(own, share)) for share in (0.25, 0.5, 0.75)] for way, own in times.items()
    }
    rows = []
    for (runtime, graph), (low, middle, high) in quartiles.items():
        row = {"model": model, "runtime": runtime, "graph": graph, "side_px": str(side)}
        row |= {"repetitions": str(repetitions), "times_as_fast": f"{quartiles[ways[0]][1] / middle:.2f}"}
        row |= {"median_s": f"{middle:.2f}", "quartile_1_s": f"{low:.2f}", "quartile_3_s": f"{high:.2f}"}
        rows.append(row | circumstances())
    store.replace({"model": model, "side_px": str(side)}, rows)
    return store.rows


def _first_result(model: str, image: Path, runtime: str, graph: str) -> float:
    """Seconds of one command; the graphs that it makes are kept beside the image."""
    out, cache = image.parent / "out", image.parent / f"cache-{runtime}"
    shutil.rmtree(out, ignore_errors=True)
    if graph == "made":
        shutil.rmtree(cache, ignore_errors=True)
    words = ["detect", str(image), "--model", model, "--runtime", runtime, "--out", str(out)]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ismallnet", *words],
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    spent = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"ismallnet {' '.join(words)} failed: {done.stderr.strip()}")
    return spent


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a section of a page."""
    lines = [
        "",
        "## From the command to the first result",
        "",
        "`ismallnet detect` on one image, in a fresh process each time, in turns. A graph is made where the "
        "cache is empty, and kept from then on.",
        "",
        "| model | runtime | graph | s | times as fast as PyTorch |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {row['runtime']} | {row['graph'] or '-'} "
        f"| {row['median_s']} [{row['quartile_1_s']}, {row['quartile_3_s']}] | {row['times_as_fast']} |"
        for row in rows
    ]
    lines += ["", *origins(rows)]
    return "\n".join(lines) + "\n"
