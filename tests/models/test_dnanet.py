"""DNANet: the facts known of the official code."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ismallnet.models import create_model
from ismallnet.models.nested import LevelFusion, NestedDecoder


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "count"),
    # shared/systems.md section 11
    [
        ({"in_channels": 3}, 4_696_888),
        ({}, 4_696_568),
        ({"in_channels": 3, "backbone": "resnet10"}, 2_612_196),
        ({"in_channels": 3, "backbone": "resnet34"}, 8_792_702),
    ],
)
def test_parameter_counts_equal_the_official_codes(options: dict[str, object], count: int) -> None:
    assert parameters(create_model("dnanet", **options)) == count


@pytest.mark.parametrize(
    ("channels", "gmac"),
    # 256 × 256, shared/systems.md section 11; the official code also runs its three auxiliary heads, of
    # 16 · 256 · 256 multiply-adds each
    [(3, 13.93), (1, 27.82 / 2)],
)
def test_multiply_adds_equal_the_official_codes(channels: int, gmac: float) -> None:
    model = create_model("dnanet", in_channels=channels).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, channels, 256, 256))
    heads = 3 * 16 * 256 * 256 / 1e9
    assert counter.get_total_flops() / 2e9 + heads == pytest.approx(gmac, abs=0.005)


def test_blocks_have_biases_and_a_hidden_width_of_one_on_sixteen_channels() -> None:
    block = create_model("dnanet").encoder.levels[0][0]
    assert (block.conv1.bias is not None, block.conv2.bias is not None) == (True, True)
    assert (block.shortcut[0].bias is not None, block.channel.squeeze.bias) == (True, None)
    assert block.channel.squeeze.weight.shape == (1, 16, 1, 1)


class Spy(nn.Module):
    """A block that keeps what it was given and answers with its mean."""

    def __init__(self, _: int, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return x.new_full((x.shape[0], self.width, *x.shape[2:]), float(x.mean()))


def test_a_node_reads_its_row_then_the_one_below_then_the_one_above() -> None:
    """X[1, 1] reads X[1, 0], up(X[2, 0]), down(X[0, 1]) in this order (constants pass unchanged)."""
    decoder = NestedDecoder((2, 3, 5), wiring="dna", depths=(1, 1), block=Spy)
    features = [torch.full((1, w, 16 >> i, 16 >> i), 10.0 * (i + 1)) for i, w in enumerate((2, 3, 5))]
    nodes = decoder.all_nodes(features)
    above = (2 * 10 + 3 * 20) / 5  # X[0, 1]: the mean of its inputs
    seen = decoder.nodes["1_1"][0].seen[0, :, 0, 0].tolist()
    assert seen == pytest.approx([20] * 3 + [30] * 5 + [above] * 2)
    assert nodes.keys() == {(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)}


def test_fusion_joins_the_coarsest_level_first_and_the_finest_as_it_is() -> None:
    fuse = LevelFusion((2, 3, 5), 2, Spy, project_finest=False, align_corners=True, coarsest_first=True)
    with torch.no_grad():
        for projection in fuse.project[1:]:
            projection.weight.zero_()
            projection.weight[:, 0] = 1
            projection.bias.zero_()
        fuse([torch.full((1, w, 8 >> i, 8 >> i), 10.0 * (i + 1)) for i, w in enumerate((2, 3, 5))])
    assert fuse.block.seen[0, :, 0, 0].tolist() == pytest.approx([30, 30, 20, 20, 10, 10])


def test_fusion_enlarges_with_the_corners_aligned() -> None:
    """Corners keep their values, and the ramp between them is even."""
    fuse = LevelFusion((1, 1), 1, Spy, project_finest=False, align_corners=True, coarsest_first=True)
    with torch.no_grad():
        fuse.project[1].weight.fill_(1)
        fuse.project[1].bias.zero_()
        fuse([torch.zeros(1, 1, 4, 4), torch.tensor([[[[0.0, 3.0], [0.0, 3.0]]]])])
    assert fuse.block.seen[0, 0, 0].tolist() == pytest.approx([0, 1, 2, 3])


def test_three_auxiliary_maps_in_training_only() -> None:
    torch.manual_seed(0)
    model, image = create_model("dnanet", backbone="resnet10"), torch.rand(2, 1, 20, 33)
    logits = model.train()(image)
    assert [x.shape for x in logits.auxiliary] == [image.shape] * 3
    assert (logits.interior, logits.boundary) == (None, None)
    assert model.eval()(image).auxiliary == ()


def test_auxiliary_maps_come_from_the_finest_nodes_in_their_order() -> None:
    torch.manual_seed(0)
    model = create_model("dnanet", backbone="resnet10").train()
    seen: dict[str, torch.Tensor] = {}
    for name in ("0_1", "0_2", "0_3"):
        node = model.decoder.nodes[name]
        node.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    logits = model(torch.rand(2, 1, 32, 32))
    expected = [head(x) for head, x in zip(model.auxiliary, seen.values(), strict=True)]
    assert list(seen) == ["0_1", "0_2", "0_3"]
    assert all(torch.equal(ours, x) for ours, x in zip(logits.auxiliary, expected, strict=True))


@pytest.mark.parametrize("backbone", ["resnet10", "resnet18", "resnet34"])
def test_gradient_moves_every_weight(backbone: str) -> None:
    torch.manual_seed(0)
    model = create_model("dnanet", backbone=backbone).train()
    logits = model(torch.rand(4, 1, 32, 32))
    sum((x * torch.randn_like(x)).sum() for x in (logits.target, *logits.auxiliary)).backward()
    # a bias before a batch norm is subtracted again: its gradient is rounding
    still = [n for n, p in model.named_parameters() if p.grad is None or (p.ndim > 1 and not p.grad.any())]
    assert still == []


def test_three_channels_are_normalised_as_imagenet() -> None:
    model = create_model("dnanet", in_channels=3, backbone="resnet10")
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert model.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_unknown_backbone_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'vgg10'; choose from resnet10, resnet18"):
        create_model("dnanet", backbone="vgg10")
