"""The inference form of a network: the same score from less work.

Batch norm in evaluation is one multiplication and one addition a channel. Where a convolution is before it,
both go into the convolution's weights, and the norm is gone. Where only the score is wanted, the heads of the
interior and boundary streams have nothing to do.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from ismallnet.models.ismallnet import DetailHead, ISmallNet
from ismallnet.models.layers import ResidualBlock


def inference_form(model: nn.Module, *, streams: bool = False) -> nn.Module:
    """Return a copy of a network, in evaluation mode, whose score is that of the network within rounding.

    Args:
        model: As `ismallnet.models.create_model` makes them; it is left as it is.
        streams: Keep the heads of the interior and boundary maps; without, `Logits` has None for both.
    """
    form = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(form.modules()):
        for before, after, pixels in _pairs(module):
            conv, norm = module.get_submodule(before), module.get_submodule(after)
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            _fold(conv, norm, pixels)
            setattr(module, after, nn.Identity())
    if isinstance(form, ISmallNet) and not streams:
        for name in {"interior", "boundary"} & set(form.heads):
            del form.heads[name]
    return form


def _pairs(module: nn.Module) -> Iterator[tuple[str, str, int]]:
    """Yield the names of children that are a convolution and the norm of its output, and a number of pixels.

    That many channels of the convolution are unfolded to one of the norm in between; 1: none is.
    """
    if isinstance(module, nn.Sequential):
        for (before, conv), (after, norm) in pairwise(module.named_children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                yield before, after, 1
    elif isinstance(module, ResidualBlock):
        yield "conv1", "norm1", 1
        yield "conv2", "norm2", 1
    elif isinstance(module, DetailHead):
        yield "unfold", "norm", module.stride**2


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d, pixels: int) -> None:
    """Give a convolution the weights and the bias with which it does the norm too, in place."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None

    def spread(values: Tensor) -> Tensor:
        return values.double().repeat_interleave(pixels)

    scale = torch.rsqrt(variance.double() + norm.eps)
    shift = -mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    scale, shift = spread(scale), spread(shift)
    bias = shift if conv.bias is None else conv.bias * scale + shift
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter((conv.weight * scale[:, None, None, None]).to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
