"""TBC-Net: the sizes of the construction, how it changes resolution, and the classifier."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ismallnet.models import create_model
from ismallnet.models.tbcnet import Classifier


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_those_of_the_construction() -> None:
    # shared/systems.md section 7; convolutions without bias but for the 1×1 head and the classifier's
    assert parameters(create_model("tbcnet")) == 460_849
    assert parameters(Classifier()) == 98_535


def test_multiply_adds_are_those_of_the_construction() -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        create_model("tbcnet").eval()(torch.rand(1, 1, 256, 256))
    assert counter.get_total_flops() / 2e9 == pytest.approx(2.33, abs=0.005)


@pytest.mark.parametrize("module", [create_model("tbcnet", widths=(4, 4, 4)), Classifier()])
def test_sizes_change_by_max_pooling_and_repetition_only(module: nn.Module) -> None:
    with torch.no_grad():
        graph = torch.export.export(module.eval(), (torch.rand(1, 1, 32, 32),)).graph
    operations = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert "aten.max_pool2d.default" in operations
    changing = {name for name in operations if "pool" in name or "upsample" in name or "transpose" in name}
    assert changing <= {"aten.max_pool2d.default", "aten.upsample_nearest2d.vec"}
    strides = {tuple(m.stride) for m in module.modules() if isinstance(m, nn.Conv2d)}
    assert strides == {(1, 1)}


def test_prior_is_what_the_head_predicts_where_it_sees_nothing() -> None:
    head = create_model("tbcnet", widths=(4, 4), prior=0.2).head
    assert torch.sigmoid(head(torch.zeros(1, 4, 1, 1))).item() == pytest.approx(0.2)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        create_model("tbcnet", prior=0.0)


def test_the_network_has_no_classifier() -> None:
    model = create_model("tbcnet")
    assert not any(isinstance(m, Classifier | nn.Linear) for m in model.modules())


def test_the_classifier_takes_maps_from_16_pixels_on() -> None:
    classifier = Classifier().eval()
    with torch.no_grad():
        assert classifier(torch.rand(2, 1, 16, 16)).shape == (2, 7)
        assert classifier(torch.rand(2, 1, 50, 130)).shape == (2, 7)


def test_levels_follow_the_widths() -> None:
    model = create_model("tbcnet", widths=(4, 6)).eval()
    assert model.multiple == 2
    with torch.no_grad():
        assert model(torch.rand(1, 1, 17, 21)).target.shape == (1, 1, 17, 21)
