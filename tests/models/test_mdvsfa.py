"""MDvsFA: the sizes of both releases, its map as a score, and the discriminator."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ismallnet.models import create_model
from ismallnet.models.mdvsfa import (
    AdaptiveNorm,
    Discriminator,
    FalseAlarmGenerator,
    MissGenerator,
    mean_logits,
)

SMALL: dict[str, object] = {"miss_widths": (4,) * 8, "false_alarm_width": 4}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("norm", "miss", "false_alarm"),
    # shared/systems.md section 8: of the PyTorch release, and of the TensorFlow original by hand
    [("batch", 3_138_497, 629_825), ("adaptive", 3_135_569, 628_187)],
)
def test_parameter_counts_equal_the_releases(norm: str, miss: int, false_alarm: int) -> None:
    model = create_model("mdvsfa", norm=norm)
    assert (parameters(model.miss), parameters(model.false_alarm)) == (miss, false_alarm)
    assert parameters(model) == miss + false_alarm


def test_the_discriminator_has_the_size_of_the_pytorch_release() -> None:
    assert parameters(Discriminator()) == 151_276


@pytest.mark.parametrize(("build", "gmac"), [(MissGenerator, 205.40), (FalseAlarmGenerator, 41.11)])
def test_multiply_adds_equal_the_release(build: type[nn.Module], gmac: float) -> None:
    # 1 x 256 x 256, convolutions only, shared/systems.md section 8; shapes alone, nothing is computed
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():
        build().eval()(torch.empty(1, 1, 256, 256))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.005)


def test_the_score_is_the_mean_of_the_clamped_maps() -> None:
    first = torch.tensor([-3.0, 0.2, 0.5, 1.0, 7.0, 0.0]).view(1, 1, 1, 6)
    second = torch.tensor([-1.0, 0.4, -2.0, 1.0, 1.5, 2e-3]).view(1, 1, 1, 6)
    expected = torch.tensor([0.0, 0.3, 0.25, 1.0, 1.0, 1e-3]).view(1, 1, 1, 6)  # by hand
    score = torch.sigmoid(mean_logits(first, second))
    assert (score - expected).abs().max() < 2e-6


def test_the_network_answers_with_the_mean_of_what_its_generators_answer() -> None:
    torch.manual_seed(0)
    model, image = create_model("mdvsfa", **SMALL).eval(), torch.rand(2, 1, 33, 40)
    with torch.no_grad():
        maps = [part(2 * image - 1).clamp(0, 1) for part in (model.miss, model.false_alarm)]
        assert (model.score(image) - (maps[0] + maps[1]) / 2).abs().max() < 2e-6
    assert model(image).auxiliary == ()


def reach(model: nn.Module, size: int) -> int:
    """How far from the middle of an image a change of its middle pixel is seen, in pixels."""
    image = torch.rand(1, 1, size, size, dtype=torch.float64)
    other = image.clone()
    other[..., size // 2, size // 2] += 1
    with torch.no_grad():
        moved = (model(other) - model(image))[0, 0].abs() > 0
    return int((moved.nonzero() - size // 2).abs().max())


def test_the_generators_see_as_far_as_their_dilations_add_up() -> None:
    torch.manual_seed(0)
    miss = MissGenerator((2,) * 8).double().eval()
    assert reach(miss, 65) == 1 + 1 + 2 + 4 + 8 + 4 + 2 + 1
    false_alarm = FalseAlarmGenerator(2).double().eval()
    assert reach(false_alarm, 401) == 2 * (1 + 2 + 4 + 8 + 16 + 32) + 64


def test_each_late_layer_reads_its_early_one() -> None:
    """Layer 9 reads 6, 10 reads 5, and so on to 13, which reads 2; 1 and 7 go to the next layer only."""
    model = FalseAlarmGenerator(4).eval()
    seen: dict[int, torch.Tensor] = {}
    made: dict[int, torch.Tensor] = {}

    def watch(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen[numbers[layer]], made[numbers[layer]] = inputs[0], output

    numbers = {layer: number for number, layer in enumerate(model.layers, start=1)}
    for layer in numbers:
        layer.register_forward_hook(watch)
    with torch.no_grad():
        model(torch.rand(1, 1, 16, 16))
    for late, early in {9: 6, 10: 5, 11: 4, 12: 3, 13: 2}.items():
        assert torch.equal(seen[late], torch.cat([made[early], made[late - 1]], 1))


def test_adaptive_norm_begins_as_the_identity_and_can_become_a_batch_norm() -> None:
    torch.manual_seed(0)
    norm, x = AdaptiveNorm(3).train(), torch.randn(4, 3, 8, 8)
    assert torch.equal(norm(x), x)
    with torch.no_grad():
        norm.plain.zero_()
        norm.normed.fill_(1.0)
        norm.shift.fill_(2.0)
    y = norm(x)
    assert torch.allclose(y.mean((0, 2, 3)), torch.full((3,), 2.0), atol=1e-5)
    assert torch.allclose(y.var((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-2)


def test_adaptive_convolutions_begin_by_handing_channels_on() -> None:
    torch.manual_seed(0)
    model = create_model("mdvsfa", norm="adaptive", miss_widths=(2, 2, 4, 8, 8, 4, 2, 2), false_alarm_width=2)
    kernels = [layer[0].weight[:, :, 1, 1] for layer in model.miss.layers]
    wide, narrow = torch.zeros(4, 2), torch.zeros(4, 8)
    wide[[0, 2], [0, 1]] = 2  # every second output has an input, twice as strong
    narrow[[0, 1, 2, 3], [0, 2, 4, 6]] = 2
    for kernel, expected in ((kernels[1], torch.eye(2)), (kernels[2], wide), (kernels[5], narrow)):
        assert (kernel - expected).abs().max() < 0.02  # eight times the noise


@pytest.mark.parametrize("norm", ["batch", "adaptive"])
def test_both_forms_give_every_parameter_a_gradient(norm: str) -> None:
    torch.manual_seed(0)
    model = create_model("mdvsfa", norm=norm, **SMALL).train()
    image = torch.rand(2, 1, 32, 32)
    (model.miss(image) * torch.rand_like(image)).sum().backward()
    (model.false_alarm(image) * torch.rand_like(image)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_discriminator_gives_features_and_probabilities() -> None:
    torch.manual_seed(0)
    judge = Discriminator().train()
    features, kinds = judge(torch.rand(3, 1, 128, 128) * 2 - 1, torch.rand(3, 1, 128, 128))
    assert (features.shape, kinds.shape) == ((3, 1, 32, 32), (3, 3))
    assert torch.allclose(kinds.sum(1), torch.ones(3))


@pytest.mark.parametrize("side", [64, 127, 256])
def test_other_crops_than_128_are_refused_by_the_discriminator(side: int) -> None:
    image = torch.rand(2, 1, side, side)
    with pytest.raises(
        ValueError, match=rf"the discriminator takes crops of 128×128, got \({side}, {side}\)"
    ):
        Discriminator()(image, image)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"norm": "instance"}, "choose from batch, adaptive"), ({"miss_widths": (4, 4)}, "give 8")],
)
def test_wrong_option_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("mdvsfa", **options)
