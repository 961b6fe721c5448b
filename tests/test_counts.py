"""Hot paths do not grow by accident: operations, passes and memory are counted, never seconds.

A bound is the count of 2026-11-22, or that and what the comment says. Fewer are welcome, put them here; more
cost time for everyone, and want a reason. The nodes of the exported graph are in `export/test_export.py`, the
memory of whole commands in `test_large.py`, `test_detect.py` and `streams/test_streams.py`.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ismallnet
from ismallnet import checkpoint, config, devices, labels, raster
from ismallnet.catalogue import WEIGHTS
from ismallnet.data import sources
from ismallnet.detect import detect_files
from ismallnet.detector import Detector
from ismallnet.evaluate import evaluate
from ismallnet.large import detect_by_rows
from ismallnet.models.inference import inference_form
from ismallnet.rules import Fixed
from ismallnet.streams import stack
from ismallnet.tiles import Tiling
from ismallnet.train import Trainer, train
from ismallnet.types import Sample
from test_evaluate import Scenes, bright
from test_evaluate import scene as toy
from tiny import recipe, write_images
from videos import scenes, write_stack, write_video

tifffile = pytest.importorskip("tifffile", reason="pip install 'ismallnet[large]'")


class Operations(TorchDispatchMode):
    """Counts torch's operations by name inside `with`; views, which move nothing, are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def beyond(counts: Counter[str], most: dict[str, int]) -> dict[str, int]:
    """Return which counts are beyond their bounds."""
    return {name: counts[name] for name, bound in most.items() if counts[name] > bound}


class Calls:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.count = function, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return self.function(*args, **kwargs)


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> Calls:
    """Count the calls of a function of a module or a class from here on."""
    calls = Calls(getattr(owner, name))
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: calls(*args, **kwargs))
    return calls


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that Python and NumPy held at once in a piece of work, beyond what they held before."""
    work()  # what is made once: caches, imports
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_every_benchmark_runs(tmp_path: Path) -> None:
    """Each once, untimed, in a process of its own with an empty cache of graphs."""
    pytest.importorskip("pytest_benchmark")
    words = [
        "benchmarks",
        "--benchmark-disable",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        tmp_path / "it",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, words)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout
    assert "passed" in ended.stdout


# --- the network ---


def test_operations_of_a_score_by_the_inference_form() -> None:
    model, _ = checkpoint.load_model(WEIGHTS / "ismallnet-s")
    form, image = inference_form(model), torch.rand(1, 1, 256, 256)
    with torch.inference_mode(), Operations() as operations:
        form.score(image)  # type: ignore[operator]
    most = {"conv2d": 45, "relu": 38, "upsample_bilinear2d": 8, "max_pool2d": 4, "batch_norm": 0}
    assert beyond(operations.counts, most) == {}
    assert operations.counts.total() <= 125


def test_operations_of_a_training_step(tmp_path: Path) -> None:
    """Of the compact network by AdamW, the batch apart; the first step also makes the optimiser's memory."""
    values = config.to_dict(recipe(write_images(tmp_path / "set"))) | {"model": {"name": "ismallnet-s"}}
    chosen = config.from_dict(values)
    trainer = Trainer(chosen, devices.launch(chosen.training), tmp_path / "run")
    trainer.make_step()
    most = {
        "convolution": 60,
        "convolution_backward": 60,
        "native_batch_norm": 42,
        "native_batch_norm_backward": 42,
        "_local_scalar_dense": 166,  # what waits for a device: the optimiser's count of steps, on the CPU
    }
    for _ in range(3):
        with Operations() as batch:
            trainer._batch()
        with Operations() as whole:
            trainer.make_step()
        step = whole.counts - batch.counts
        assert beyond(step, most) == {}
        assert step.total() <= 2213
        assert batch.counts.total() <= 290
    trainer.history.close()


def test_label_maps_are_made_once_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty images of the train list, each drawn several times."""
    decoupled = counted(monkeypatch, labels, "decouple")
    read = counted(monkeypatch, sources, "read_sample")
    train(recipe(write_images(tmp_path / "set"), steps=15), out=tmp_path / "run")
    assert decoupled.count == 20
    assert read.count == 20


# --- detection over files ---


def detector() -> tuple[Detector, Calls]:
    forward = Calls(lambda image: image)
    return Detector(forward, name="identity", rule=Fixed(0.6)), forward


def test_an_image_is_decoded_once_and_scored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, page in enumerate(scenes(7)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), page)
    decoded = counted(monkeypatch, ismallnet.media, "decode")
    one, forward = detector()
    detect_files([tmp_path], one, out=tmp_path / "out", save=("overlay", "mask", "score", "json", "coco"))
    assert (decoded.count, forward.count) == (7, 7)


@pytest.mark.parametrize(("range", "passes"), [((0, 10_000), 1), (None, 3)])
def test_a_page_of_a_stack_is_decoded_once_a_pass_and_scored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, range: tuple[float, float] | None, passes: int
) -> None:
    """The percentiles of all pages take a pass, their noise another; the first page is looked at before."""
    path = write_stack(tmp_path / "x.tif", scenes(9))
    decoded = counted(monkeypatch, stack, "decode")
    one, forward = detector()
    detect_files([path], one, out=tmp_path / "out", range=range)
    assert (decoded.count, forward.count) == (1 + 9 * passes, 9)


def test_a_frame_of_a_video_is_scored_once(tmp_path: Path) -> None:
    one, forward = detector()
    detect_files([write_video(tmp_path / "x.mkv", scenes(9))], one, out=tmp_path / "out")
    assert forward.count == 9


# --- images in tiles ---


@pytest.mark.parametrize(
    ("range", "save", "passes"),
    [((0, 10_000), (), 2), (None, (), 3), (None, ("overlay",), 4), (None, ("mask", "score"), 3)],
)
def test_passes_over_a_file_that_is_read_by_rows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    range: tuple[float, float] | None,
    save: tuple[str, ...],
    passes: int,
) -> None:
    """Grey levels, noise, score, overlay: each decodes every row of tiles once, and opening it the first."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, scenes(1, size=(640, 200))[0], tile=(64, 64), compression="zlib")
    monkeypatch.setattr(raster, "PASS_PX", 64 * 200)
    decoded = counted(monkeypatch, raster.Page, "_decode")
    forward = Calls(lambda image: image)
    one = Detector(forward, name="identity", rule=Fixed(0.6))
    one.tiling = Tiling(side=256, overlap=64, above=0)
    files = {kind: tmp_path / f"{kind}.{'png' if kind == 'overlay' else 'tif'}" for kind in save}
    with raster.open_rasters(path, range=range) as (image,):
        detect_by_rows(image, one, files, scratch=tmp_path / "scratch.tif", advance=lambda _: None)
    # what a pass ends with may be what the next one begins with
    assert 10 * (passes - 1) + 1 < decoded.count <= 10 * passes + 1
    assert forward.count == 3  # tiles


def test_memory_of_an_image_read_by_rows_does_not_grow_with_its_height(tmp_path: Path) -> None:
    """117 and 120 MB: 28 bytes for each of the `PASS_PX` pixels that the passes for the range hold."""

    def peak(height: int) -> int:
        path = tmp_path / f"{height}.tif"
        page = np.tile(scenes(1, size=(512, 1024))[0], (height // 512, 1))
        tifffile.imwrite(path, page, tile=(512, 512), compression="zlib")
        one, _ = detector()

        def work() -> None:
            with raster.open_rasters(path) as (image,):
                detect_by_rows(image, one, {}, scratch=tmp_path / "scratch.tif", advance=lambda _: None)

        return peak_bytes(work)

    assert peak(4096) < 120e6
    assert peak(8192) < 122e6


# --- the evaluator ---


class _Labelled:
    """Where the components of a map are labelled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from ismallnet.metrics import target

        self.calls = counted(monkeypatch, target, "label")


@pytest.mark.parametrize(
    ("options", "times"),
    [({"details": False}, 2), ({}, 3), ({"curves": True}, 4)],
    ids=["counts", "details", "curves"],
)
def test_labellings_of_an_image_that_is_evaluated(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], times: int
) -> None:
    """Truth and prediction; of the details, the score above the floor; of the curves, the truth again."""
    labelled = _Labelled(monkeypatch).calls
    forward = Calls(bright)
    one = Detector(forward, name="bright", rule=Fixed(0.5))
    evaluate(one, Scenes(tuple(toy(seed) for seed in range(5))), bootstrap=0, **options)
    assert (labelled.count, forward.count) == (5 * times, 5)


def test_memory_of_the_evaluator_is_that_of_one_image() -> None:
    """Of a megapixel: 23 bytes a pixel, of which image and score, as the detector has them, take 12."""

    class Same:
        name, split, split_sha256 = "same", "train", "0"

        def __init__(self, count: int) -> None:
            self.sample, self.count = toy(0, (1024, 1024)), count

        def __len__(self) -> int:
            return self.count

        def __iter__(self) -> Iterator[Sample]:
            return iter([self.sample] * self.count)

    one = Detector(bright, name="bright", rule=Fixed(0.5))
    one.tiling = None
    peaks = [peak_bytes(lambda count=count: evaluate(one, Same(count), bootstrap=0)) for count in (2, 8)]
    assert peaks[0] < 24 * 2**20
    assert peaks[1] < 1.01 * peaks[0]
