"""Graphs that are kept: made when asked for or worth it, used only where they gave PyTorch's scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ismallnet
from ismallnet import checkpoint
from ismallnet.export import cache, check
from ismallnet.models import create_model
from ismallnet.runtimes import MANY

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
WIDTHS = {"widths": (4, 4)}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder, an empty cache, and small seeded scenes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(check, "SIZES", ((64, 64), (75, 90)))
    torch.manual_seed(0)
    checkpoint.save_model(
        tmp_path / "it", create_model("tbcnet", **WIDTHS).eval(), name="tbcnet", options=WIDTHS
    )
    return tmp_path / "it"


def graphs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("export.json"))


def test_few_images_are_left_to_pytorch_and_many_make_a_graph(weights: Path, tmp_path: Path) -> None:
    assert ismallnet.load(weights, runtime="auto", images=MANY - 1).runtime == "torch"
    assert graphs(tmp_path) == []
    if torch.accelerator.is_available():
        pytest.skip("PyTorch has an accelerator here, which auto leaves it to")
    assert ismallnet.load(weights, runtime="auto", images=MANY).runtime == "openvino"
    assert len(graphs(tmp_path)) == 1
    few = ismallnet.load(weights, runtime="auto", images=1)  # now there is one
    assert (few.runtime, few.precision, few.folder) == ("onnxruntime", "fp32", weights)


def test_a_kept_graph_gives_the_networks_score_and_is_made_once(weights: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((40, 51), dtype=np.float32)
    plain = ismallnet.load(weights, device="cpu")
    for runtime in ("onnxruntime", "openvino"):
        detector = ismallnet.load(weights, runtime=runtime)
        assert (detector.runtime, detector.name) == (runtime, plain.name)
        assert detector.weights_sha256 == plain.weights_sha256
        np.testing.assert_allclose(detector.score(image), plain.score(image), atol=1e-5)
    assert len(graphs(tmp_path)) == 1


def test_other_weights_have_another_graph(weights: Path) -> None:
    before = cache._place(weights)
    checkpoint.save_model(weights, create_model("tbcnet", **WIDTHS), name="tbcnet", options=WIDTHS)
    assert cache._place(weights) != before


def test_a_runtime_that_does_not_give_pytorchs_scores_is_not_used(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MAX_FP32", 0.0)
    assert ismallnet.load(weights, runtime="auto", images=MANY).runtime == "torch"
    with pytest.raises(ValueError, match="does not give the scores of PyTorch"):
        ismallnet.load(weights, runtime="openvino")


def test_a_network_that_cannot_be_exported_is_left_to_pytorch_and_tried_once(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(*_: object) -> None:
        tried.append(1)
        raise RuntimeError("no graph of this network")

    monkeypatch.setattr("ismallnet.export.write", fail)
    for _ in range(2):
        assert ismallnet.load(weights, runtime="auto", images=MANY).runtime == "torch"
        with pytest.raises(ValueError, match="cannot be written as a graph: no graph of this network"):
            ismallnet.load(weights, runtime="onnxruntime")
    assert tried == [1]


def test_a_runtime_that_failed_its_comparison_is_not_compared_again(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(check, "MAX_FP32", 0.0)
        ismallnet.load(weights, runtime="auto", images=MANY)
    monkeypatch.setattr("ismallnet.export.compare", lambda *_, **__: pytest.fail("compared again"))
    assert ismallnet.load(weights, runtime="auto", images=MANY).runtime == "torch"
    with pytest.raises(ValueError, match=r"\(tbcnet\.onnx by openvino is too far from PyTorch: .*in fp32"):
        ismallnet.load(weights, runtime="openvino")


@pytest.mark.parametrize("package", ["openvino", "someones-plugin"])
def test_another_version_of_what_it_was_made_with_has_another_graph(
    weights: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    config = json.loads((weights / checkpoint.CONFIG).read_text("utf-8"))
    (weights / checkpoint.CONFIG).write_text(json.dumps({**config, "plugin": "someones-plugin"}))
    before = cache._place(weights)
    monkeypatch.setattr(cache, "_version", lambda name: "9" if name == package else "")
    after = cache._place(weights)
    monkeypatch.setattr(cache, "_version", lambda name: "8" if name == package else "")
    assert len({before, after, cache._place(weights)}) == 3


def test_a_cache_that_cannot_be_written_is_an_error_only_where_it_was_asked_for(
    weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert ismallnet.load(weights, runtime="auto", images=MANY).runtime == "torch"
    with pytest.raises(OSError, match="cache"):
        ismallnet.load(weights, runtime="onnxruntime")


def test_a_kept_graph_of_the_bundled_weights_is_opened_without_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(check, "SIZES", ((64, 64), (75, 90)))
    ismallnet.load("ismallnet-s", runtime="onnxruntime")
    code = """
import sys, ismallnet
assert ismallnet.load("ismallnet-s", runtime="auto").runtime == "onnxruntime"
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bf16_of_a_runtime_without_it_is_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match="bf16 is for openvino and torch"):
        ismallnet.load(weights, runtime="onnxruntime", precision="bf16")


def test_bf16_on_a_processor_without_it_is_refused_as_that(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openvino.Core.get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(
        ValueError, match="this processor does not compute in bfloat16; leave --precision out"
    ):
        ismallnet.load(weights, runtime="openvino", precision="bf16")


def test_graphs_run_on_the_cpu_only(weights: Path) -> None:
    with pytest.raises(ValueError, match="graphs run on the CPU here; got device 'cuda'"):
        ismallnet.load(weights, runtime="openvino", device="cuda")


def test_a_filter_has_no_runtime() -> None:
    assert ismallnet.load("top-hat", runtime="auto").runtime is None
    with pytest.raises(ValueError, match="runtime and precision are for networks"):
        ismallnet.load("top-hat", runtime="openvino")
