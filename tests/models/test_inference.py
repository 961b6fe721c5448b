"""The inference form gives the network's own score."""

from __future__ import annotations

import pytest
import torch
from test_models import small
from torch import nn

from ismallnet.models import MODELS
from ismallnet.models.inference import inference_form

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
