"""What several networks share: their frame, residual blocks, attention, gates, size changes.

Sources: CBAM (Woo et al., ECCV 2018) in the form of DNANet (Li et al., TIP 2022), whose residual
block is the one iSmallNet's official code builds on; the gate and the head of ACM (Dai et al., WACV 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Constants = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of the input by channel, in [0, 1]."""

GREY: Constants = (0.4288,), (0.2219,)
"""Of all pixels of the NUAA-SIRST and NUDT-SIRST train lists (50_50)."""
IMAGENET: Constants = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""With which ACM, ALCNet and DNANet normalise their three channels."""

OFFICIAL_BLOCK = (
    (r"\.norm([12])\.", r".bn\1."),
    (r"\.channel\.squeeze\.", ".ca.fc1."),
    (r"\.channel\.excite\.", ".ca.fc2."),
    (r"\.spatial\.conv\.", ".sa.conv1."),
)
"""Within a `ResidualBlock`: a pattern of our names, and what DNANet's and iSmallNet's codes have instead."""


class Network(nn.Module):
    """The frame of every network: takes grey images in [0, 1], normalises and pads them, gives a score.

    A subclass has ``forward(image) -> Logits``: ``prepare``, its layers, and the logits cropped back. See
    examples/plugin/ismallnet_stack.py for a whole one.

    Args:
        in_channels: 1 for grey; 3 for the official layout, to which a grey image is expanded.
        mean: Of the input by channel, in [0, 1]; None: the train lists' (grey) or the official one.
        std: Likewise.
        official: Mean and standard deviation of the three-channel layout, where it has one.

    Raises:
        ValueError: Other channels than 1 or 3, or not one value of mean and std for each.
    """

    mean: Tensor
    std: Tensor
    multiple: int = 1
    """Height and width are reflect-padded to a multiple of this, and the logits cropped back."""
    minimum: int = 16
    """Least height and width: a detector mirrors smaller images to it on all sides, ``prepare`` on two."""

    def __init__(
        self,
        in_channels: int = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        official: Constants = IMAGENET,
    ) -> None:
        super().__init__()
        check_choice("in_channels", in_channels, (1, 3))
        constants = GREY if in_channels == 1 else official
        self.register_buffer("mean", _by_channel("mean", mean or constants[0], in_channels))
        self.register_buffer("std", _by_channel("std", std or constants[1], in_channels))

    def prepare(self, image: Tensor) -> Tensor:
        """Normalise and pad an image of any size.

        Args:
            image: (B, 1, H, W) in [0, 1], grey; with ``in_channels=3`` also (B, 3, H, W).

        Returns:
            (B, in_channels, H', W'): at least ``minimum``, a multiple of ``multiple``; the image is top left.

        Raises:
            ValueError: The shape is another.
        """
        channels = self.mean.shape[1]
        if image.ndim != 4 or image.shape[1] not in (1, channels) or 0 in image.shape:
            raise ValueError(f"got an image of shape {tuple(image.shape)}; expected (B, {channels}, H, W)")
        return pad((image - self.mean) / self.std, self.multiple, self.minimum)

    def least_batch(self, side: int) -> int:
        """Return how many square crops of a side a training step needs at least where batch norms are live.

        A batch norm needs two values a channel. On crops of one ``multiple`` the coarsest level is a single
        pixel, so that every image gives it one.
        """
        padded = -(-max(side, self.minimum) // self.multiple) * self.multiple
        normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules())
        return 2 if normed and padded == self.multiple else 1

    def score(self, image: Tensor) -> Tensor:
        """Return the probability (B, 1, H, W) that each pixel belongs to a target."""
        return torch.sigmoid(self(image).target.float())


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


class FCNHead(nn.Module):
    """ACM's and ALCNet's head: a 3×3 convolution to a quarter of the width, dropout 0.1, a 1×1 to logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width // 4
        self.body = nn.Sequential(
            nn.Conv2d(width, hidden, 3, 1, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Dropout(0.1),
        )
        self.predict = nn.Conv2d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to (B, 1, H, W), in float32."""
        return in_float32(self.predict, self.body(x))


def gate(width: int, hidden: int) -> nn.Sequential:
    """Return ACM's and ALCNet's modulation: two 1×1 convolutions with batch norms, to weights in (0, 1)."""
    return nn.Sequential(
        nn.Conv2d(width, hidden, 1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, width, 1),
        nn.BatchNorm2d(width),
        nn.Sigmoid(),
    )


def chain(block: Callable[[int, int], nn.Module], inputs: int, width: int, depth: int) -> nn.Sequential:
    """Return ``depth`` blocks in a row, the first from ``inputs`` to ``width`` channels."""
    return nn.Sequential(*(block(inputs if n == 0 else width, width) for n in range(depth)))


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """Resize (B, C, H, W) bilinearly to ``size`` = (height, width); the same size costs nothing."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


def pad(x: Tensor, multiple: int, minimum: int = 1) -> Tensor:
    """Reflect-pad the right and bottom of (B, C, H, W) to a multiple that is no less than ``minimum``.

    Mirrors again where H or W is short; a single pixel is its own mirror.
    """
    for axis in (-1, -2):
        wanted = -(-max(x.shape[axis], minimum) // multiple) * multiple
        while missing := wanted - x.shape[axis]:
            inner = x.shape[axis] - 1
            step = min(missing, inner) if inner else missing
            padding = (0, step, 0, 0) if axis == -1 else (0, 0, 0, step)
            x = F.pad(x, padding, mode="reflect" if inner else "replicate")
    return x


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
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def set_prior(head: nn.Conv2d, prior: float) -> None:
    """Set the bias of a head so that it predicts a probability where it sees nothing, in place.

    Raises:
        ValueError: A prior that is no probability.
    """
    if not 0 < prior < 1:
        raise ValueError(f"got prior={prior}; give a probability above 0 and below 1")
    assert head.bias is not None
    nn.init.constant_(head.bias, math.log(prior / (1 - prior)))


def check_choice(option: str, value: object, accepted: Iterable[object]) -> None:
    """Refuse a value of an option that is not among the accepted ones.

    Raises:
        ValueError: It is not; the text has the accepted ones.
    """
    if value not in accepted:
        raise ValueError(f"unknown {option} {value!r}; choose from {', '.join(map(str, accepted))}")


def _by_channel(name: str, values: Sequence[float], channels: int) -> Tensor:
    if len(values) != channels:
        raise ValueError(f"got {len(values)} values of {name}; give one a channel, {channels}")
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)
