"""OpenVINO on the CPU: bfloat16 loses nothing of the image, and sizes that come often change no score."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ismallnet import openvino_cpu
from ismallnet.openvino_cpu import open_graph

pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")
BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
bf16_here = pytest.mark.skipif(not BF16, reason="the processor has no bfloat16")


class TwoBranches(nn.Module):
    """Two first convolutions that read the image, normalised, and one that reads what they give."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine, self.coarse = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 16, 1)
        self.last = nn.Conv2d(8, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = (image - 0.43) / 0.22
        coarse = F.pixel_shuffle(self.coarse(F.pixel_unshuffle(x, 2)), 2)
        score: torch.Tensor = self.last(torch.cat([self.fine(x), coarse], 1))
        return score


def written(model: nn.Module, file: Path) -> Path:
    axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), (torch.rand(2, 1, 8, 12),), file, dynamo=False, opset_version=17,
            input_names=["image"], output_names=["score"], dynamic_axes={"image": axes, "score": axes},
        )  # fmt: skip
    return file


@bf16_here
def test_bfloat16_sees_a_target_of_a_quarter_of_a_grey_level_of_256(tmp_path: Path) -> None:
    """A contrast filter on a bright image, where bfloat16 has steps of a grey level."""
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3, padding=1, bias=False))
    model[0].running_mean.fill_(0.43)
    model[0].running_var.fill_(0.22**2)
    torch.manual_seed(0)
    weights = torch.rand(9)
    model[1].weight.data = (weights - weights.mean()).reshape(1, 1, 3, 3)
    image = np.full((1, 1, 16, 16), 0.9, np.float32)
    image[0, 0, 8, 8] += 0.25 / 255
    with torch.no_grad():
        exact = model.eval()(torch.from_numpy(image)).numpy()
    score = open_graph(written(model, tmp_path / "it.onnx"), bf16=True, threads=1)(image)
    inner = np.s_[0, 0, 1:-1, 1:-1]
    assert np.abs(exact[inner]).max() > 1e-3
    np.testing.assert_allclose(score[inner], exact[inner], atol=0.05 * np.abs(exact[inner]).max())


def test_the_two_parts_are_the_graph(tmp_path: Path) -> None:
    """Taken apart but computed in float32 throughout, the sum of the halves is the value but for 2**-16."""
    model, core = TwoBranches(), openvino.Core()
    graph = core.read_model(written(model, tmp_path / "it.onnx"))
    first = openvino_cpu._first_convolutions(graph)
    assert sorted(node.get_friendly_name().split("/")[1] for node in first) == ["coarse", "fine"]
    front, rest = openvino_cpu._apart(graph, first)
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    image = torch.rand(2, 1, 16, 20)
    parts = core.compile_model(front, "CPU", hint)([image.numpy()])
    assert sorted(part.shape for part in parts.values()) == [(2, 3, 16, 20), (2, 12, 8, 10)]
    for part in parts.values():
        high = part[:, : part.shape[1] // 3]
        assert np.array_equal(high, torch.from_numpy(high).bfloat16().float().numpy())  # bfloat16 holds them
    score = core.compile_model(rest, "CPU", hint)([image.numpy(), *parts.values()])[0]
    with torch.no_grad():
        np.testing.assert_allclose(score, model(image).numpy(), atol=1e-4)


@bf16_here
def test_a_graph_without_convolutions_is_computed_as_it_is(tmp_path: Path) -> None:
    class Doubled(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * 2 + 1

    image = np.full((1, 1, 8, 8), 0.5, np.float32)
    assert (open_graph(written(Doubled(), tmp_path / "it.onnx"), bf16=True, threads=1)(image) == 2).all()


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=bf16_here)])
def test_a_size_that_comes_often_gets_a_graph_of_its_own_and_keeps_its_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    made = []
    compiled = openvino_cpu._compiled

    def counted(*args: object, **options: object) -> object:
        made.append(args[1].inputs[0].partial_shape.is_static)  # type: ignore[attr-defined]
        return compiled(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(openvino_cpu, "_compiled", counted)
    monkeypatch.setattr(openvino_cpu, "OFTEN", 3)
    monkeypatch.setattr(openvino_cpu, "KEPT", 1)
    run = open_graph(written(TwoBranches(), tmp_path / "it.onnx"), bf16=bf16, threads=1)
    wide, high = np.random.default_rng(0).random((2, 1, 1, 16, 24), np.float32)
    high = high.reshape(1, 1, 24, 16)
    scores = [(run(wide), run(high)) for _ in range(5)]
    assert made == [False, True]  # for every size; then for the first to come thrice, and no other
    for a, b in scores[1:]:
        np.testing.assert_allclose(a, scores[0][0], atol=2e-2 if bf16 else 1e-6)
        np.testing.assert_array_equal(b, scores[0][1])
