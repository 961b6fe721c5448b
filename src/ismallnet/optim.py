"""From gradients to weights: optimisers, the learning rate over a run, the running average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, AdamW, Optimizer

if TYPE_CHECKING:
    from ismallnet import config


class Muon(Optimizer):
    """Momentum whose step is the nearest orthogonal matrix to it, for the weights of convolutions.

    A weight (out, in, h, w) is taken as the matrix (out, in·h·w). Five Newton-Schulz iterations replace its
    momentum's singular values by about 1, and a factor 0.2 √(larger side) makes the step as large as AdamW's:
    one learning rate suits both. K. Jordan et al., "Muon", 2024; the factor from J. Liu et al., "Muon is
    scalable for LLM training", 2025.

    Groups of parameters with `"orthogonal": False` are stepped by AdamW's rule.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float, beta2: float) -> None:
        defaults = {"lr": lr, "momentum": momentum, "beta2": beta2, "weight_decay": 0.0, "orthogonal": True}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Make one step from the gradients that are there; closures are not supported."""
        for group in self.param_groups:
            rule = self._orthogonal if group["orthogonal"] else self._adam
            for weight in group["params"]:
                if weight.grad is not None:
                    update = rule(weight.grad, self.state[weight], group)
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])

    @staticmethod
    def _orthogonal(gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        momentum = group["momentum"]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(gradient)
        velocity = state["velocity"].lerp_(gradient, 1 - momentum)
        matrix = gradient.lerp(velocity, momentum).flatten(1)
        factor = 0.2 * math.sqrt(max(matrix.shape))
        return orthogonalised(matrix).mul(factor).view_as(gradient)

    @staticmethod
    def _adam(gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        beta1, beta2 = group["momentum"], group["beta2"]
        if "steps" not in state:
            state["steps"] = torch.zeros((), dtype=torch.float64)
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["steps"] += 1
        mean = state["mean"].lerp_(gradient, 1 - beta1)
        square = state["square"].lerp_(gradient.square(), 1 - beta2)
        steps = float(state["steps"])
        scale = torch.sqrt(square / (1 - beta2**steps)) + 1e-8
        update: Tensor = mean / (1 - beta1**steps) / scale
        return update


def orthogonalised(matrix: Tensor) -> Tensor:
    """(M, N) with the same singular vectors and singular values near 1 (0.7 to 1.2), by Newton-Schulz.

    Every iterate is a polynomial of the smaller Gram matrix times `matrix`, so the iteration runs on the
    former: less than half the time of one on (M, N).
    """
    a, b, c = 3.4445, -4.7750, 2.0315  # K. Jordan's coefficients: fast rather than exact
    wide: Tensor = matrix.float() if matrix.shape[0] <= matrix.shape[1] else matrix.float().T
    wide = wide / (wide.norm() + 1e-7)
    gram = wide @ wide.T
    product = torch.eye(len(gram), device=gram.device)
    for _ in range(5):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product, gram = factor @ product, factor @ gram @ factor
    wide = product @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def make_optimizer(model: nn.Module, config: config.Optimizer) -> Optimizer:
    """The optimiser of a recipe for a model's parameters.

    `sgd` and `adagrad` decay every parameter, as the official codes do; `adamw` and `muon` spare those of
    fewer than two dimensions: norms and biases.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    if config.name == "sgd":
        nesterov = config.momentum > 0
        return SGD(weights, config.lr, config.momentum, weight_decay=config.weight_decay, nesterov=nesterov)
    if config.name == "adagrad":
        return Adagrad(weights, config.lr, weight_decay=config.weight_decay)
    matrices = [p for p in weights if p.ndim >= 2]
    vectors = [p for p in weights if p.ndim < 2]
    if config.name == "adamw":
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return AdamW([g for g in groups if g["params"]], config.lr, (config.momentum, config.beta2))
    hidden = [p for p in matrices if _is_hidden(p)]
    groups = [
        {"params": hidden, "weight_decay": config.weight_decay, "orthogonal": True},
        {
            "params": [p for p in matrices if not _is_hidden(p)],
            "weight_decay": config.weight_decay,
            "orthogonal": False,
        },
        {"params": vectors, "weight_decay": 0.0, "orthogonal": False},
    ]
    groups = [g for g in groups if g["params"]]
    return Muon(groups, lr=config.lr, momentum=config.momentum, beta2=config.beta2)


def _is_hidden(weight: Tensor) -> bool:
    """Whether a weight is a matrix worth orthogonalising: several channels in, at least eight out."""
    return weight.ndim == 4 and weight.shape[0] >= 8 and weight.shape[1] > 1


def rate(schedule: config.Schedule, step: int, steps: int, *, epoch: int = 0, epochs: int = 1) -> float:
    """The learning rate of a step as a factor on its peak.

    Args:
        schedule: Its shape.
        step: From 0.
        steps: Length of the run.
        epoch: The epoch the step is in, from 0; `triangle` only.
        epochs: Number of epochs of the run; `triangle` only.

    Returns:
        0 to 1. `cosine` and `linear` would reach 0 one step after the last.
    """
    if schedule.name == "triangle":
        return 1 - abs(2 * (epoch + 1) / (epochs + 1) - 1)
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.name == "thirds":
        return float(0.2 ** (3 * step // steps))
    done = (step - warmup) / max(steps - warmup, 1)
    if schedule.name == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1 - done if schedule.name == "linear" else 1.0


class Average:
    """A model whose weights and batch-norm statistics are running averages of another's.

    Args:
        model: The model to follow.
        decay: Of the average, approached as (1 + updates) / (10 + updates); 0: a plain copy.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        tensors = self.module.state_dict()
        self._floats = [key for key, value in tensors.items() if value.is_floating_point()]
        self._others = [key for key in tensors if key not in set(self._floats)]

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        """Move towards the model's present weights, after the step number `updates`, from 1."""
        mine, theirs = self.module.state_dict(), model.state_dict()
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_([mine[k] for k in self._floats], [theirs[k] for k in self._floats], 1 - decay)
        for key in self._others:
            mine[key].copy_(theirs[key])


def state_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, as tensors named `<number of the parameter>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def restore(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser of the same parameters what `state_tensors` told, in the parameters' layout."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        weight = weights[int(number)]
        fits = value.shape == weight.shape
        kept = torch.empty_like(weight).copy_(value) if fits else value.clone()
        optimizer.state[weight][name] = kept.detach()
