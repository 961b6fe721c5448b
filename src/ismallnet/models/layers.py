"""Layers that several networks share: residual blocks, attention, size changes.

Sources: CBAM (Woo et al., ECCV 2018) in the form of DNANet (Li et al., TIP 2022), whose residual
block is the one iSmallNet's official code builds on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelAttention(nn.Module):
    """Weigh channels by a shared two-layer perceptron on their global mean and maximum.

    Args:
        width: Channels of the input.
        reduction: The hidden layer has ``max(1, width // reduction)`` channels.
    """

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.squeeze = nn.Conv2d(width, hidden, 1, bias=False)
        self.excite = nn.Conv2d(hidden, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, 1, 1) weights in (0, 1) for ``x`` of (B, C, H, W)."""
        mean = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        peak = self.excite(F.relu(self.squeeze(x.amax((2, 3), keepdim=True))))
        return torch.sigmoid(mean + peak)


class SpatialAttention(nn.Module):
    """Weigh pixels by one convolution on the mean and maximum over channels."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 1, H, W) weights in (0, 1) for ``x`` of (B, C, H, W)."""
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.conv(pooled))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut; with ``attention``, the Res-CBAM block of DNANet.

    ``relu(shortcut(x) + attend(bn(conv(relu(bn(conv(x)))))))``. The shortcut is a 1×1 convolution
    with batch norm where width or stride change, the identity elsewhere.

    Args:
        inputs: Channels in.
        width: Channels out.
        stride: Of the first convolution.
        attention: Channel, then spatial attention before the sum.
        bias: Biases in the 3×3 convolutions (DNANet has them, iSmallNet has not).
        shortcut_bias: Bias in the 1×1 shortcut (both have it, ResNet has not).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int = 1,
        attention: bool = True,
        bias: bool = False,
        shortcut_bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=bias)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=bias)
        self.norm2 = nn.BatchNorm2d(width)
        self.channel = ChannelAttention(width) if attention else None
        self.spatial = SpatialAttention() if attention else None
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=shortcut_bias), nn.BatchNorm2d(width))
            if inputs != width or stride != 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, width, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.channel is not None:
            y = self.channel(y) * y
        if self.spatial is not None:
            y = self.spatial(y) * y
        return F.relu(y + self.shortcut(x))


class MergeBlock(nn.Module):
    """A 1×1 convolution down to ``width``, then a residual block: cheap on wide concatenations."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.merge = (
            nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            if inputs != width
            else nn.Identity()
        )
        self.block = ResidualBlock(width, width, attention=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, width, H, W)."""
        y: Tensor = self.block(self.merge(x))
        return y


def chain(block: Callable[[int, int], nn.Module], inputs: int, width: int, depth: int) -> nn.Sequential:
    """Return ``depth`` blocks in a row, the first from ``inputs`` to ``width`` channels."""
    return nn.Sequential(*(block(inputs if n == 0 else width, width) for n in range(depth)))


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """Resize (B, C, H, W) bilinearly to ``size`` = (height, width); the same size costs nothing."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


def in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """Run ``module`` in float32 even under autocast: the last convolution decides thin margins."""
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return in_float32(module, x.float())
    y: Tensor = module(x)
    return y


def initialise(model: nn.Module) -> None:
    """Give convolutions Kaiming-normal weights (fan in, ReLU) and zero biases, in place.

    Batch norms are 1 and 0 as PyTorch makes them. A model on the meta device has no values to set.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
