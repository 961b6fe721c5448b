"""MDvsFA-cGAN (Wang et al., ICCV 2019): one network against missed targets, one against false alarms.

Two dilated convolutional networks without pooling answer with a map each; in training a discriminator has to
tell the two from the truth. The score is the mean of the two maps, each clamped to [0, 1].

Our contract is logits whose sigmoid is the score. The mean map is therefore returned as its logit, kept
finite by ``CLAMP``: the sigmoid gives the map back within 1e-6, and where both maps are clamped to 0 or to 1
the logit is ∓13.8. Close to 0 and 1 the logit is steep, where the map itself is not.

Built after the PyTorch release; ``norm="adaptive"`` is the TensorFlow original. The releases have one layer
more in the first generator than the paper's text, and lack the skip from the first to the last layer of the
second that it draws. Departures: images below 16 pixels are mirrored; in evaluation the adaptive form
normalises by running averages, where TensorFlow's ``slim.batch_norm`` takes the statistics of its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ismallnet.models.layers import Network, check_choice, in_float32
from ismallnet.types import Logits

Norm = Literal["batch", "adaptive"]
MISS_WIDTHS = (64, 64, 128, 256, 512, 256, 128, 64)
MISS_DILATIONS = (1, 1, 2, 4, 8, 4, 2, 1)
FALSE_ALARM_DILATIONS = (1, 2, 4, 8, 16, 32, 64, 32, 16, 8, 4, 2, 1)
CLAMP = 1e-6
"""The mean map is kept this far from 0 and 1 before its logit is taken."""


class AdaptiveNorm(nn.Module):
    """``a · x + b · (bn(x) + shift)`` with scalars a = 1 and b = 0 at first: batch norm starts switched off.

    Q. Chen et al., *Fast Image Processing with Fully-Convolutional Networks*, ICCV 2017; the constants of the
    batch norm, which has no scale, are those of ``slim.batch_norm``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.plain, self.normed = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        self.norm = nn.BatchNorm2d(width, eps=1e-3, momentum=1e-3, affine=False)
        self.shift = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        y: Tensor = self.plain * x + self.normed * (self.norm(x) + self.shift)
        return y


class MissGenerator(nn.Module):
    """CAN-8: the network against missed targets, eight dilated 3×3 convolutions in a row and a 1×1.

    Args:
        widths: Channels of the eight.
        norm: See ``MDvsFA``.
    """

    def __init__(self, widths: Sequence[int] = MISS_WIDTHS, norm: Norm = "batch") -> None:
        super().__init__()
        layers = zip(pairwise((1, *widths)), MISS_DILATIONS, strict=True)
        self.layers = nn.Sequential(*(_layer(*ends, dilation, norm) for ends, dilation in layers))
        self.predict = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, H, W) in [-1, 1] to (B, 1, H, W), any value, in float32."""
        return in_float32(self.predict, self.layers(image))


class FalseAlarmGenerator(nn.Module):
    """U-CAN-64: the network against false alarms, thirteen dilated 3×3 convolutions and a 1×1.

    From the ninth on, each also reads an earlier one, the closer to the end the earlier: 6, 5, 4, 3, 2.

    Args:
        width: Channels of each.
        norm: See ``MDvsFA``.
    """

    def __init__(self, width: int = 64, norm: Norm = "batch") -> None:
        super().__init__()
        inputs = (1, *[width] * 7, *[2 * width] * 5)
        self.layers = nn.ModuleList(
            _layer(before, width, dilation, norm)
            for before, dilation in zip(inputs, FALSE_ALARM_DILATIONS, strict=True)
        )
        self.predict = nn.Conv2d(width, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, H, W) in [-1, 1] to (B, 1, H, W), any value, in float32."""
        features: list[Tensor] = []
        x = image
        for number, layer in enumerate(self.layers, start=1):
            x = layer(torch.cat([features[14 - number], x], 1) if number > 8 else x)
            features.append(x)
        return in_float32(self.predict, x)


class MDvsFA(Network):
    """The two generators; in evaluation the mean of their clamped maps.

    Takes one grey channel, which is brought to [-1, 1].

    Args:
        norm: ``batch``: convolutions with bias, batch norm, PyTorch's initial weights. ``adaptive``: no bias,
            ``AdaptiveNorm``, convolutions that begin close to the identity.
        miss_widths: Channels of the first generator's eight layers.
        false_alarm_width: Channels of the second generator's layers.

    Attributes:
        miss: The generator against missed targets, from a prepared image to a map that is not clamped.
        false_alarm: The one against false alarms, likewise.

    Raises:
        ValueError: An unknown norm, or not eight widths.
    """

    def __init__(
        self,
        *,
        norm: Norm = "batch",
        miss_widths: Sequence[int] = MISS_WIDTHS,
        false_alarm_width: int = 64,
    ) -> None:
        super().__init__(1, (0.5,), (0.5,))
        check_choice("norm", norm, ("batch", "adaptive"))
        if len(miss_widths) != len(MISS_DILATIONS):
            raise ValueError(f"got {len(miss_widths)} miss_widths; the first generator has 8 layers, give 8")
        self.miss = MissGenerator(miss_widths, norm)
        self.false_alarm = FalseAlarmGenerator(false_alarm_width, norm)

    def forward(self, image: Tensor) -> Logits:
        """Predict the target: the logit of the mean of the two clamped maps.

        Args:
            image: (B, 1, H, W) in [0, 1], grey. Any H, W.

        Raises:
            ValueError: The shape is another.
        """
        full = self.prepare(image)
        logits = mean_logits(self.miss(full), self.false_alarm(full))
        return Logits(logits[..., : image.shape[-2], : image.shape[-1]])


def mean_logits(miss: Tensor, false_alarm: Tensor) -> Tensor:
    """The logit of the mean of two maps (B, 1, H, W), each clamped to [0, 1]; finite, see ``CLAMP``."""
    mean = (miss.clamp(0, 1) + false_alarm.clamp(0, 1)) / 2
    return torch.logit(mean, CLAMP)


class Judgement(NamedTuple):
    """What the discriminator has to say of B maps."""

    features: Tensor
    """(B, 1, 32, 32): its last convolution's, by which the generators' maps are compared."""
    kinds: Tensor
    """(B, 3): probabilities that a map is the truth, the first generator's, the second's."""


class Discriminator(nn.Module):
    """Tells the truth from the maps of the two generators, given the image. It takes crops of 128×128 only.

    As in the PyTorch release; the TensorFlow original has no batch norm after the last layer, and those of
    the layers before it stay in evaluation mode.
    """

    side = 128
    """Of the crops, in pixels."""

    def __init__(self) -> None:
        super().__init__()
        widths = (2, 24, 24, 24, 1)
        self.features = nn.Sequential(
            nn.MaxPool2d(2), nn.MaxPool2d(2), *(_layer(*ends, 1, "batch") for ends in pairwise(widths))
        )
        hidden = [
            nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.Tanh())
            for before, after in pairwise(((self.side // 4) ** 2, 128, 64))
        ]
        self.decide = nn.Sequential(*hidden, nn.Linear(64, 3), nn.BatchNorm1d(3))

    def forward(self, image: Tensor, maps: Tensor) -> Judgement:
        """Judge maps.

        Args:
            image: (B, 1, 128, 128) in [-1, 1].
            maps: (B, 1, 128, 128) in [0, 1].

        Raises:
            ValueError: Another size.
        """
        if image.shape[-2:] != (self.side, self.side):
            raise ValueError(
                f"the discriminator takes crops of {self.side}×{self.side}, got {tuple(image.shape[-2:])}; "
                f"set training.stages.sizes to [{self.side}]"
            )
        features = self.features(torch.cat([image, 2 * maps - 1], 1))
        kinds = self.decide(features.flatten(1))
        return Judgement(features, F.softmax(kinds.float(), 1))


def _layer(inputs: int, width: int, dilation: int, norm: Norm) -> nn.Sequential:
    """Return a dilated 3×3 convolution of the same size, its norm, and a leaky ReLU of slope 0.2."""
    conv = nn.Conv2d(inputs, width, 3, 1, dilation, dilation, bias=norm == "batch")
    if norm == "adaptive" and not conv.weight.is_meta:
        _near_identity(conv.weight)
    normed = nn.BatchNorm2d(width) if norm == "batch" else AdaptiveNorm(width)
    return nn.Sequential(conv, normed, nn.LeakyReLU(0.2))


@torch.no_grad()
def _near_identity(weight: Tensor) -> None:
    """Let a kernel (M, N, 3, 3) hand channels on, plus noise of 0.0025, as the TensorFlow release begins.

    Where M > N every N-th of the outputs has an input, M / N times as strong; where M < N every output takes
    one of the inputs, N / M times.
    """
    outputs, inputs = weight.shape[:2]
    nn.init.normal_(weight, 0, 0.0025)
    few, many = sorted((outputs, inputs))
    for n in range(few):
        place = (n * outputs // few, n * inputs // few)
        weight[(*place, 1, 1)] = many / few
