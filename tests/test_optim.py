from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ismallnet import config, optim


def test_the_triangle_is_the_official_schedule() -> None:
    # systems.md, section 12: rates of the official code at peak 0.05 over 1500 epochs
    schedule = config.Schedule(name="triangle")
    rates = {
        e: 0.05 * optim.rate(schedule, 0, 1, epoch=e, epochs=1500) for e in (0, 99, 374, 749, 750, 1124, 1499)
    }
    expected = {
        0: 6.6622e-5, 99: 0.0066622, 374: 0.0249833, 749: 0.0499667, 750: 0.0499667, 1124: 0.0250500,
        1499: 6.6622e-5,
    }  # fmt: skip
    assert rates == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 100 steps, 10 of warm-up: its 11 rises of 1/11, then half way down at step 10 + 45
        ("cosine", {0: 1 / 11, 9: 10 / 11, 10: 1.0, 55: 0.5, 99: 0.000305}),
        ("linear", {0: 1 / 11, 10: 1.0, 55: 0.5, 99: 1 / 90}),
        ("constant", {0: 1 / 11, 10: 1.0, 99: 1.0}),
        ("thirds", {0: 1 / 11, 10: 1.0, 33: 1.0, 34: 0.2, 66: 0.2, 67: 0.04, 99: 0.04}),
    ],
)
def test_the_rate_rises_then_falls(name: str, expected: dict[int, float]) -> None:
    schedule = config.Schedule(name=name, warmup=0.1)  # type: ignore[arg-type]
    assert {step: optim.rate(schedule, step, 100) for step in expected} == pytest.approx(expected, rel=1e-2)


def test_orthogonalised_has_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((8, 40), (40, 8), (16, 16)):
        left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        matrix = left @ torch.diag(torch.linspace(0.5, 5, min(shape))) @ right
        values = torch.linalg.svdvals(left.T @ optim.orthogonalised(matrix) @ right.T)
        assert values.min() > 0.6
        assert values.max() < 1.3  # the coefficients aim at 0.7 to 1.2


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[Tensor]:
    image = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(2))
    for _ in range(count):
        optimizer.zero_grad()
        model(image).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 1, 1))


def test_muon_steps_what_is_no_hidden_convolution_as_adamw_does() -> None:
    settings = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.8, "beta2": 0.95}
    model, twin = network(), network()
    muon = optim.make_optimizer(model, config.Optimizer(name="muon", **settings))
    for parameter in (model[0].weight, twin[0].weight):
        parameter.requires_grad_(False)  # the only hidden convolution, out of the way
    ours = steps(model, muon, 4)
    theirs = steps(twin, optim.make_optimizer(twin, config.Optimizer(name="adamw", **settings)), 4)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_muon_makes_steps_of_the_size_of_its_rate() -> None:
    model = network()
    before = model[0].weight.detach().clone()
    optimizer = optim.make_optimizer(model, config.Optimizer(name="muon", lr=0.01, weight_decay=0))
    change = steps(model, optimizer, 1)[0] - before
    # 8 orthonormal rows of 27: root mean square 1 / √27, times the factor 0.2 √27
    assert change.square().mean().sqrt() == pytest.approx(0.01 * 0.2, rel=0.25)


@pytest.mark.parametrize(("name", "spared"), [("sgd", False), ("adamw", True), ("muon", True)])
def test_norms_and_biases_are_decayed_by_sgd_only(name: str, spared: bool) -> None:
    model = network()
    settings = config.Optimizer(name=name, lr=0.1, weight_decay=0.5, momentum=0.0)  # type: ignore[arg-type]
    optimizer = optim.make_optimizer(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    for old, new in zip(before, model.parameters(), strict=True):
        decayed = old.ndim >= 2 or not spared
        torch.testing.assert_close(new.detach(), old * (1 - 0.1 * 0.5) if decayed else old)


def test_adagrad_divides_by_the_root_of_all_squared_gradients_and_decays_everything() -> None:
    # by hand: gradients 3 and 4 make steps of 3 / √9 and 4 / √(9 + 16); a vector is decayed like a matrix
    weight, bias = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.full((1,), 2.0))
    model = nn.ParameterList([weight, bias])
    optimizer = optim.make_optimizer(model, config.Optimizer(name="adagrad", lr=0.1, weight_decay=0.0))
    for gradient, expected in ((3.0, 1 - 0.1), (4.0, 1 - 0.1 - 0.08)):
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        assert weight.item() == pytest.approx(expected)
    assert bias.item() == 2
    decaying = optim.make_optimizer(model, config.Optimizer(name="adagrad", lr=0.1, weight_decay=0.5))
    weight.grad, bias.grad = None, torch.zeros_like(bias)
    decaying.step()
    assert bias.item() == pytest.approx(2 - 0.1)  # the gradient is 0.5 · 2, divided by itself


def test_restored_optimisers_go_on_alike() -> None:
    for name in ("sgd", "adagrad", "adamw", "muon"):
        settings = config.Optimizer(name=name, lr=0.01)  # type: ignore[arg-type]
        model = network()
        optimizer = optim.make_optimizer(model, settings)
        steps(model, optimizer, 3)
        twin = network()
        twin.load_state_dict(model.state_dict())
        other = optim.make_optimizer(twin, settings)
        optim.restore(other, optim.state_tensors(optimizer))
        for mine, theirs in zip(steps(model, optimizer, 3), steps(twin, other, 3), strict=True):
            assert torch.equal(mine, theirs), name


def test_the_average_follows_weights_and_statistics() -> None:
    model = network()
    average = optim.Average(model, decay=0.9)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(10)
    start = average.module[1].running_mean.clone()
    average.update(model, updates=1_000_000)
    assert torch.allclose(average.module[1].running_mean, 0.9 * start + 1)
    assert average.module[1].num_batches_tracked == 10
    for updates in range(1, 200):
        average.update(model, updates)
    assert torch.allclose(average.module[0].weight, torch.tensor(10.0), atol=1e-4)


def test_no_decay_copies_the_weights() -> None:
    model = network()
    average = optim.Average(model, decay=0)
    steps(model, optim.make_optimizer(model, config.Optimizer()), 2)
    average.update(model, 2)
    assert torch.equal(average.module[0].weight, model[0].weight)
