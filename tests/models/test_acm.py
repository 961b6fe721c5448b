"""ACMNet: the facts known of the released weights, and its modulation worked out by hand."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ismallnet.models import create_model
from ismallnet.models.acm import AsymmetricModulation
from ismallnet.models.encoder import ThreeStages


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("host", "stem", "blocks", "count"),
    # three input channels; the first is the size of the released weights, shared/systems.md section 9
    [
        ("unet", "full", 4, 516_869),
        ("unet", "full", 3, 396_421),
        ("unet", "stride4", 4, 518_413),
        ("unet", "stride4", 3, 397_965),
        ("fpn", "full", 4, 385_637),
        ("fpn", "full", 3, 288_421),
        ("fpn", "stride4", 4, 387_181),
        ("fpn", "stride4", 3, 289_965),
    ],
)
def test_parameter_counts_equal_the_official_codes(host: str, stem: str, blocks: int, count: int) -> None:
    model = create_model("acm", host=host, stem=stem, blocks=blocks, in_channels=3)
    assert parameters(model) == count


def test_the_released_form_in_grey_is_built_by_default() -> None:
    assert parameters(create_model("acm")) == 516_869 - 288  # 16 filters of 3×3 on two channels fewer


@pytest.mark.parametrize(
    ("options", "side", "gmac"),
    # one channel, convolutions only, shared/systems.md section 9
    [
        ({}, 256, 6.54),
        ({}, 512, 26.16),
        ({"blocks": 3}, 256, 10.06 / 2),
        ({"host": "fpn"}, 256, 3.92),
        ({"stem": "stride4", "blocks": 3}, 256, 0.343),
        ({"stem": "stride4", "blocks": 3}, 512, 2.75 / 2),
    ],
)
def test_multiply_adds_equal_the_official_codes(options: dict[str, object], side: int, gmac: float) -> None:
    model = create_model("acm", **options).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 1, side, side))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.005)


def neutral(module: nn.Module) -> nn.Module:
    """Batch norms that change nothing, every other weight 0."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 0.0
        elif isinstance(part, nn.Conv2d):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    return module.eval()


def hand_made(context: float, point: float) -> AsymmetricModulation:
    """Four channels; both bottlenecks have one, ``context`` and ``point`` times the first channel."""
    fuse = neutral(AsymmetricModulation(4))
    assert isinstance(fuse, AsymmetricModulation)
    with torch.no_grad():
        for gate, factor in ((fuse.top_down, context), (fuse.bottom_up, point)):
            gate[0].weight[0, 0] = factor
            gate[3].weight[:] = 1
        for channel in range(4):
            fuse.merge[0].weight[channel, channel, 1, 1] = 1
    return fuse


def test_modulation_weighs_the_low_level_by_the_global_mean_and_the_high_one_pixel_by_pixel() -> None:
    high, low = torch.zeros(1, 4, 1, 2), torch.zeros(1, 4, 1, 2)
    high[0, :, 0] = torch.tensor([[1.0, 3.0], [5.0, 5.0], [-9.0, 0.0], [0.0, 0.0]])
    low[0, :, 0] = torch.tensor([[0.0, 1.0], [1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])
    out = hand_made(context=math.log(3) / 2, point=-1.0)(high, low)[0, :, 0]
    # the mean of high's first channel is 2, so that g is the sigmoid of ln 3, 3/4, for all channels;
    # p is the sigmoid of relu(-low), 1/2: 2 · 3/4 · low + 2 · 1/2 · high, cut at 0
    expected = [[1.0, 4.5], [6.5, 8.0], [0.0, 3.0], [0.0, 0.0]]
    assert torch.allclose(out, torch.tensor(expected))
    out = hand_made(context=-1.0, point=math.log(3))(high, low)[0, :, 0]
    # g is 1/2; p is 1/2 where low's first channel is 0 and 3/4 where it is 1
    expected = [[1.0, 5.5], [6.0, 9.5], [0.0, 2.0], [0.0, 0.0]]
    assert torch.allclose(out, torch.tensor(expected))


@pytest.mark.parametrize(("stem", "stride"), [("full", 1), ("stride4", 4)])
def test_stem_decides_the_resolution_of_the_finest_level(stem: str, stride: int) -> None:
    encoder = ThreeStages(1, 1, stem)
    sizes = [tuple(x.shape[1:]) for x in encoder.eval()(torch.rand(1, 1, 64, 96))]
    assert sizes == [(16 << i, 64 // stride >> i, 96 // stride >> i) for i in range(3)]


@pytest.mark.parametrize("host", ["unet", "fpn"])
@pytest.mark.parametrize("stem", ["full", "stride4"])
@pytest.mark.parametrize("size", [(16, 16), (17, 33)])
def test_every_form_takes_any_size(host: str, stem: str, size: tuple[int, int]) -> None:
    model = create_model("acm", host=host, stem=stem, blocks=1).eval()
    assert model.multiple == (4 if stem == "full" else 16)
    with torch.no_grad():
        logits = model(torch.rand(2, 1, *size))
    assert logits.target.shape == (2, 1, *size)
    assert logits.target.isfinite().all()
    assert (logits.interior, logits.boundary, logits.auxiliary) == (None, None, ())


@pytest.mark.parametrize("host", ["unet", "fpn"])
def test_gradient_moves_every_weight(host: str) -> None:
    torch.manual_seed(0)
    model = create_model("acm", host=host, blocks=1).train()
    target = model(torch.rand(4, 1, 32, 32)).target
    (target * torch.randn_like(target)).sum().backward()
    # a bias before a batch norm is subtracted again: its gradient is rounding
    still = [n for n, p in model.named_parameters() if p.grad is None or (p.ndim > 1 and not p.grad.any())]
    assert still == []


def test_three_channels_are_normalised_as_imagenet() -> None:
    model = create_model("acm", in_channels=3, blocks=1)
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert model.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_batch_norms_have_the_momentum_of_pytorch() -> None:
    # MXNet's 0.9 weighs the old value, PyTorch's 0.1 the new one
    norms = [m for m in create_model("acm").modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}


@pytest.mark.parametrize("options", [{"host": "unte"}, {"stem": "stride2"}, {"in_channels": 2}])
def test_unknown_choice_is_refused_with_the_choices(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="choose from"):
        create_model("acm", **options)


def test_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match="got blocks=0; give at least 1"):
        create_model("acm", blocks=0)
