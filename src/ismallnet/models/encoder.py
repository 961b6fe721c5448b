"""Encoders: an image to one feature map a level, each level half the size of the one above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ismallnet.models.layers import ResidualBlock, chain, check_choice


class Encoder(nn.Module):
    """Blocks at the input's own resolution, then (2×2 max-pool, blocks) a level: first column X[i, 0].

    iSmallNet's official encoder (and DNANet's) is ``widths=(16, 32, 64, 128, 256)``,
    ``depths=(1, 2, 2, 2, 2)``: there is no strided stem.

    Args:
        inputs: Channels in.
        widths: Channels of each level, top first.
        depths: Blocks of each level.
        block: Builds a block from channels in and out.
    """

    stride = 1

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        depths: Sequence[int],
        block: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        befores = (inputs, *widths[:-1])
        self.levels = nn.ModuleList(
            chain(block, before, width, depth)
            for before, width, depth in zip(befores, widths, depths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, inputs, H, W) to [(B, widths[i], H / 2**i, W / 2**i)]."""
        features: list[Tensor] = []
        for level in self.levels:
            x = level(F.max_pool2d(x, 2) if features else x)
            features.append(x)
        return features


RESNET18_DEPTHS = (1, 2, 2, 2, 2)
"""Blocks of each level of ``ResNet18``, the stem being the first."""


class ResNet18(nn.Module):
    """ResNet-18 (He et al., CVPR 2016) without its classifier, as iSmallNet's text reads.

    "Five residual blocks", "the size of F_i is W/2^i": the 7×7 stride-2 stem is F_1, max-pool and
    the first stage F_2, the other three stages F_3 to F_5. Trained from scratch.
    """

    stride = 2

    def __init__(self, inputs: int, widths: Sequence[int] = (64, 64, 128, 256, 512)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(inputs, widths[0], 7, 2, 3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.stages = nn.ModuleList()
        for level in range(1, len(widths)):
            before, width, stride = widths[level - 1], widths[level], 1 if level == 1 else 2
            first = ResidualBlock(before, width, stride=stride, attention=False, shortcut_bias=False)
            self.stages.append(nn.Sequential(first, ResidualBlock(width, width, attention=False)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, inputs, H, W) to [(B, widths[i], H / 2**(i + 1), W / 2**(i + 1))]."""
        features = [self.stem(x)]
        for level, stage in enumerate(self.stages, start=1):
            x = features[-1]
            features.append(stage(F.max_pool2d(x, 3, 2, 1) if level == 1 else x))
        return features


Stem = Literal["full", "stride4"]
THREE_WIDTHS = (16, 32, 64)
"""Channels of ``ThreeStages``, finest first."""
basic_block = partial(ResidualBlock, attention=False, shortcut_bias=False)
"""ResNet's block of two 3×3 convolutions (He et al., CVPR 2016)."""


class ThreeStages(nn.Module):
    """The backbone of ACM and ALCNet: batch norm without scale and shift, a stem, three residual stages.

    Args:
        inputs: Channels in.
        blocks: Of each stage.
        stem: ``full``: one 3×3 convolution at full resolution, as the released weights have it. ``stride4``:
            three (the first halves) and a 3×3 max-pool, the training script's other choice.

    Raises:
        ValueError: No block, or an unknown stem.
    """

    def __init__(self, inputs: int, blocks: int, stem: Stem = "full") -> None:
        super().__init__()
        check_choice("stem", stem, ("full", "stride4"))
        if blocks < 1:
            raise ValueError(f"got blocks={blocks}; give at least 1, the papers have 3 and 4")
        self.stride = 1 if stem == "full" else 4
        self.norm = nn.BatchNorm2d(inputs, affine=False)
        layers: list[nn.Module] = []
        before = inputs
        for width, stride in ((16, 1),) if stem == "full" else ((8, 2), (8, 1), (16, 1)):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.stem = nn.Sequential(*layers, nn.Identity() if stem == "full" else nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        for level, width in enumerate(THREE_WIDTHS):
            first = basic_block(before, width, stride=2 if level else 1)
            self.stages.append(nn.Sequential(first, *chain(basic_block, width, width, blocks - 1)))
            before = width

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, inputs, H, W) to [(B, 16 · 2**i, H / (stride · 2**i), W / (stride · 2**i))], i < 3."""
        features: list[Tensor] = []
        x = self.stem(self.norm(x))
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
