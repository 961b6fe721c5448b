"""The inference form gives the network's own score."""

from __future__ import annotations

import pytest
import torch
from test_models import small
from torch import nn

from ismallnet.models import MODELS
from ismallnet.models.inference import BlockConvolution, LinearFusion, inference_form

LEFT = {"acm": 1, "alcnet": 5}
"""Batch norms that stay, with no convolution before: of the input; of ALCNet's two fusions, two each."""


def lived_in(name: str, **options: object) -> nn.Module:
    """A network whose batch norms have statistics, scales and shifts as after a training."""
    model = small(name, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_the_score_is_the_networks_own(name: str) -> None:
    model = lived_in(name)
    image = torch.rand(2, 1, 64, 80)
    with torch.no_grad():
        expected, score = model.score(image), inference_form(model).score(image)
    assert expected.std() > 1e-3  # a score that varies
    assert (score - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_no_norm_after_a_convolution_is_left(name: str) -> None:
    assert norms(inference_form(lived_in(name))) == LEFT.get(name, 0)


def test_the_network_itself_stays_as_it_is() -> None:
    model = lived_in("ismallnet-s")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    inference_form(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_heads_of_the_streams_are_left_out_unless_they_are_wanted() -> None:
    model, image = lived_in("ismallnet-s"), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        full, bare = inference_form(model, streams=True)(image), inference_form(model)(image)
        expected = model(image)
    assert (bare.interior, bare.boundary) == (None, None)
    assert torch.equal(bare.target, full.target)
    assert torch.allclose(full.interior, expected.interior, atol=1e-4)
    assert torch.allclose(full.boundary, expected.boundary, atol=1e-4)


def test_an_unfolded_map_is_folded_by_channel_not_by_pixel() -> None:
    """The norm of a `DetailHead` is after a pixel shuffle: a channel of it has four of the convolution."""
    model = lived_in("ismallnet-s", detail=4)
    head = model.heads["target"]
    scale = head.norm.weight / (head.norm.running_var + head.norm.eps).sqrt()
    ratio = inference_form(model).heads["target"].unfold.weight / head.unfold.weight
    expected = torch.tensor([value for value in scale.tolist() for _ in range(4)])
    assert torch.allclose(ratio[:, 0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"share": "nothing"},
        {"share": "encoder", "wiring": "unet++", "fusion": "add"},
        {"streams": "interior", "fusion_width": 6},
        {"streams": "none", "detail": 0},
        {"official": True},
    ],
)
def test_a_fusion_of_linear_layers_is_one_convolution_a_node(options: dict[str, object]) -> None:
    model = lived_in("ismallnet-s", **options)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, 0, 0.5)
    form = inference_form(model, streams=True)
    assert isinstance(form.fusing, LinearFusion)
    assert sum(len(additions) for additions in form.fusing.additions) == 5 * len(model.decoders)
    image = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        expected, found = model(image), form(image)
    for name in ("target", "interior"):
        one, other = getattr(expected, name), getattr(found, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.std()))


def test_other_fusions_stay_as_they_are() -> None:
    assert inference_form(lived_in("ismallnet")).fusing is None


@pytest.mark.parametrize(("kernel", "inputs", "bias"), [(7, 2, False), (3, 16, True)])
def test_a_convolution_to_a_block_is_the_one_to_a_channel(kernel: int, inputs: int, bias: bool) -> None:
    plain = nn.Conv2d(inputs, 1, kernel, padding=kernel // 2, bias=bias)
    image = torch.rand(2, inputs, 24, 40)
    with torch.no_grad():
        assert torch.allclose(BlockConvolution(plain)(image), plain(image), atol=1e-5)


def test_blocks_are_where_every_image_has_room_for_them() -> None:
    """Five levels are multiples of 16, 8, 4, 2 and 1 pixels: those of the first three."""
    form = inference_form(small("ismallnet", widths=(4, 4, 6, 6, 8)).eval())
    names = [name for name, module in form.named_modules() if isinstance(module, BlockConvolution)]
    levels = {name.split("levels.")[1][0] for name in names if "levels." in name}
    nodes = {name.split("nodes.")[1][0] for name in names if "nodes." in name}
    assert (levels, nodes) == ({"0", "1", "2"}, {"0", "1", "2"})
    assert "heads.target.predict" in names
    with torch.no_grad():
        assert form.score(torch.rand(1, 1, 17, 35)).shape == (1, 1, 17, 35)
