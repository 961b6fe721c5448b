"""The inference form of a network: the same score from less work.

Batch norm in evaluation is one multiplication and one addition a channel. Where a convolution is before it,
both go into the convolution's weights, and the norm is gone. Where only the score is wanted, the heads of the
interior and boundary streams have nothing to do. Linear layers in a row are one (`LinearFusion`), and a
convolution to one channel is made one to many (`BlockConvolution`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ismallnet.models.ismallnet import DetailHead, Head, ISmallNet
from ismallnet.models.layers import MergeBlock, ResidualBlock, SpatialAttention, resize
from ismallnet.models.nested import LevelFusion

_LEVEL = re.compile(r"\b(?:levels|nodes)\.(\d)")
"""In the name of a module: the level of an encoder or a decoder that it is on; without, the finest."""


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
    if isinstance(form, ISmallNet):
        if not streams:
            for name in {"interior", "boundary"} & set(form.heads):
                del form.heads[name]
        if LinearFusion.is_for(form):
            form.fusing = LinearFusion(form)
        _widen(form)
    return form


class BlockConvolution(nn.Module):
    """A convolution to one channel as one to a block of pixels at a time, which are channels, and a shuffle.

    Runtimes compute 16 channels at once at least: one costs as much as 16. The score is the same.

    Args:
        convolution: To one channel, of stride 1, its output as large as its input.
    """

    side = 4

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        kernel, side = convolution.kernel_size[0], self.side
        self.convolution = nn.Conv2d(
            convolution.in_channels, side**2, kernel + side - 1, side, kernel // 2,
            bias=convolution.bias is not None,
        )  # fmt: skip
        self.convolution.requires_grad_(False)
        self.convolution.weight.zero_()
        for pixel, weights in enumerate(self.convolution.weight):
            y, x = divmod(pixel, side)
            weights[:, y : y + kernel, x : x + kernel] = convolution.weight[0]
        if self.convolution.bias is not None and convolution.bias is not None:
            self.convolution.bias.fill_(convolution.bias.item())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W), H and W multiples of `side`, to (B, 1, H, W)."""
        return F.pixel_shuffle(self.convolution(x), self.side)


def _widen(form: ISmallNet) -> None:
    """Replace convolutions to one channel where height and width are multiples of 4 in every image."""
    coarsest = len(_fusions(form)[0].project) - 1
    for name, module in list(form.named_modules()):
        if isinstance(module, SpatialAttention | Head | DetailHead):
            child = "conv" if isinstance(module, SpatialAttention) else "predict"
            convolution, level = _convolution(module, child), _LEVEL.search(name)
            multiple = 2 ** (coarsest - int(level[1]) if level else coarsest)
            if convolution.out_channels == 1 and multiple % BlockConvolution.side == 0:
                setattr(module, child, BlockConvolution(convolution))


class LinearFusion(nn.Module):
    """Does what `ISmallNet.fuse_levels` does where all its blocks are `MergeBlock`s, with fewer operations.

    From a node of a decoder to the first ReLU of a block all is linear: the projection, the enlargement,
    which leaves a constant as it is, the concatenation, the 1×1 convolution; in the fusion stream the last
    three once more. So there is one 1×1 convolution on a node, at its own resolution, to what it adds to each
    block; these are enlarged and summed.

    Args:
        network: Batch norms folded, as `is_for` wants it.
    """

    def __init__(self, network: ISmallNet) -> None:
        super().__init__()
        streams = range(len(network.finals))
        self.readers = [streams] if len(network.decoders) == 1 else [range(s, s + 1) for s in streams]
        blocks = [fusion.block for fusion in _fusions(network) if isinstance(fusion.block, MergeBlock)]
        self.blocks = nn.ModuleList(block.block for block in blocks)
        linear = copy.deepcopy(network).double()
        for fusion in _fusions(linear):
            fusion.block = fusion.block.get_submodule("merge.0")
        self.width = _convolution(linear.finals[0], "block").out_channels
        self.additions = nn.ModuleList(_additions(linear, readers) for readers in self.readers)

    @staticmethod
    def is_for(network: ISmallNet) -> bool:
        """Whether the blocks of all fusions of a network begin with a 1×1 convolution."""
        blocks = [fusion.block for fusion in _fusions(network)]
        return all(isinstance(x, MergeBlock) and isinstance(x.merge, nn.Sequential) for x in blocks)

    def forward(self, nodes: Sequence[Sequence[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        """Map what `ISmallNet.fuse_levels` takes to what it gives, without the projected levels."""
        sums: list[Tensor] = []
        fused: list[Tensor] = []
        for readers, additions in zip(self.readers, self.additions, strict=True):
            levels = nodes[readers[0]]
            assert isinstance(additions, nn.ModuleList)
            total = additions[0](levels[0])
            for addition, level in zip(additions[1:], levels[1:], strict=True):
                total = total + resize(addition(level), levels[0].shape[-2:])
            parts = total.split(self.width, 1)
            sums += parts[: len(readers)]
            fused += parts[len(readers) :]
        if fused:
            sums.append(sum(fused[1:], fused[0]))
        return [block(F.relu(x)) for block, x in zip(self.blocks, sums, strict=True)], []


def _fusions(network: ISmallNet) -> list[LevelFusion]:
    """Return the fusions of the streams, then that of the fusion stream, if there is one."""
    modules = [*network.finals, *([network.fuse] if hasattr(network, "fuse") else [])]
    return [module for module in modules if isinstance(module, LevelFusion)]


def _convolution(module: nn.Module, name: str) -> nn.Conv2d:
    found = module.get_submodule(name)
    assert isinstance(found, nn.Conv2d)
    return found


def _additions(linear: ISmallNet, readers: Sequence[int]) -> nn.ModuleList:
    """Return the convolutions, finest level first, from the nodes to what they add to the blocks.

    Args:
        linear: A network whose fusions end before their first ReLU, in float64.
        readers: The streams that have these nodes. Their sums come first, then that of the fusion stream.
    """
    streams, fusions = len(linear.finals), _fusions(linear)
    wanted = [*readers, *range(streams, len(fusions))]
    channels = _channels(fusions[0])

    def answers(level: int, values: Tensor) -> list[Tensor]:
        """Map (B, channels) of one level, all else being 0, to (B, width) of each sum."""
        nodes = [torch.zeros(len(values), c, 1, 1, dtype=torch.float64) for c in channels]
        silent = list(nodes)
        nodes[level] = values[:, :, None, None]
        finals, _ = linear.fuse_levels([nodes if s in readers else silent for s in range(streams)])
        return [finals[index][:, :, 0, 0] for index in wanted]

    constants = answers(0, torch.zeros(1, channels[0], dtype=torch.float64))
    convolutions = nn.ModuleList()
    for level, count in enumerate(channels):
        units = answers(level, torch.eye(count, dtype=torch.float64))
        weights = torch.cat([unit - constant for unit, constant in zip(units, constants, strict=True)], 1)
        convolution = nn.Conv2d(count, weights.shape[1], 1, bias=level == 0)
        convolution.weight = nn.Parameter(weights.T[:, :, None, None].float(), requires_grad=False)
        if level == 0:  # the fusion stream's constant is added once, with the first decoder's nodes
            own = [
                c if i < streams or 0 in readers else 0 * c for i, c in zip(wanted, constants, strict=True)
            ]
            convolution.bias = nn.Parameter(torch.cat(own, 1)[0].float(), requires_grad=False)
        convolutions.append(convolution)
    return convolutions


def _channels(fusion: LevelFusion) -> list[int]:
    """Return the channels of each level that a fusion reads; its block is one convolution."""
    passed = _convolution(fusion, "block").in_channels // len(fusion.project)
    return [each.in_channels if isinstance(each, nn.Conv2d) else passed for each in fusion.project]


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
