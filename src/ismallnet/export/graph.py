"""The graph that is exported, and its files: what comes before the network and after it is inside.

The network pads by Python's arithmetic on sizes, which a graph for every size cannot hold. Here the mirroring
is an index, computed from the size in the graph; what reaches the network is a multiple already.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ismallnet.models.inference import inference_form

if TYPE_CHECKING:
    from ismallnet.runtimes import Input

OPSET = 17
"""Of ONNX: what ONNX Runtime, OpenVINO and TensorRT have had for years, and int8 by channel needs."""
_SAMPLE = (2, 1, 64, 96)
"""A batch of 1, or equal sides, would be taken for constants."""


class ScoreGraph(nn.Module):
    """From images in a camera's values to scores.

    Args:
        model: A network, as `ismallnet.models.create_model` makes them.
        low: The value of the input that is 0 to the network.
        high: The value that is 1.
        half: Weights and arithmetic in float16; the score is float32 all the same.
    """

    def __init__(self, model: nn.Module, *, low: float, high: float, half: bool = False) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.dtype = torch.float16 if half else torch.float32
        self.multiple = int(getattr(model, "multiple", 1))
        self.network = inference_form(model).to(self.dtype)
        for name in ("multiple", "minimum"):
            setattr(self.network, name, 1)  # the mirroring is here

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, H, W) of any type, H and W at least the network's minimum, to scores (B, 1, H, W)."""
        x = ((image.float() - self.low) / (self.high - self.low)).clamp(0, 1)
        x = _mirror(_mirror(x, 2, self.multiple), 3, self.multiple)
        score = torch.sigmoid(self.network(x.to(self.dtype)).target.float())
        return score[..., : image.shape[2], : image.shape[3]]


def _mirror(x: Tensor, axis: int, multiple: int) -> Tensor:
    """Mirror at the end to a multiple, as often as it takes, as `layers.pad` does; at least 2 pixels."""
    length = x.shape[axis]
    period = 2 * (length - 1)
    step = torch.arange((length + multiple - 1) // multiple * multiple) % period
    return x.index_select(axis, torch.minimum(step, period - step))


def write_onnx(graph: ScoreGraph, file: Path, *, input: Input) -> None:
    """Write the graph as ONNX, for every batch, height and width.

    By tracing, the older of PyTorch's two exporters, which is in all versions that pyproject.toml allows: one
    second in place of twenty, and no package more.
    """
    import onnx

    # it does not know uint16; whatever the whole number's type, the first node casts it
    sample = torch.zeros(_SAMPLE, dtype=torch.float32 if input == "float32" else torch.int32)
    axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes that are compared become constants: they are always equal
        torch.onnx.export(
            graph,
            (sample,),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["score"],
            dynamic_axes={"image": axes, "score": axes},
        )
    model = onnx.load(file)
    kind = {
        "uint8": onnx.TensorProto.UINT8,
        "uint16": onnx.TensorProto.UINT16,
        "float32": onnx.TensorProto.FLOAT,
    }
    model.graph.input[0].type.tensor_type.elem_type = kind[input]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def write_torch(graph: ScoreGraph, file: Path, *, input: Input) -> None:
    """Write the graph as PyTorch's own exported program, for every batch, height and width."""
    free = torch.export.Dim.AUTO
    height, width = (
        side + 6 for side in _SAMPLE[2:]
    )  # no multiple: a size with nothing to mirror is a special case
    sample = torch.zeros((*_SAMPLE[:2], height, width), dtype=getattr(torch, input))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, (sample,), dynamic_shapes=({0: free, 2: free, 3: free},))
        torch.export.save(program, file)


def write_openvino(onnx_file: Path, file: Path, *, half: bool) -> None:
    """Write a graph that is ONNX as OpenVINO's: an .xml file, and a .bin file beside it."""
    import openvino

    openvino.save_model(openvino.Core().read_model(onnx_file), file, compress_to_fp16=half)
