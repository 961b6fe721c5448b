"""TBC-Net (Zhao et al., arXiv 2001.05852): a small encoder-decoder, trained under a classifier's eyes.

The target extraction module (TEM) answers with a map of the targets. In training a semantic constraint module
(SCM), a classifier of such maps whose weights are frozen, says how many targets it sees there; the network in
use is the TEM alone.

No code was published. Known are the two modules, residual connections, max-pooling, nearest-neighbour
enlargement, the frozen classifier and the terms of the loss. All widths, depths, activations, classes and
weights are assumptions of ours, chosen for a lightweight network, and so is the sigmoid at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from ismallnet.models.layers import Network, in_float32, set_prior
from ismallnet.types import Logits

WIDTHS = (16, 32, 64, 128)
"""Channels of the levels of both modules, finest first."""


class LeakyBlock(nn.Module):
    """``shortcut(x) + layer(layer(x))``, a layer being a 3×3 convolution, batch norm and a leaky ReLU.

    The shortcut is a 1×1 convolution where the width changes, else the identity. No convolution has a bias.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_layer(inputs, width, bias=False), *_layer(width, width, bias=False))
        same = inputs == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, width, H, W)."""
        y: Tensor = self.shortcut(x) + self.body(x)
        return y


class TBCNet(Network):
    """The TEM: a level is a residual block; levels are halved by 2×2 max-pooling and doubled by repetition.

    On the way up a block follows the doubling, and the encoder's features of that level are added.

    Args:
        widths: Channels of each level, finest first.
        prior: Probability that the head predicts at first where it sees nothing. The loss has no gradient
            left once every score is 0, and from 0.5 the background drives the network there.
        mean: Of the input, in [0, 1]; None: the train lists'.
        std: Likewise.

    Raises:
        ValueError: A prior that is no probability.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = WIDTHS,
        prior: float = 0.1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(1, mean, std)
        self.multiple = 2 ** (len(widths) - 1)
        self.encoder = nn.ModuleList(LeakyBlock(*ends) for ends in pairwise((1, *widths)))
        self.decoder = nn.ModuleList(LeakyBlock(*ends) for ends in pairwise(reversed(widths)))
        self.head = nn.Conv2d(widths[0], 1, 1)
        set_prior(self.head, prior)

    def forward(self, image: Tensor) -> Logits:
        """Predict the target.

        Args:
            image: (B, 1, H, W) in [0, 1], grey. Any H, W.

        Raises:
            ValueError: The shape is another.
        """
        x = self.prepare(image)
        features: list[Tensor] = []
        for block in self.encoder:
            x = block(F.max_pool2d(x, 2) if features else x)
            features.append(x)
        for block, low in zip(self.decoder, reversed(features[:-1]), strict=True):
            x = block(F.interpolate(x, scale_factor=2, mode="nearest")) + low
        return Logits(in_float32(self.head, x)[..., : image.shape[-2], : image.shape[-1]])


class Classifier(nn.Module):
    """The SCM: how many targets a map shows, 0 to 5, or 6 and more.

    Four times a 3×3 convolution with batch norm, leaky ReLU and 2×2 max-pooling, then the mean over what is
    left and a linear layer.
    """

    classes = 7

    def __init__(self) -> None:
        super().__init__()
        levels = [
            nn.Sequential(*_layer(*ends, bias=True), nn.MaxPool2d(2)) for ends in pairwise((1, *WIDTHS))
        ]
        self.levels = nn.Sequential(*levels)
        self.decide = nn.Linear(WIDTHS[-1], self.classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, 1, H, W) in [0, 1], H and W at least 16, to the classes' logits (B, 7)."""
        logits: Tensor = self.decide(self.levels(maps).mean((2, 3)))
        return logits


def _layer(inputs: int, width: int, *, bias: bool) -> tuple[nn.Module, ...]:
    """A 3×3 convolution, batch norm and a leaky ReLU (slope 0.01)."""
    return nn.Conv2d(inputs, width, 3, 1, 1, bias=bias), nn.BatchNorm2d(width), nn.LeakyReLU()
