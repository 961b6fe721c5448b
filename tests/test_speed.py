"""The speed benchmark: every way is there, the ratios are of its own times, and the kinds add up."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from ismallnet.benchmark import speed as benchmark
from ismallnet.benchmark import startup
from ismallnet.benchmark.processes import processes
from ismallnet.benchmark.profile import profile
from ismallnet.benchmark.speed import speed, to_markdown
from ismallnet.data.synthetic import scene
from ismallnet.export import check
from ismallnet.models.layers import ChannelAttention

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


def test_every_way_has_a_row_with_its_ratio_and_its_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "SIZES", ((64, 64),))
    monkeypatch.setattr(benchmark, "EXPORTED", (("onnxruntime", "int8"), ("openvino", "fp32")))
    samples = [scene(seed, height=64, width=64).sample(str(seed)) for seed in range(4)]
    rows = speed(["ismallnet-s", "ismallnet-unet"], out=tmp_path, samples=samples, side=64, repetitions=1)
    assert rows[0]["runtime"] == "torch"
    assert (rows[0]["times_as_fast"], rows[0]["largest_difference"]) == ("1.00", "0")
    ways = {(row["runtime"], row["precision"]) for row in rows}
    assert ways >= {(benchmark.FOLDED, "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32")}
    first = float(rows[0]["median_ms"])
    for row in rows:
        assert float(row["times_as_fast_as_first"]) == pytest.approx(
            first / float(row["median_ms"]), rel=0.05
        )
        assert bool(row["iou"]) == (row["model"] == "ismallnet-s")  # random weights have none
        if row["precision"] == "fp32":
            assert float(row["largest_difference"]) <= check.MAX_FP32
    assert "| ismallnet-s | trained | torch | fp32 |" in to_markdown(rows)
    assert (tmp_path / "speed.csv").is_file()


def test_operations_are_counted_by_kind_with_their_arithmetic_and_bytes() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2)).eval()
    shares = profile(model, side=16, repetitions=2)
    assert {kind: share.calls for kind, share in shares.items()} == {
        "convolution": 1, "activation": 1, "resize": 1,
    }  # fmt: skip
    assert shares["convolution"].flops == 2 * 16 * 16 * 4 * 9
    assert shares["activation"].bytes == 2 * 4 * 16 * 16 * 4  # read and written, four bytes a value


def test_all_that_attention_does_is_attention() -> None:
    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = ChannelAttention(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.attention(x))

    shares = profile(Weighed().eval(), side=16, repetitions=1)
    assert set(shares) == {"attention", "activation"}
    assert shares["activation"].calls == 1


def adder(number: int) -> Callable[[int], int]:
    if number < 0:
        raise ValueError("it cannot start")

    def add(other: int) -> int:
        if other == 13:
            os._exit(1)
        if other < 0:
            raise ArithmeticError("too small")
        return number + other

    return add


def test_processes_answer_and_their_errors_are_raised_here() -> None:
    with processes({"one": partial(adder, 1), "two": partial(adder, 2), "bad": partial(adder, -1)}) as ask:
        assert [ask["one"](1), ask["two"](1), ask["one"](5)] == [2, 3, 6]
        with pytest.raises(ArithmeticError, match="too small"):
            ask["one"](-1)
        with pytest.raises(RuntimeError, match="the process of two died"):
            ask["two"](13)
        for process in multiprocessing.active_children():
            process.join(0.1)
        with pytest.raises(ValueError, match="it cannot start"):  # it ended long ago, before it was asked
            ask["bad"](1)


def test_start_up_is_timed_with_a_graph_made_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "WAYS", (("torch", ""), ("onnxruntime", "made"), ("onnxruntime", "kept")))
    rows = startup.startup("ismallnet-s", out=tmp_path, side=64, repetitions=1)
    assert [(row["runtime"], row["graph"]) for row in rows] == list(startup.WAYS)
    assert rows[0]["times_as_fast"] == "1.00"
    assert float(rows[2]["median_s"]) < float(rows[1]["median_s"])  # nothing is made the second time
    assert "| ismallnet-s | onnxruntime | kept |" in startup.to_markdown(rows)
    with pytest.raises(RuntimeError, match="failed: error: none-such is neither"):
        startup.startup("none-such", out=tmp_path, side=64, repetitions=1)
