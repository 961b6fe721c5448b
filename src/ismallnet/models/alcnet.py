"""ALCNet (Dai et al., TGRS 2021): the classical local contrast as a layer without parameters.

The backbone's three levels go through a multi-scale local contrast (``multi_scale_contrast``) and are joined
from the coarsest up by bottom-up modulation (``BottomUpModulation``, the paper's BLAM). Built as the released
weights ``BottomUpLocal_r_1_b_4`` are; BasicIRSTD's "ALCNet" (519,889 parameters) has no such layer.

Departures from the official MXNet code: grey by default, with the constants of our train lists; any size by
reflection, where the official code resizes to 512. The batch norms' momentum of 0.1 is MXNet's 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from ismallnet.models.encoder import THREE_WIDTHS, ThreeStages
from ismallnet.models.layers import IMAGENET, FCNHead, Network, gate, initialise, resize, set_prior
from ismallnet.types import Logits

SHIFTS = (13, 17)
"""Distances of the local contrast in pixels of the map, on every level alike."""
_AXES = ((0, 1), (1, 0), (1, 1), (1, -1))


def local_contrast(x: Tensor, shift: int) -> Tensor:
    """How far a pixel stands out from both sides: the least, over four axes, of a product of differences.

    ``min over d of (x(p + k·d) - x(p)) · (x(p - k·d) - x(p))``, d along rows, columns and both diagonals, k
    the shift. Positive where the pixel is above or below both neighbours on every axis, negative on slopes.

    Shifts are cyclic, as in the released code: within k of the border a neighbour comes from the opposite
    side of the map. On a side of no more than k pixels nothing is k away.

    Args:
        x: (B, C, H, W), H and W above the shift.
        shift: k, in pixels.
    """
    return reduce(torch.minimum, _products(x, shift))


def multi_scale_contrast(x: Tensor) -> Tensor:
    """Return the larger of the local contrasts at ``SHIFTS``, (B, C, H, W)."""
    return reduce(torch.maximum, [local_contrast(x, shift) for shift in SHIFTS])


def deciding_contrast(x: Tensor) -> Tensor:
    """Return ``multi_scale_contrast``, with a gradient for the two neighbours that decide a pixel alone.

    The other fourteen have none, and autograd's way through all of them takes twice the time. Of equal
    products one has the gradient, where autograd shares it out.
    """
    height, width = x.shape[-2:]
    rows, columns = torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)
    with torch.no_grad():
        (near, near_axis), (far, far_axis) = (torch.stack(_products(x, shift)).min(0) for shift in SHIFTS)
        step = torch.where(far > near, far_axis + len(_AXES), near_axis).flatten(2)
        pixel = step * (height * width) + torch.arange(height * width, device=x.device)
        ahead, behind = (
            torch.stack(
                [
                    (rows + sign * shift * dy) % height * width + (columns + sign * shift * dx) % width
                    for shift in SHIFTS
                    for dy, dx in _AXES
                ]
            ).flatten()[pixel]
            for sign in (1, -1)
        )
    flat = x.flatten(2)
    return ((flat.gather(2, ahead) - flat) * (flat.gather(2, behind) - flat)).view_as(x)


def _products(x: Tensor, shift: int) -> list[Tensor]:
    """Return the products of differences along the four axes."""
    steps = [(shift * dy, shift * dx) for dy, dx in _AXES]
    return [(x.roll((-dy, -dx), (2, 3)) - x) * (x.roll((dy, dx), (2, 3)) - x) for dy, dx in steps]


class BottomUpModulation(nn.Module):
    """BLAM: ``w · bn(high) + bn(low)``, the weights w a gate of the low level, pixel by pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_high, self.norm_low = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.gate = gate(width, width)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Map two (B, width, H, W) to one."""
        low = self.norm_low(low)
        modulated: Tensor = self.gate(low) * self.norm_high(high) + low
        return modulated


class ALCNet(Network):
    """Local contrast and bottom-up modulation over the backbone ``ThreeStages``.

    The coarsest map, a quarter of the image, has to be wider than the largest shift: images below 72 pixels
    are mirrored up to that. Below 140, 4 · (2 · 17 + 1), all its pixels have a neighbour from the opposite
    side.

    Args:
        blocks: Residual blocks of a stage.
        prior: Probability of a target that the head's bias starts from; None: one half, as the official code.
        in_channels: 1 for grey; 3 for the official layout, to which a grey image is expanded.
        mean: Of the input by channel, in [0, 1]; None: the train lists' (grey) or ImageNet's.
        std: Likewise.

    Raises:
        ValueError: An option outside its choices, or a prior that is no probability.
    """

    multiple = 4
    minimum = 4 * (max(SHIFTS) + 1)

    def __init__(
        self,
        *,
        blocks: int = 4,
        prior: float | None = None,
        in_channels: int = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(in_channels, mean, std, official=IMAGENET)
        self.encoder = ThreeStages(in_channels, blocks)
        width = THREE_WIDTHS[0]
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            if inputs != width
            else nn.Identity()
            for inputs in THREE_WIDTHS
        )
        self.fuse = nn.ModuleList(BottomUpModulation(width) for _ in THREE_WIDTHS[1:])
        self.head = FCNHead(width)
        initialise(self)
        if prior is not None:
            set_prior(self.head.predict, prior)

    def forward(self, image: Tensor) -> Logits:
        """Predict the target.

        Args:
            image: (B, 1, H, W) in [0, 1], grey; with ``in_channels=3`` also (B, 3, H, W). Any H, W.

        Raises:
            ValueError: The shape is another.
        """
        features = self.encoder(self.prepare(image))
        contrast = deciding_contrast if self.training else multi_scale_contrast
        contrasts = [contrast(feature) for feature in features]
        *lows, x = [project(y) for project, y in zip(self.project, contrasts, strict=True)]
        for fuse, low in zip(self.fuse, reversed(lows), strict=True):
            x = fuse(resize(x, low.shape[-2:], align_corners=True), low)
        return Logits(self.head(x)[..., : image.shape[-2], : image.shape[-1]])
