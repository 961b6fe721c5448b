"""How far an exported network is from PyTorch, and how far it may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ismallnet.data.synthetic import scene

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from ismallnet.runtimes import Artefact, Precision, Run
    from ismallnet.types import Sample

    Score = Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """From pixels (H, W) in [0, 1] to a score (H, W)."""

SIZES = ((256, 256), (150, 211), (96, 330))
"""Of the seeded scenes; the second and the third are no multiple of 16."""
MAX_FP32 = 1e-4
"""In float32, no score may differ by more."""
P999_HALF = 0.02
"""In fp16 and bf16, one score in a thousand may differ by more."""
IOU_POINTS = {"fp16": 0.1, "bf16": 0.1, "int8": 0.3}
"""Points of pooled IoU that may be lost, or won, on images with masks."""


class ExportError(ValueError):
    """The exported network is too far from the one it is of."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two scores of the same images."""

    images: int
    largest: float
    p999: float
    """99.9 % of all pixels differ by no more."""
    iou: float | None = None
    iou_torch: float | None = None
    """Pooled IoU in points, of this runtime and of PyTorch in float32; None where there is no mask."""


def torch_score(model: nn.Module) -> Score:
    """Return the score of the plain network, in float32 on the CPU: what all others are measured by."""

    @torch.inference_mode()
    def score(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        image = torch.from_numpy(np.ascontiguousarray(pixels))[None, None]
        return np.asarray(model.score(image)[0, 0].numpy(), np.float32)  # type: ignore[operator]

    return score


def run_score(artefact: Artefact, run: Run) -> Score:
    """Return the score that a runtime gives for pixels in [0, 1]."""
    return lambda pixels: run(artefact.encode(pixels)[None, None])[0, 0]


def seen(artefact: Artefact, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the pixels that the graph sees: whole numbers are rounded."""
    values = artefact.encode(pixels).astype(np.float32)
    return (values - np.float32(artefact.low)) / np.float32(artefact.high - artefact.low)


def seeded_scenes(minimum: int) -> Iterator[NDArray[np.float32]]:
    """Yield synthetic scenes of `SIZES`, the same every time."""
    for seed, (height, width) in enumerate(SIZES):
        yield scene(seed, height=max(height, minimum), width=max(width, minimum)).image


def compare_scenes(expected: Score, artefact: Artefact, run: Run) -> Difference:
    """Compare on the seeded scenes, and on two of them as one batch."""
    images = [seen(artefact, pixels) for pixels in seeded_scenes(artefact.minimum)]
    score = run_score(artefact, run)
    gaps = [np.abs(score(pixels) - expected(pixels)) for pixels in images]
    pair = np.stack([images[0], images[0][::-1]])
    batch = run(artefact.encode(pair)[:, None])[:, 0]
    gaps += [np.abs(each - expected(pixels)) for each, pixels in zip(batch, pair, strict=True)]
    return _difference(gaps)


def compare_pixels(expected: Score, score: Score, images: Iterable[NDArray[np.float32]]) -> Difference:
    """Compare two scores on images without masks."""
    return _difference([np.abs(score(pixels) - expected(pixels)) for pixels in images])


def compare_samples(expected: Score, score: Score, samples: Sequence[Sample], threshold: float) -> Difference:
    """Compare on images with masks, seen in 8 bits."""
    gaps, counts = [], np.zeros((2, 2), np.int64)
    for sample in samples:
        pixels = sample.image.astype(np.float32) / np.float32(255)
        both = score(pixels), expected(pixels)
        gaps.append(np.abs(both[0] - both[1]))
        for row, values in zip(counts, both, strict=True):
            mask = values > threshold
            row += (mask & sample.mask).sum(), (mask | sample.mask).sum()
    ious = [100 * float(both / either) if either else 100.0 for both, either in counts]
    return _difference(gaps, *ious)


def require(found: Difference, precision: Precision, what: str) -> None:
    """Refuse a difference beyond what the precision may have.

    Raises:
        ExportError: It is beyond; the text has the largest.
    """
    faults = []
    if not np.isfinite(found.largest):
        faults.append("scores are not finite")
    if precision == "fp32" and found.largest > MAX_FP32:
        faults.append(f"in fp32 at most {MAX_FP32:g} is accepted")
    if precision in ("fp16", "bf16") and found.p999 > P999_HALF:
        faults.append(f"99.9 % of the pixels are within {found.p999:.3g}, {P999_HALF:g} is accepted")
    if found.iou is not None and found.iou_torch is not None and precision in IOU_POINTS:
        points = abs(found.iou - found.iou_torch)
        if points > IOU_POINTS[precision]:
            faults.append(f"pooled IoU differs by {points:.2f} points, {IOU_POINTS[precision]} are accepted")
    if faults:
        raise ExportError(
            f"{what} is too far from PyTorch: the largest difference of a score is {found.largest:.3g}; "
            + "; ".join(faults)
        )


def _difference(gaps: Sequence[NDArray[np.float32]], *ious: float) -> Difference:
    values = np.concatenate([gap.ravel() for gap in gaps])
    return Difference(len(gaps), float(values.max()), float(np.quantile(values, 0.999)), *ious)
