"""Export: the graph that comes back from the disk gives the network's scores, or is not there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ismallnet
from ismallnet import checkpoint, data
from ismallnet.catalogue import WEIGHTS
from ismallnet.export import check, export
from ismallnet.export.check import Difference, ExportError, require
from ismallnet.export.graph import ScoreGraph, write_onnx
from ismallnet.export.quantise import _outer_convolutions
from ismallnet.models import create_model
from ismallnet.runtimes import SIDECAR, open_artefact
from tiny import write_images

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
NARROW: dict[str, Any] = {"widths": (4, 4, 6, 6, 8), "fusion_width": 4, "detail": 4}


def network() -> nn.Module:
    """A narrow network whose norms have seen images, and whose score varies."""
    torch.manual_seed(3)
    model = create_model("ismallnet-s", **NARROW).train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(4, 1, 64, 64))
    return model.eval()


@pytest.fixture(autouse=True, scope="module")
def _small_scenes() -> Iterator[None]:
    """The seeded scenes a quarter as large: what is compared is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "SIZES", ((64, 64), (75, 90), (64, 99)))
        yield


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network()


@pytest.fixture(scope="module")
def weights(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "narrow"
    checkpoint.save_model(folder, model, name="ismallnet-s", options=NARROW)
    return folder


@pytest.fixture(scope="module")
def onnx_folder(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "onnx"
    export(weights, out, provenance={"commit": "abc"})
    return out


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("shape", [(1, 128, 96), (3, 50, 71), (2, 16, 16), (1, 17, 130)])
def test_a_graph_takes_any_batch_height_and_width(
    model: nn.Module, onnx_folder: Path, runtime: Any, shape: tuple[int, int, int]
) -> None:
    images = np.random.default_rng(0).random((shape[0], 1, *shape[1:]), dtype=np.float32)
    _, _, run = open_artefact(onnx_folder, runtime=runtime)
    with torch.inference_mode():
        expected = model.score(torch.from_numpy(images)).numpy()  # type: ignore[operator]
    assert expected.std() > 1e-3
    np.testing.assert_allclose(run(images), expected, atol=1e-5)


def test_pytorch_reads_its_own_format_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("tbcnet", widths=(4, 4, 6)).eval()  # few layers: its exporter takes its time
    checkpoint.save_model(tmp_path / "it", model, name="tbcnet", options={"widths": (4, 4, 6)})
    export(tmp_path / "it", tmp_path / "out", format="torch")
    _, name, run = open_artefact(tmp_path / "out")
    assert name == "torch"
    for shape in ((1, 1, 64, 64), (2, 1, 33, 90), (1, 1, 16, 16)):
        images = torch.rand(shape)
        with torch.inference_mode():
            expected = model.score(images).numpy()  # type: ignore[operator]
        np.testing.assert_allclose(run(images.numpy()), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("format", "input", "scale"), [("onnx", "uint16", 65535), ("openvino", "uint8", 255)]
)
def test_whole_numbers_are_scaled_inside_the_graph(
    model: nn.Module, weights: Path, tmp_path: Path, format: str, input: Any, scale: int
) -> None:
    export(weights, tmp_path / "out", format=format, input=input)
    _, _, run = open_artefact(tmp_path / "out")
    counts = np.random.default_rng(1).integers(0, scale + 1, (1, 1, 40, 56)).astype(input)
    with torch.inference_mode():
        pixels = torch.from_numpy(counts.astype(np.float32) / scale)
        expected = model.score(pixels).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(run(counts), expected, atol=1e-5)


def test_a_range_is_clipped_inside_the_graph(model: nn.Module, weights: Path, tmp_path: Path) -> None:
    export(weights, tmp_path / "out", input="uint16", range=(7000, 11000))
    _, _, run = open_artefact(tmp_path / "out", runtime="onnxruntime")
    counts = np.random.default_rng(1).integers(6000, 12000, (1, 1, 40, 56)).astype(np.uint16)
    pixels = ((counts.astype(np.float32) - 7000) / 4000).clip(0, 1)
    with torch.inference_mode():
        expected = model.score(torch.from_numpy(pixels)).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(run(counts), expected, atol=1e-5)


@pytest.mark.parametrize(("format", "precision"), [("onnx", "fp16"), ("onnx", "int8"), ("openvino", "int8")])
def test_smaller_numbers_make_a_smaller_file_that_is_close(
    weights: Path, tmp_path: Path, format: str, precision: Any
) -> None:
    train = data.load("folder", write_images(tmp_path / "set"), "train")
    out = tmp_path / "out"
    artefact = export(weights, out, format=format, precision=precision, datasets=[train])
    (found,) = [parts for name, parts in artefact.differences.items() if name != "onnxruntime"][:1]
    assert found["images"]["images"] == 10  # every other of the twenty
    assert 1e-6 < found["scenes"]["largest"] < 0.3
    if format == "onnx":
        kind = {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision]
        stored = onnx.load(out / artefact.file).graph.initializer
        assert sum(t.data_type == kind for t in stored) > 20


def test_int8_leaves_what_reads_the_image_and_the_last_convolution(model: nn.Module, tmp_path: Path) -> None:
    write_onnx(ScoreGraph(model, low=0, high=1), tmp_path / "graph.onnx", input="float32")
    left = _outer_convolutions(onnx.load(tmp_path / "graph.onnx").graph)
    assert [name.removeprefix("/network/").removesuffix("/Conv") for name in left] == [
        "encoders.0/levels.0/levels.0.0/conv1",
        "target/image/image.0",
        "target/predict/convolution",
    ]


def test_the_sidecar_says_what_goes_in_and_what_comes_out(onnx_folder: Path, weights: Path) -> None:
    said = json.loads((onnx_folder / SIDECAR).read_text())
    assert said["input"] == "float32"
    assert (said["low"], said["high"], said["minimum"], said["multiple"]) == (0, 1, 16, 32)
    assert said["threshold"] == 0.5
    assert said["weights_sha256"] == checkpoint.file_sha256(weights / checkpoint.WEIGHTS)
    assert said["provenance"] == {"commit": "abc"}
    assert said["differences"]["onnxruntime"]["scenes"]["largest"] < check.MAX_FP32
    assert said["differences"]["openvino"]["scenes"]["images"] == 5


def test_an_exported_network_is_a_detector(model: nn.Module, onnx_folder: Path) -> None:
    image = np.random.default_rng(2).random((50, 71), dtype=np.float32)
    plain = ismallnet.Detector.from_model(model, name="plain", device="cpu")
    for path in (onnx_folder, onnx_folder / "ismallnet-s.onnx"):
        detector = ismallnet.load(path, threshold=0.3)
        assert (detector.precision, detector.rule) == ("fp32", ismallnet.Fixed(0.3))
        assert detector.runtime in ("onnxruntime", "openvino")
        np.testing.assert_allclose(detector.score(image), plain.score(image), atol=1e-5)
        resized = detector.score(image, input_size=(96, 64))
        np.testing.assert_allclose(resized, plain.score(image, input_size=(96, 64)), atol=1e-5)
        tiny = image[:5, :7]
        np.testing.assert_allclose(detector.score(tiny), plain.score(tiny), atol=1e-5)


# --- what is refused ---


def test_a_graph_that_is_too_far_off_is_an_error_with_the_difference_and_leaves_nothing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MAX_FP32", 0.0)
    with pytest.raises(ExportError, match=r"largest difference of a score is \S+; in fp32 at most 0"):
        export(weights, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("precision", "found", "words"),
    [
        ("fp32", Difference(1, 2e-4, 0), "0.0002; in fp32"),
        ("fp16", Difference(1, 0.5, 0.03), "99.9 % of the pixels are within 0.03"),
        ("fp16", Difference(1, 0.5, 0.01, 80.0, 80.2), "pooled IoU differs by 0.20 points"),
        ("int8", Difference(1, 0.9, 0.5, 80.4, 80.0), "pooled IoU differs by 0.40 points"),
        ("int8", Difference(1, float("nan"), 0.0), "not finite"),
    ],
)
def test_every_precision_has_its_tolerance(precision: Any, found: Difference, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        require(found, precision, "it")


def test_what_is_within_tolerance_is_accepted() -> None:
    require(Difference(1, 9e-5, 0), "fp32", "it")
    require(Difference(1, 0.9, 0.019, 80.05, 80.0), "fp16", "it")
    require(Difference(1, 0.9, 0.5, 80.2, 80.0), "int8", "it")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "tflite"}, "unknown format 'tflite'.*choose from onnx, openvino, torch"),
        ({"input": "int8"}, "choose from uint8, uint16, float32"),
        ({"format": "torch", "precision": "int8"}, "choose from fp32, fp16"),
        ({"precision": "int8"}, "calibrated on train images.*--data"),
        ({"range": (1, 1)}, "the lower first"),
    ],
)
def test_a_wrong_choice_is_refused_with_the_accepted_ones(
    weights: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        export(weights, tmp_path / "out", **options)


def test_a_test_list_is_refused(weights: Path, tmp_path: Path) -> None:
    images = data.load("folder", write_images(tmp_path / "set"), "test")
    with pytest.raises(ValueError, match="is a test list"):
        export(weights, tmp_path / "out", precision="fp16", datasets=[images])


def test_a_folder_that_holds_something_is_not_written_over(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        export(weights, tmp_path)


# --- kept small ---


def test_the_graph_of_the_compact_network_does_not_grow_by_accident(tmp_path: Path) -> None:
    """Counts of 2026-11-22; fewer are welcome, put them here. More cost time in every runtime."""
    model, _ = checkpoint.load_model(WEIGHTS / "ismallnet-s")
    write_onnx(ScoreGraph(model, low=0, high=1), tmp_path / "graph.onnx", input="float32")
    nodes = Counter(node.op_type for node in onnx.load(tmp_path / "graph.onnx").graph.node)
    work = {kind: nodes[kind] for kind in ("Conv", "Relu", "Resize", "MaxPool", "BatchNormalization")}
    assert work == {"Conv": 45, "Relu": 38, "Resize": 8, "MaxPool": 4, "BatchNormalization": 0}
    assert sum(count for kind, count in nodes.items() if kind != "Constant") <= 320
