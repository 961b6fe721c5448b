"""A network from outside the package: `pip install examples/plugin`, then train it as any other of ours."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from ismallnet.models import Entry
from ismallnet.models.layers import Network, in_float32
from ismallnet.types import Logits


class Stack(Network):
    """3×3 convolutions in a row at full resolution, each with batch norm and ReLU, and a 1×1 head.

    Args:
        width: Channels.
        depth: Convolutions, 1 or more; the score of a pixel depends on as many pixels around it.
    """

    def __init__(self, *, width: int = 16, depth: int = 5) -> None:
        super().__init__()
        ends = pairwise((1, *[width] * depth))
        self.body = nn.Sequential(*(self._layer(*each) for each in ends))
        self.head = nn.Conv2d(width, 1, 1)

    @staticmethod
    def _layer(inputs: int, width: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, image: Tensor) -> Logits:
        """Predict the target.

        Args:
            image: (B, 1, H, W) in [0, 1], grey. Any H, W.
        """
        x = self.body(self.prepare(image))
        return Logits(in_float32(self.head, x)[..., : image.shape[-2], : image.shape[-1]])


MODEL = Entry(Stack, "convolutions in a row, an example", "recipes/fast-nuaa.yaml")
