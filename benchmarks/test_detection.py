"""From an image to its targets: network, filters, components, tiles, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ismallnet
from ismallnet.data.synthetic import scene
from ismallnet.filters import create_filter
from ismallnet.media import normalise
from ismallnet.raster import open_rasters
from ismallnet.targets import find, label
from ismallnet.tiles import Tiling, walk


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return scene(0, height=256, width=256).to_uint8().astype(np.float32) / np.float32(255)


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    return scene(0, height=1024, width=1024).to_uint16()


@pytest.fixture(scope="module")
def crowd() -> np.ndarray:
    """A score of 512 × 512 with 1024 targets of 4 × 4 pixels, each with a peak of its own."""
    score = np.zeros((512, 512), np.float32)
    peaks = np.random.default_rng(0).uniform(0.6, 1, (32, 32)).astype(np.float32)
    score.reshape(32, 16, 32, 16)[:, 6:10, :, 6:10] = peaks[:, None, :, None]
    return score


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_score_of_the_compact_network(benchmark: Any, image: np.ndarray, runtime: Any) -> None:
    if runtime != "torch":
        pytest.importorskip(runtime)
    detector = ismallnet.load("ismallnet-s", device="cpu", runtime=runtime)
    assert benchmark(detector.score, image).shape == (256, 256)


def test_detection_by_the_compact_network(benchmark: Any, image: np.ndarray) -> None:
    detector = ismallnet.load("ismallnet-s", device="cpu")
    assert benchmark(detector, image).mask.shape == (256, 256)


def test_components(benchmark: Any, crowd: np.ndarray) -> None:
    assert benchmark(label, crowd > 0.5)[0] == 1024


def test_targets(benchmark: Any, crowd: np.ndarray) -> None:
    assert len(benchmark(find, crowd > 0.5, crowd)) == 1024


@pytest.mark.parametrize("name", ["top-hat", "lcm", "tllcm"])
def test_filter(benchmark: Any, image: np.ndarray, name: str) -> None:
    assert benchmark(create_filter(name), image).shape == (256, 256)


def test_blending_of_tiles(benchmark: Any) -> None:
    """What tiles cost beside the detector, which here gives back what it gets."""
    whole = np.random.default_rng(0).random((1536, 1536), dtype=np.float32)

    def blend() -> list[np.ndarray]:
        bands = walk(lambda y0, y1: whole[y0:y1], lambda x: x[:, None], whole.shape, Tiling(), batch_px=2**18)
        return list(bands)

    np.testing.assert_array_equal(np.concatenate(benchmark(blend), axis=1)[0], whole)


def test_range_by_percentiles(benchmark: Any, counts: np.ndarray) -> None:
    assert benchmark(normalise, counts).rule == "percentile"


@pytest.mark.parametrize("layout", ["strips", "tiles"])
def test_rows_of_a_tiff(benchmark: Any, tmp_path: Path, counts: np.ndarray, layout: str) -> None:
    """A file of 4096 × 1024 pixels from top to bottom, its range given."""
    tifffile = pytest.importorskip("tifffile")
    options = {"strips": {}, "tiles": {"tile": (512, 512), "compression": "zlib"}}[layout]
    tifffile.imwrite(tmp_path / "x.tif", np.tile(counts, (4, 1)), **options)

    with open_rasters(tmp_path / "x.tif", range=(0, 10_000)) as (raster,):

        def read() -> int:
            return sum(len(raster.rows(y, y + 256)) for y in range(0, 4096, 256))

        assert benchmark(read) == 4096
