"""ACMNet (Dai et al., WACV 2021): asymmetric contextual modulation in a small encoder-decoder.

Where the decoder joins a high level with a low one, each weighs the other: the high level's global mean,
through a bottleneck, weighs the channels of the low one (top-down); the low level, pixel by pixel, weighs the
high one (bottom-up).

Departures from the official MXNet code: grey by default, with the constants of our train lists; any size by
reflection, where the official code resizes to 512. The batch norms' momentum of 0.1 is MXNet's 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from ismallnet.models.encoder import THREE_WIDTHS, Stem, ThreeStages, basic_block
from ismallnet.models.layers import (
    IMAGENET,
    FCNHead,
    Network,
    chain,
    check_choice,
    gate,
    initialise,
    resize,
    set_prior,
)
from ismallnet.types import Logits


class AsymmetricModulation(nn.Module):
    """The paper's fusion: ``relu(bn(conv(2 · low · g(mean(high)) + 2 · high · p(low))))``, g and p gates.

    Args:
        width: Channels of both levels and of the result.
        reduction: Both bottlenecks have ``width // reduction`` channels.
    """

    def __init__(self, width: int, reduction: int = 4) -> None:
        super().__init__()
        self.top_down = gate(width, width // reduction)
        self.bottom_up = gate(width, width // reduction)
        self.merge = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Map two (B, width, H, W) to one."""
        context = self.top_down(high.mean((2, 3), keepdim=True))
        merged: Tensor = self.merge(2 * low * context + 2 * high * self.bottom_up(low))
        return merged


class ACMNet(Network):
    """ACM over the backbone ``ThreeStages``.

    A training step needs at least two images, since the batch norms of the global means see one value each.

    Args:
        host: ``unet``: 4×4 transposed convolutions, and residual blocks after every fusion. ``fpn``: bilinear
            doubling (align_corners), a 1×1 convolution, no blocks.
        stem: See ``ThreeStages``. With ``stride4`` the logits are enlarged four times, bilinearly.
        blocks: Residual blocks of a stage: 4 in the released weights, 3 in most ports.
        prior: Probability of a target that the head's bias starts from; None: one half, as the official code.
        in_channels: 1 for grey; 3 for the official layout, to which a grey image is expanded.
        mean: Of the input by channel, in [0, 1]; None: the train lists' (grey) or ImageNet's.
        std: Likewise.

    Raises:
        ValueError: An option outside its choices, or a prior that is no probability.
    """

    def __init__(
        self,
        *,
        host: Literal["unet", "fpn"] = "unet",
        stem: Stem = "full",
        blocks: int = 4,
        prior: float | None = None,
        in_channels: int = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(in_channels, mean, std, official=IMAGENET)
        check_choice("host", host, ("unet", "fpn"))
        self.encoder = ThreeStages(in_channels, blocks, stem)
        self.enlarge, self.fuse, self.refine = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        unet = host == "unet"
        for high, low in pairwise(reversed(THREE_WIDTHS)):
            self.enlarge.append(nn.ConvTranspose2d(high, low, 4, 2, 1) if unet else _doubled(high, low))
            self.fuse.append(AsymmetricModulation(low))
            self.refine.append(chain(basic_block, low, low, blocks if unet else 0))
        self.head = FCNHead(THREE_WIDTHS[0])
        self.multiple = self.encoder.stride * 4
        initialise(self)
        if prior is not None:
            set_prior(self.head.predict, prior)

    def least_batch(self, side: int) -> int:  # noqa: ARG002
        """See ``Network.least_batch``: the batch norms of the global means see one value an image."""
        return 2

    def forward(self, image: Tensor) -> Logits:
        """Predict the target.

        Args:
            image: (B, 1, H, W) in [0, 1], grey; with ``in_channels=3`` also (B, 3, H, W). Any H, W.

        Raises:
            ValueError: The shape is another.
        """
        full = self.prepare(image)
        *lows, x = self.encoder(full)
        steps = zip(self.enlarge, self.fuse, self.refine, reversed(lows), strict=True)
        for enlarge, fuse, refine, low in steps:
            x = refine(fuse(enlarge(x), low))
        logits = resize(self.head(x), full.shape[-2:], align_corners=True)
        return Logits(logits[..., : image.shape[-2], : image.shape[-1]])


def _doubled(inputs: int, width: int) -> nn.Sequential:
    """Return the FPN's way up: twice the size, ``width`` channels."""
    double = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(double, nn.Conv2d(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU())
