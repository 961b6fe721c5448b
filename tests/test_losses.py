"""Losses; the literals are of the official code on the logits and truths below (systems.md, section 12)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor

from ismallnet.losses import (
    LOSSES,
    LabelDecouplingLoss,
    RegionLoss,
    bce,
    false_alarms,
    missed,
    off_target,
    sigmoid_on_softmax,
    soft_dice,
    soft_iou,
    ssim,
)
from ismallnet.types import Logits

LOGITS = torch.tensor([[[[0, 2], [-2, 4]]], [[[1, -1], [3, -3]]]], dtype=torch.float64)
TRUTH = torch.tensor([[[[0, 1], [0, 1]]], [[[1, 0], [0, 0]]]], dtype=torch.float64)


def test_batch_soft_iou_is_the_checked_value() -> None:
    assert soft_iou(LOGITS, TRUTH, per_sample=False).item() == pytest.approx(0.389643113848, abs=1e-12)


def test_per_sample_soft_iou_is_the_checked_value() -> None:
    assert soft_iou(LOGITS, TRUTH).item() == pytest.approx(0.339723479819, abs=1e-12)


def test_bce_is_the_checked_value() -> None:
    assert bce(LOGITS, TRUTH).item() == pytest.approx(0.586106401093, abs=1e-12)


def test_head_loss_is_the_checked_value() -> None:
    assert RegionLoss("bce+iou")(LOGITS, TRUTH).item() == pytest.approx(0.925829880912, abs=1e-12)


def test_dice_follows_from_iou_without_smoothing() -> None:
    iou = 1 - soft_iou(LOGITS, TRUTH, smooth=0, per_sample=False)
    dice = 1 - soft_dice(LOGITS, TRUTH, smooth=0, per_sample=False)
    assert dice.item() == pytest.approx((2 * iou / (1 + iou)).item(), abs=1e-12)


@pytest.mark.parametrize("per_sample", [True, False])
def test_one_sample_gives_the_same_per_sample_and_per_batch(per_sample: bool) -> None:
    """By hand: p = ½, t = 1 on one of two pixels: (½ + 1) / (1 + 1 - ½ + 1) = 0.6."""
    truth = torch.tensor([[[[1.0, 0.0]]]])
    assert soft_iou(torch.zeros(1, 1, 1, 2), truth, per_sample=per_sample).item() == pytest.approx(0.4)


@pytest.mark.parametrize("name", LOSSES)
def test_sure_and_right_costs_nothing(name: str) -> None:
    assert LOSSES[name](200 * TRUTH - 100, TRUTH).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("truth", [torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)])
def test_empty_and_full_truths_give_finite_gradients(name: str, truth: Tensor) -> None:
    logits = torch.full((2, 1, 4, 4), 50.0, requires_grad=True)
    LOSSES[name](logits, truth).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_are_computed_in_float32(name: str) -> None:
    logits = LOGITS.to(torch.bfloat16)  # the literals are exact in bf16
    loss = LOSSES[name](logits, TRUTH.to(torch.bfloat16))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(LOSSES[name](LOGITS, TRUTH).item(), abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_different_shapes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 2, 2\) and \(2, 2, 2\)"):
        LOSSES[name](LOGITS, TRUTH[:, 0])


def test_unknown_term_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"unknown loss 'iuo' in 'bce\+iuo'; choose from bce, iou, dice"):
        RegionLoss("bce+iuo")


def test_three_heads_add_up() -> None:
    head = RegionLoss()(LOGITS, TRUTH)
    loss = LabelDecouplingLoss()(Logits(LOGITS, LOGITS, LOGITS), TRUTH, TRUTH, TRUTH)
    assert loss.item() == pytest.approx(3 * head.item(), abs=1e-12)


def test_weights_and_the_mean_of_auxiliary_heads() -> None:
    head = RegionLoss()(LOGITS, TRUTH).item()
    weighted = LabelDecouplingLoss(interior_weight=0.5, boundary_weight=2, auxiliary_weight=0.25)
    loss = weighted(Logits(LOGITS, LOGITS, LOGITS, (LOGITS, LOGITS)), TRUTH, TRUTH, TRUTH)
    assert loss.item() == pytest.approx((1 + 0.5 + 2 + 0.25) * head, abs=1e-12)


def test_streams_may_have_their_own_loss() -> None:
    loss = LabelDecouplingLoss(streams="bce")(Logits(LOGITS, LOGITS, LOGITS), TRUTH, TRUTH, TRUTH)
    assert loss.item() == pytest.approx(0.925829880912 + 2 * 0.586106401093, abs=1e-11)


def test_heads_that_the_network_lacks_are_skipped() -> None:
    loss = LabelDecouplingLoss()
    assert loss(Logits(LOGITS), TRUTH).item() == loss(Logits(LOGITS), TRUTH, TRUTH, TRUTH).item()


@pytest.mark.parametrize("name", ["interior", "boundary"])
def test_head_without_its_map_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} head"):
        LabelDecouplingLoss()(Logits(LOGITS)._replace(**{name: LOGITS}), TRUTH)


def _batch_loss_and_gradient(part: slice) -> tuple[float, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 1, 5, 5, generator=generator, dtype=torch.float64)
    truth = (torch.rand(4, 1, 5, 5, generator=generator, dtype=torch.float64) > 0.6).double()
    gain = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    loss = RegionLoss("iou+dice", per_sample=False)(gain * logits[part], truth[part])
    loss.backward()
    assert gain.grad is not None
    return loss.item(), gain.grad


def _one_of_two_processes(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    loss, gradient = _batch_loss_and_gradient(slice(2 * rank, 2 * rank + 2))
    torch.distributed.all_reduce(gradient)
    torch.save((loss, gradient / 2), f"{folder}/{rank}.pt")  # DDP takes the mean of the gradients
    torch.distributed.destroy_process_group()


def test_batch_wide_loss_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    loss, gradient = _batch_loss_and_gradient(slice(None))
    torch.multiprocessing.spawn(_one_of_two_processes, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        loss_of_rank, gradient_of_rank = torch.load(tmp_path / f"{rank}.pt")
        assert loss_of_rank == pytest.approx(loss, abs=1e-12)
        assert gradient_of_rank.item() == pytest.approx(gradient.item(), abs=1e-12)


SCORE = torch.tensor([[[[0.5, 1.0], [0.25, 0.0]]]], dtype=torch.float64)
MASK = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]], dtype=torch.float64)


def test_missed_targets_and_false_alarms_are_squared_errors_on_and_off_target() -> None:
    """By hand: half missed on one of four pixels, a quarter too much on another."""
    assert missed(SCORE, MASK).item() == 0.25 / 4
    assert false_alarms(SCORE, MASK).item() == 0.0625 / 4
    half = torch.full_like(SCORE, 0.5)  # a soft truth counts half for both
    assert missed(torch.ones_like(SCORE), half).item() == 0.125
    assert false_alarms(torch.ones_like(SCORE), half).item() == 0.125


@pytest.mark.parametrize("loss", [missed, off_target, false_alarms])
def test_what_is_right_costs_nothing(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert loss(MASK, MASK).item() == 0


def test_background_counts_what_is_off_target_and_nothing_else() -> None:
    assert off_target(SCORE, MASK).item() == 0.25 / 4
    on_target = SCORE.clone()
    on_target[0, 0, 1] = 0
    assert off_target(on_target, MASK).item() == 0


def test_an_empty_truth_has_nothing_to_miss() -> None:
    assert missed(SCORE, torch.zeros_like(SCORE)).item() == 0


@pytest.mark.parametrize(
    ("probabilities", "kind", "expected"),
    # by hand: softplus(-p) of the wanted kind, softplus(p) of the others, the mean of three;
    # softplus(0) = 0.693147, softplus(-1) = 0.313262, softplus(1) = 1.313262, of ∓1/3 0.540306 and 0.873639
    [
        ((1.0, 0.0, 0.0), 0, (0.313262 + 2 * 0.693147) / 3),
        ((1.0, 0.0, 0.0), 2, (0.693147 + 1.313262 + 0.693147) / 3),
        ((1 / 3, 1 / 3, 1 / 3), 1, (0.540306 + 2 * 0.873639) / 3),
    ],
)
def test_sigmoid_on_softmax_is_activated_twice(
    probabilities: tuple[float, ...], kind: int, expected: float
) -> None:
    loss = sigmoid_on_softmax(torch.tensor([probabilities]), torch.tensor([kind]))
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_ssim_of_two_constant_maps_is_that_of_their_means() -> None:
    # by hand, without variances: (2 · ¼ · ¾ + c) / (1/16 + 9/16 + c), c = 0.01²
    low, high = torch.full((1, 1, 16, 16), 0.25), torch.full((1, 1, 16, 16), 0.75)
    assert ssim(low, high).item() == pytest.approx((0.375 + 1e-4) / (0.625 + 1e-4), abs=1e-4)
    assert ssim(low, low).item() == pytest.approx(1, abs=1e-6)


def test_ssim_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    torch.manual_seed(0)
    score, truth = (
        torch.rand(3, 1, 24, 31, dtype=torch.float64),
        torch.rand(3, 1, 24, 31, dtype=torch.float64),
    )
    truth[1] = (truth[1] > 0.95).double()
    score[2] = truth[2]
    settings = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(score[:, 0].numpy(), truth[:, 0].numpy(), strict=True)
    each = [metrics.structural_similarity(a, b, **settings) for a, b in pairs]
    assert ssim(score, truth).item() == pytest.approx(sum(each) / 3, abs=1e-9)


def test_ssim_refuses_maps_smaller_than_its_window() -> None:
    small = torch.rand(1, 1, 10, 40)
    with pytest.raises(ValueError, match=r"at least 11×11 pixels, got \(10, 40\)"):
        ssim(small, small)
