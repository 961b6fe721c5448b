"""Region losses on logits, the loss of a network with label decoupling, and losses on score maps.

Every region loss takes logits and a truth in [0, 1] (soft labels included), both (B, 1, H, W), and returns
a scalar. They compute in float32 where the logits have half precision, float64 in float64. The losses of
MDvsFA and TBC-Net take a score map in [0, 1] in place of the logits.

Several processes: a mean over samples needs nothing, since the mean of the processes' gradients is the
gradient of the whole batch where all have equally many samples. A ratio of sums over the batch
(``per_sample=False``) is not such a mean, so its sums are all-reduced, with gradient, when
``torch.distributed`` is initialised: every process then holds the loss of the global batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from ismallnet.types import Logits


def soft_iou(logits: Tensor, truth: Tensor, *, smooth: float = 1.0, per_sample: bool = True) -> Tensor:
    """One minus the soft intersection over union, ``(Σpt + s) / (Σ(p + t - pt) + s)``, p = sigmoid(logits).

    Args:
        logits: (B, 1, H, W).
        truth: (B, 1, H, W) in [0, 1].
        smooth: s: what makes an empty truth count, its loss being ``1 - s / (Σp + s)``.
        per_sample: The mean over samples (iSmallNet and label decoupling); else one ratio of the sums over
            the batch (ACM, ALCNet, DNANet), which large targets dominate.
    """
    overlap, total = _overlap_and_total(logits, truth, per_sample=per_sample)
    ratio: Tensor = (overlap + smooth) / (total - overlap + smooth)
    return 1 - ratio.mean()


def soft_dice(logits: Tensor, truth: Tensor, *, smooth: float = 1.0, per_sample: bool = True) -> Tensor:
    """One minus the soft Dice coefficient, ``(2Σpt + s) / (Σ(p + t) + s)``; arguments as in ``soft_iou``."""
    overlap, total = _overlap_and_total(logits, truth, per_sample=per_sample)
    ratio: Tensor = (2 * overlap + smooth) / (total + smooth)
    return 1 - ratio.mean()


def bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over all pixels of the batch.

    Args:
        logits: (B, 1, H, W).
        truth: (B, 1, H, W) in [0, 1].
    """
    return F.binary_cross_entropy_with_logits(*_full_precision(logits, truth))


LOSSES: dict[str, Callable[..., Tensor]] = {"bce": bce, "iou": soft_iou, "dice": soft_dice}
"""The terms that a ``RegionLoss`` may add up."""


class RegionLoss(nn.Module):
    """A sum of region losses, named as in ``"bce+iou"``.

    Args:
        terms: Names in ``LOSSES`` joined by ``+``.
        per_sample: See ``soft_iou``.
        smooth: See ``soft_iou``.

    Raises:
        ValueError: If a name is not in ``LOSSES``.
    """

    def __init__(self, terms: str = "bce+iou", *, per_sample: bool = True, smooth: float = 1.0) -> None:
        super().__init__()
        self.names = tuple(name.strip() for name in terms.split("+"))
        for name in self.names:
            if name not in LOSSES:
                raise ValueError(
                    f"unknown loss {name!r} in {terms!r}; choose from {', '.join(LOSSES)}, joined by '+'"
                )
        self.per_sample = per_sample
        self.smooth = smooth

    def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
        """The sum of the terms, a scalar; both arguments are (B, 1, H, W)."""
        ratio = {"per_sample": self.per_sample, "smooth": self.smooth}
        terms = [LOSSES[name](logits, truth, **({} if name == "bce" else ratio)) for name in self.names]
        return torch.stack(terms).sum()


class LabelDecouplingLoss(nn.Module):
    """The loss of the three heads: target, interior and boundary, each BCE + soft IoU by default.

    The defaults are those of the official code (a plain sum, per-sample IoU with smooth 1). The
    label-decoupling paper itself takes ``streams="bce"``. A head that the network does not have is skipped.

    Args:
        target: Loss of the target head and of the auxiliary heads, for ``RegionLoss``.
        streams: Loss of the interior and boundary heads, for ``RegionLoss``.
        interior_weight: Factor of the interior head.
        boundary_weight: Factor of the boundary head.
        auxiliary_weight: Factor of the mean over the auxiliary heads, each against the target's truth.
        per_sample: See ``soft_iou``.
        smooth: See ``soft_iou``.
    """

    def __init__(
        self,
        target: str = "bce+iou",
        *,
        streams: str = "bce+iou",
        interior_weight: float = 1.0,
        boundary_weight: float = 1.0,
        auxiliary_weight: float = 1.0,
        per_sample: bool = True,
        smooth: float = 1.0,
    ) -> None:
        super().__init__()
        self.target = RegionLoss(target, per_sample=per_sample, smooth=smooth)
        self.streams = RegionLoss(streams, per_sample=per_sample, smooth=smooth)
        self.interior_weight = interior_weight
        self.boundary_weight = boundary_weight
        self.auxiliary_weight = auxiliary_weight

    def forward(
        self, logits: Logits, target: Tensor, interior: Tensor | None = None, boundary: Tensor | None = None
    ) -> Tensor:
        """The weighted sum over the heads, a scalar.

        Args:
            logits: What the network returned.
            target: (B, 1, H, W) in [0, 1], the mask.
            interior: (B, 1, H, W) in [0, 1]; needed where the network has an interior head.
            boundary: (B, 1, H, W) in [0, 1]; needed where the network has a boundary head.

        Raises:
            ValueError: If a map is missing, or its shape is not that of its logits.
        """
        loss: Tensor = self.target(logits.target, target)
        for name, head, truth, weight in (
            ("interior", logits.interior, interior, self.interior_weight),
            ("boundary", logits.boundary, boundary, self.boundary_weight),
        ):
            if head is None:
                continue
            if truth is None:
                raise ValueError(f"the network has an {name} head, so the loss needs the {name} map")
            loss = loss + weight * self.streams(head, truth)
        if logits.auxiliary:
            heads = torch.stack([self.target(head, target) for head in logits.auxiliary])
            loss = loss + self.auxiliary_weight * heads.mean()
        return loss


def missed(score: Tensor, truth: Tensor) -> Tensor:
    """MDvsFA's missed detection, ``mean((s - t)² t)`` over all pixels; 0 for an empty truth.

    Args:
        score: (B, 1, H, W) in [0, 1].
        truth: (B, 1, H, W) in [0, 1].
    """
    score, truth = _full_precision(score, truth)
    return ((score - truth).square() * truth).mean()


def false_alarms(score: Tensor, truth: Tensor) -> Tensor:
    """MDvsFA's false alarm, ``mean((s - t)² (1 - t))`` over all pixels; arguments as in ``missed``."""
    score, truth = _full_precision(score, truth)
    return ((score - truth).square() * (1 - truth)).mean()


def off_target(score: Tensor, truth: Tensor) -> Tensor:
    """Background suppression, ``mean(|s| (1 - t))`` over all pixels; arguments as in ``missed``."""
    score, truth = _full_precision(score, truth)
    return (score.abs() * (1 - truth)).mean()


def sigmoid_on_softmax(probabilities: Tensor, kind: Tensor) -> Tensor:
    """MDvsFA's adversarial loss: the sigmoid cross-entropy of what a softmax has made probabilities of.

    Both releases activate twice. Of three kinds the loss is 0.57 if all are right and 0.90 if all are wrong.

    Args:
        probabilities: (B, K), each row a softmax.
        kind: (B,) int64, the wanted kind of each, below K.
    """
    wanted = F.one_hot(kind, probabilities.shape[1]).to(probabilities.dtype)
    return F.binary_cross_entropy_with_logits(probabilities, wanted)


SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
"""Of the Gaussian window of ``ssim``, in pixels: it is 11×11."""


def ssim(score: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al., IEEE TIP 2004), the mean over maps and pixels; 1 for equal maps.

    With the paper's Gaussian window and constants 0.01² and 0.03² for a range of 1; population covariances; a
    border of 5 pixels is left out of the mean, as scikit-image does.

    Args:
        score: (B, 1, H, W) in [0, 1], H and W at least 11.
        truth: (B, 1, H, W) in [0, 1].

    Raises:
        ValueError: The maps are smaller than the window, or their shapes differ.
    """
    score, truth = _full_precision(score, truth)
    if min(score.shape[-2:]) <= 2 * SSIM_RADIUS:
        raise ValueError(f"ssim needs maps of at least 11×11 pixels, got {tuple(score.shape[-2:])}")
    offset = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, device=score.device, dtype=score.dtype)
    window = torch.exp(-((offset / SSIM_SIGMA) ** 2) / 2)
    window = (window / window.sum()).view(1, 1, 1, -1)
    products = torch.cat([score, truth, score * score, truth * truth, score * truth])
    local = F.conv2d(F.conv2d(products, window), window.transpose(-1, -2))
    mean_s, mean_t, square_s, square_t, product = local.chunk(5)
    covariance, both = product - mean_s * mean_t, mean_s * mean_t
    squares = mean_s.square() + mean_t.square()
    variances = square_s + square_t - squares
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * both + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity.mean()


def _full_precision(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32, or float64 where they are; shapes checked."""
    if logits.shape != truth.shape or logits.ndim != 4:
        raise ValueError(
            f"logits and truth are both (B, 1, H, W), got {tuple(logits.shape)} and {tuple(truth.shape)}"
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype), truth.to(dtype)


def _overlap_and_total(logits: Tensor, truth: Tensor, *, per_sample: bool) -> tuple[Tensor, Tensor]:
    """Σpt and Σ(p + t): (B,) per sample, or (1,) over the batch of all processes."""
    logits, truth = _full_precision(logits, truth)
    score = torch.sigmoid(logits)
    sums = torch.stack([(score * truth).flatten(1).sum(1), (score + truth).flatten(1).sum(1)])
    if not per_sample:
        sums = sums.sum(1, keepdim=True)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            sums = _SumOverProcesses.apply(sums)  # type: ignore[no-untyped-call]
    return sums[0], sums[1]


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce with gradient: an input counts in the loss of every process, so its gradients add up."""

    @staticmethod
    def forward(_ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return _SumOverProcesses.forward(None, gradients[0])
