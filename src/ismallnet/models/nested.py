"""The nested decoder: U-Net, U-Net++, DNANet and iSmallNet's MNIM are one grid with four wirings.

Node X[i, j] sits on level i (0 is the finest), column j (0 is the encoder). Every node with j > 0
reads X[i + 1, j - 1] doubled; a wiring says what else it reads. Sources: U-Net (Ronneberger 2015),
U-Net++ (Zhou 2018), DNANet (Li 2022), iSmallNet Eq. 2. What the nodes X[i, L - 1 - i] of the last diagonal
know is joined by a ``LevelFusion``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ismallnet.models.layers import chain, resize

WiringName = Literal["unet", "unet++", "dna", "mnim"]
Down = Literal["bilinear", "max"]


class Wiring(NamedTuple):
    """What a node X[i, j] reads besides X[i + 1, j - 1]."""

    dense: bool
    """All X[i, k], k < j, and every column is built; else X[i, 0] and only the last diagonal is."""
    above: tuple[int, ...]
    """X[i - 1, j - k], halved, for these k, in this order."""


WIRINGS: dict[str, Wiring] = {
    "unet": Wiring(dense=False, above=()),
    "unet++": Wiring(dense=True, above=()),
    "dna": Wiring(dense=True, above=(0,)),
    "mnim": Wiring(dense=True, above=(1, 0)),
}


class NestedDecoder(nn.Module):
    """The grid of nodes X[i, j], i + j < levels, over an encoder's feature maps X[i, 0].

    Args:
        widths: Channels of each level, finest first, as the encoder gives them.
        wiring: A name in ``WIRINGS``.
        depths: Blocks a node, for each level but the coarsest (official code: 1, 2, 2, 2).
        block: Builds a block from channels in and out.
        down: How a map of the level above is halved: ``bilinear`` as the official code does
            (align_corners), ``max`` as Eq. 2 is written.
        align_corners: Of the bilinear up-sampling.

    Raises:
        ValueError: Unknown wiring or down-sampling.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        wiring: WiringName = "mnim",
        depths: Sequence[int],
        block: Callable[[int, int], nn.Module],
        down: Down = "bilinear",
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        if wiring not in WIRINGS:
            raise ValueError(f"unknown wiring {wiring!r}; choose from {', '.join(WIRINGS)}")
        if down not in ("bilinear", "max"):
            raise ValueError(f"unknown down-sampling {down!r}; choose from bilinear, max")
        self.wiring = WIRINGS[wiring]
        self.levels = len(widths)
        self.down = down
        self.align_corners = align_corners
        self.nodes = nn.ModuleDict()
        for i, j in self._grid():
            rows = j if self.wiring.dense else 1
            above = len(self._above(i, j))
            inputs = rows * widths[i] + widths[i + 1] + above * (widths[i - 1] if i else 0)
            self.nodes[f"{i}_{j}"] = chain(block, inputs, widths[i], depths[i])

    def _grid(self) -> list[tuple[int, int]]:
        """(i, j) of every node with j > 0, in an order in which each can be computed."""
        last = self.levels - 1
        if not self.wiring.dense:
            return [(last - j, j) for j in range(1, self.levels)]
        return [(d - j, j) for d in range(1, self.levels) for j in range(1, d + 1)]

    def _above(self, i: int, j: int) -> list[int]:
        """Columns of the level above that X[i, j] reads."""
        return [j - k for k in self.wiring.above] if i else []

    def _halve(self, x: Tensor) -> Tensor:
        if self.down == "max":
            return F.max_pool2d(x, 2)
        size = (x.shape[-2] // 2, x.shape[-1] // 2)
        return resize(x, size, align_corners=True)

    def all_nodes(self, features: Sequence[Tensor]) -> dict[tuple[int, int], Tensor]:
        """Return every X[i, j] by its (i, j) for ``features`` = [X[0, 0], ..., X[L-1, 0]]."""
        x = {(i, 0): feature for i, feature in enumerate(features)}
        for i, j in self._grid():
            rows = [x[i, k] for k in range(j)] if self.wiring.dense else [x[i, 0]]
            below = resize(x[i + 1, j - 1], rows[0].shape[-2:], align_corners=self.align_corners)
            above = [self._halve(x[i - 1, k]) for k in self._above(i, j)]
            x[i, j] = self.nodes[f"{i}_{j}"](torch.cat([*rows, below, *above], 1))
        return x

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return [X[0, L-1], X[1, L-2], ..., X[L-1, 0]] for ``features`` = [X[0, 0], ..., X[L-1, 0]]."""
        x = self.all_nodes(features)
        return [x[i, self.levels - 1 - i] for i in range(self.levels)]


class LevelFusion(nn.Module):
    """Project every level to one width, enlarge to the finest, concatenate, one block.

    iSmallNet's Decoder2 and IBFM, DNANet's feature pyramid fusion.

    Args:
        inputs: Channels of each level, finest first.
        width: Channels of each projection and of the result.
        block: Builds a block from channels in and out.
        project_finest: Also project the finest level (IBFM does, the other two pass it on).
        official: Reproduce the official IBFM: the finest level is projected by the projection of the one
            below it, and its own is never used.
        align_corners: Of the enlargement (DNANet's has it, iSmallNet's has not).
        coarsest_first: Concatenate in the official codes' order, coarsest first; else finest first.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        width: int,
        block: Callable[[int, int], nn.Module],
        *,
        project_finest: bool,
        official: bool = False,
        align_corners: bool = False,
        coarsest_first: bool = False,
    ) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Conv2d(channels, width, 1) if level or project_finest else nn.Identity()
            for level, channels in enumerate(inputs)
        )
        self.official = official
        self.align_corners, self.coarsest_first = align_corners, coarsest_first
        self.block = block(len(inputs) * width, width)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map [(B, inputs[i], H / 2**i, W / 2**i)] to (B, width, H, W), and give the projections too."""
        size = levels[0].shape[-2:]
        projections = list(self.project)
        if self.official:
            projections[0] = projections[1]
        narrow = [
            resize(project(x), size, align_corners=self.align_corners)
            for project, x in zip(projections, levels, strict=True)
        ]
        ordered = narrow[::-1] if self.coarsest_first else narrow
        return self.block(torch.cat(ordered, 1)), narrow
