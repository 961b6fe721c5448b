"""int8: the convolutions' weights by channel, their inputs by the range that train images drive them to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ismallnet.runtimes import Artefact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def quantise(file: Path, out: Path, artefact: Artefact, images: Iterable[NDArray[np.float32]]) -> None:
    """Write an ONNX graph once more, with its convolutions but the first and the last in int8 (QDQ nodes).

    The first ones (those that have none before them) read the image, whose grey levels are as fine as int8;
    the last one decides thin margins.

    Args:
        file: The graph in fp32.
        out: The file to write.
        artefact: Its input.
        images: Pixels (H, W) in [0, 1] to calibrate on.
    """
    import logging

    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    outer = _outer_convolutions(onnx.load(file).graph)
    logging.disable(logging.WARNING)  # it advises what the folding of batch norms has done
    try:
        quantize_static(
            file,
            out,
            _Reader(artefact.encode(pixels)[None, None] for pixels in images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=outer,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)


def _outer_convolutions(graph: Any) -> list[str]:
    """Return the names of the convolutions that have none before them, and of the last one."""
    first: list[str] = []
    last = ""
    behind: set[str] = set()
    for node in graph.node:  # in an order in which each can be computed
        is_convolution = node.op_type == "Conv"
        if behind.intersection(node.input):
            behind.update(node.output)
        elif is_convolution:
            first.append(node.name)
            behind.update(node.output)
        last = node.name if is_convolution else last
    return list(dict.fromkeys([*first, last]))


class _Reader:
    """Hands the images to ONNX Runtime one by one, in its way."""

    def __init__(self, images: Iterator[NDArray[Any]]) -> None:
        self._images = images

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}
