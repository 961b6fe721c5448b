"""OpenVINO on the CPU: bfloat16 that sees the whole image, and graphs of their own for sizes that come often.

bfloat16 has eight bits. An image rounded to them loses up to half a grey level of 256, which is what a dim
target may be above its surroundings: of all roundings in a network this one moves the score most. So what
comes before the first convolutions (scaling, mirroring, normalisation) is a small graph in float32. It gives
each value x as two that bfloat16 holds, x = a + b, and so are the weights, w = u + v: the convolution of
(a, b, a) with (u, u, v) is that of x with w to sixteen bits, at the price of channels that were empty. What
follows is in bfloat16 as the runtime has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Run = Callable[[NDArray[Any]], NDArray[np.float32]]

OFTEN = 100
"""At this image of a shape a graph is compiled for it: that takes as long as it saves on some 100."""
KEPT = 4
"""Shapes that have a graph of their own, at most."""
_SPLITTER = np.float32(2**16 + 1)


def has_bf16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def require_bf16() -> None:
    """Refuse a processor without bfloat16.

    Raises:
        ValueError: It has none.
    """
    if not has_bf16():
        raise ValueError("this processor does not compute in bfloat16; leave --precision out")


def open_graph(file: Path, *, bf16: bool, threads: int) -> Run:
    """Open a graph, ONNX or OpenVINO's, from images (B, 1, H, W) to scores of that shape.

    Args:
        file: The graph.
        bf16: Compute in bfloat16, as said above; else in float32.
        threads: How many; 0: as the runtime finds best.

    Raises:
        ValueError: The processor has no bfloat16.
    """
    import openvino

    if bf16:
        require_bf16()
    core = openvino.Core()
    model = core.read_model(file)
    every = _compiled(core, model.clone(), bf16=bf16, threads=threads)
    seen: Counter[tuple[int, ...]] = Counter()
    own: dict[tuple[int, ...], Run] = {}

    def run(images: NDArray[Any]) -> NDArray[np.float32]:
        shape = images.shape
        seen[shape] += 1
        if seen[shape] == OFTEN and len(own) < KEPT:
            fixed = model.clone()
            fixed.reshape(list(shape))
            own[shape] = _compiled(core, fixed, bf16=bf16, threads=threads)
        return own.get(shape, every)(images)

    return run


def _compiled(core: Any, model: Any, *, bf16: bool, threads: int) -> Run:
    """Compile a graph for the shapes that it takes; it is taken apart where ``bf16``."""

    def request(part: Any, precision: str) -> Any:
        properties: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,  # its own choice is bf16 where there is any
        }
        if threads:
            properties["INFERENCE_NUM_THREADS"] = threads
        return core.compile_model(part, "CPU", properties).create_infer_request()

    def copied(results: Any) -> NDArray[np.float32]:
        return np.array(results[0], np.float32)  # the request reuses its memory

    first = _first_convolutions(model) if bf16 else []
    if not first:
        whole = request(model, "bf16" if bf16 else "f32")
        return lambda images: copied(whole.infer([images]))
    before, after = _apart(model, first)
    front, rest = request(before, "f32"), request(after, "bf16")
    return lambda images: copied(rest.infer([images, *front.infer([images]).values()]))


def _apart(model: Any, first: Sequence[Any]) -> tuple[Any, Any]:
    """Take a graph apart before these convolutions; it is used up.

    Returns:
        From the image to what they read, each three times as many channels; from the image and these to the
        score. The second needs the image for its size, and for convolutions by groups: they stay.
    """
    from openvino import Model
    from openvino import opset13 as ops

    (image,) = model.get_parameters()
    results, parameters = [], [image]
    taken: dict[tuple[str, int], Any] = {}
    for convolution in first:
        x, weights = (convolution.input_value(index) for index in (0, 1))
        place = x.get_node().get_name(), x.get_index()
        if place not in taken:
            high, low = _halves(x)
            shape = x.get_partial_shape()
            shape[1] = 3 * weights.get_shape()[1]
            taken[place] = ops.parameter(shape, np.float32)
            results.append(ops.result(ops.concat([high, low, high], 1)))
            parameters.append(taken[place])
        high, low = _halves(weights)
        convolution.input(0).replace_source_output(taken[place].output(0))
        convolution.input(1).replace_source_output(ops.concat([high, high, low], 1).output(0))
    return Model(results, [image]), Model(model.get_results(), parameters)


def _first_convolutions(model: Any) -> list[Any]:
    """Return the convolutions that have none before them."""
    first: list[Any] = []
    behind: set[str] = set()
    for node in model.get_ordered_ops():
        sources = {value.get_node().get_name() for value in node.input_values()}
        if sources & behind:
            behind.add(node.get_name())
        elif node.get_type_name() == "Convolution":
            first.append(node)
            behind.add(node.get_name())
    return first


def _halves(x: Any) -> tuple[Any, Any]:
    """Split float32 values: eight bits, and what is left, which loses its last eight in bfloat16.

    By T. J. Dekker, "A floating-point technique for extending the available precision", 1971.
    """
    from openvino import opset13 as ops

    scaled = ops.multiply(x, ops.constant(_SPLITTER))
    high = ops.subtract(scaled, ops.subtract(scaled, x))
    return high, ops.subtract(x, high)
