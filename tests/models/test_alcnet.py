"""ALCNet: the facts known of the released weights, and its local contrast against loops in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ismallnet.models import create_model
from ismallnet.models.alcnet import (
    BottomUpModulation,
    deciding_contrast,
    local_contrast,
    multi_scale_contrast,
)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "count"),
    # the first is the size of the released weights, shared/systems.md section 10
    [({"in_channels": 3}, 372_573), ({}, 372_285), ({"in_channels": 3, "blocks": 3}, 275_357)],
)
def test_parameter_counts_equal_the_official_codes(options: dict[str, object], count: int) -> None:
    assert parameters(create_model("alcnet", **options)) == count


@pytest.mark.parametrize(("side", "gmac"), [(256, 3.592), (512, 14.37)])  # one channel, section 10
def test_multiply_adds_equal_the_official_codes(side: int, gmac: float) -> None:
    model = create_model("alcnet").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 1, side, side))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.005)


def reference(image: np.ndarray, shift: int) -> np.ndarray:
    """The local contrast of (H, W), with NumPy's own cyclic shift."""
    products = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = np.roll(image, (dy * shift, dx * shift), (0, 1)) - image
        other = np.roll(image, (-dy * shift, -dx * shift), (0, 1)) - image
        products.append(one * other)
    return np.min(products, axis=0)


@pytest.mark.parametrize("shift", [13, 17])
@pytest.mark.parametrize("size", [(18, 18), (20, 45), (64, 40)])
def test_local_contrast_equals_a_reference_in_numpy(size: tuple[int, int], shift: int) -> None:
    image = np.random.default_rng(0).normal(size=(2, 3, *size))
    ours = local_contrast(torch.from_numpy(image), shift).numpy()
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(ours[index], reference(image[index], shift))


def test_a_point_is_its_own_contrast() -> None:
    # shared/systems.md section 10
    point = torch.zeros(1, 1, 64, 64)
    point[0, 0, 30, 20] = 1
    assert torch.equal(local_contrast(point, 13), point)
    assert torch.equal(multi_scale_contrast(point), point)


def test_a_ramp_has_negative_contrast_but_where_the_shift_wraps() -> None:
    # shared/systems.md section 10: -k² inside; near the border the wrapped product is positive, the least is
    # the vertical one, 0
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    contrast = local_contrast(ramp, 13)
    assert (contrast[..., 13:-13] == -169).all()
    assert not contrast[..., :13].any()
    assert not contrast[..., -13:].any()


@pytest.mark.parametrize("size", [(18, 18), (20, 45), (64, 40)])
def test_contrast_in_training_has_the_values_and_the_gradient_of_autograd(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x)
    plain, ours = multi_scale_contrast(x), deciding_contrast(x)
    assert torch.equal(plain, ours)
    (expected,), (got,) = (torch.autograd.grad((y * weights).sum(), x) for y in (plain, ours))
    torch.testing.assert_close(got, expected)


def test_the_larger_contrast_of_both_scales_counts() -> None:
    # inside, shift 13 gives -169 and 17 gives -289; from column 13 to 16 the latter alone wraps and gives 0
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    contrast = multi_scale_contrast(ramp)
    assert (contrast[..., 17:-17] == -169).all()
    assert not contrast[..., 13:17].any()


def test_contrast_sees_the_opposite_border() -> None:
    """Shifts are cyclic, as in the released code: a pixel of the last column is 13 away from column 12."""
    image = torch.zeros(1, 1, 40, 40)
    image[0, 0, 20, 12] = -1
    image[0, 0, 20, 39] = 1
    # along the row, pixel 39 reads columns 26 (0) and 12 (-1): (0 - 1)(-1 - 1) = 2; on other axes 1
    assert local_contrast(image, 13)[0, 0, 20, 39] == 1
    # pixel 12 reads columns 25 (0) and 39 (1): (0 + 1)(1 + 1) = 2, elsewhere 1; nobody else stands out
    assert local_contrast(image, 13)[0, 0, 20, 12] == 1
    image[0, 0, 20, 12] = 3
    # now the row gives (0 - 1)(3 - 1) = -2, the least
    assert local_contrast(image, 13)[0, 0, 20, 39] == -2


def test_minimum_is_the_least_side_with_a_neighbour_17_away_at_a_quarter() -> None:
    model = create_model("alcnet", blocks=1).eval()
    assert model.minimum == 72
    seen: list[torch.Size] = []
    model.encoder.register_forward_hook(lambda _m, _i, out: seen.append(out[-1].shape[-2:]))
    with torch.no_grad():
        for size in ((72, 72), (73, 100), (20, 300)):
            assert model(torch.rand(1, 1, *size)).target.shape[-2:] == size
    assert seen == [(18, 18), (19, 25), (18, 75)]  # the last mirrored up to the minimum


def test_bottom_up_modulation_weighs_the_high_level_by_the_low_one() -> None:
    block = BottomUpModulation(2).eval()
    for part in block.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 0.0
        elif isinstance(part, nn.Conv2d):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    with torch.no_grad():
        block.gate[0].weight[0, 0] = 1
        block.gate[3].weight[1, 0] = float(np.log(3))
        block.norm_high.weight[:] = 2
    high = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    low = torch.tensor([[[[1.0, -1.0]], [[5.0, 0.0]]]])
    # low's first channel opens the gate of the second to 3/4 where it is 1 and leaves 1/2 where it is below 0
    expected = [[[1 / 2 * 2 * 1 + 1, 1 / 2 * 2 * 2 - 1]], [[3 / 4 * 2 * 3 + 5, 1 / 2 * 2 * 4 + 0]]]
    with torch.no_grad():
        assert torch.allclose(block(high, low), torch.tensor([expected]))


def test_a_level_is_joined_by_its_contrast_not_by_itself() -> None:
    """A constant image has no contrast: all that the heads see is what the batch norms make of 0."""
    torch.manual_seed(0)
    model = create_model("alcnet", blocks=1).eval()
    inner = (..., slice(40, 56), slice(40, 56))  # away from the convolutions' zero padding
    seen: list[torch.Tensor] = []
    for fuse in model.fuse:
        fuse.register_forward_hook(lambda _m, i, _o: seen.append(i[1]))
    with torch.no_grad():
        model(torch.full((1, 1, 96, 96), 0.3))
    assert not seen[1][inner].any()


def test_gradient_moves_every_weight() -> None:
    torch.manual_seed(0)
    model = create_model("alcnet", blocks=1).train()
    target = model(torch.rand(4, 1, 72, 72)).target
    (target * torch.randn_like(target)).sum().backward()
    # a bias before a batch norm is subtracted again: its gradient is rounding
    still = [n for n, p in model.named_parameters() if p.grad is None or (p.ndim > 1 and not p.grad.any())]
    assert still == []


def test_three_channels_are_normalised_as_imagenet() -> None:
    model = create_model("alcnet", in_channels=3, blocks=1)
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert model.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_batch_norms_have_the_momentum_of_pytorch() -> None:
    norms = [m for m in create_model("alcnet").modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
