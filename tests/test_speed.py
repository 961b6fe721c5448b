"""The speed benchmark: every way is there, the ratios are of its own times, and the kinds add up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

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
    samples = [scene(seed, height=64, width=64).sample(str(seed)) for seed in range(4)]
    rows = speed(["ismallnet-s", "tbcnet"], out=tmp_path, samples=samples, side=64, repetitions=1)
    assert rows[0]["runtime"] == "torch"
    assert (rows[0]["times_as_fast"], rows[0]["largest_difference"]) == ("1.00", "0")
    ways = {(row["runtime"], row["precision"]) for row in rows}
    assert ways >= {("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "int8")}
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
