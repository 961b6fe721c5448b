"""DNANet (Li et al., TIP 2022): a densely nested decoder of Res-CBAM blocks, levels fused, deep supervision.

The grid is ``NestedDecoder`` with the wiring ``dna``. The blocks are those that iSmallNet took over, with
biases in the 3×3 convolutions.

Departures from the official code: grey by default, with the constants of our train lists; any size by
reflection, where the official code resizes to 256; the heads of deep supervision are not run in evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from ismallnet.models.encoder import Encoder
from ismallnet.models.layers import (
    IMAGENET,
    OFFICIAL_BLOCK,
    Network,
    ResidualBlock,
    check_choice,
    in_float32,
)
from ismallnet.models.nested import LevelFusion, NestedDecoder
from ismallnet.types import Logits

WIDTHS = (16, 32, 64, 128, 256)
DEPTHS = {"resnet10": (1, 1, 1, 1, 1), "resnet18": (1, 2, 2, 2, 2), "resnet34": (1, 3, 4, 6, 3)}
"""Blocks of each level, in the encoder and in the nodes alike, finest first."""

OFFICIAL_NAMES = (
    (r"^encoder\.levels\.(\d)", r"conv\1_0"),
    (r"^decoder\.nodes\.", "conv"),
    (r"^fuse\.project\.(\d)", r"conv0_\1_1x1"),
    (r"^fuse\.block", "conv0_4_final.0"),
    (r"^auxiliary\.0", "final1"),
    (r"^auxiliary\.1", "final2"),
    (r"^auxiliary\.2", "final3"),
    (r"^head", "final4"),
    *OFFICIAL_BLOCK,
)
"""From our names of the tensors to the official code's, one substitution after another; where ``deep``."""
OFFICIAL_NAMES_SINGLE = (*OFFICIAL_NAMES, (r"^final4", "final"))
"""Likewise, where not."""


class DNANet(Network):
    """The nested decoder, its last diagonal fused, and a 1×1 head on every node of the finest level.

    Args:
        backbone: ``resnet10``, ``resnet18`` or ``resnet34``: the depths, see ``DEPTHS``.
        deep: Also predict from X[0, 1], X[0, 2] and X[0, 3], as ``Logits.auxiliary`` (training only).
        in_channels: 1 for grey; 3 for the official layout, to which a grey image is expanded.
        mean: Of the input by channel, in [0, 1]; None: the train lists' (grey) or ImageNet's.
        std: Likewise.

    Raises:
        ValueError: An option outside its choices.
    """

    multiple = 2 ** (len(WIDTHS) - 1)

    def __init__(
        self,
        *,
        backbone: Literal["resnet10", "resnet18", "resnet34"] = "resnet18",
        deep: bool = True,
        in_channels: int = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(in_channels, mean, std, official=IMAGENET)
        check_choice("backbone", backbone, DEPTHS)
        depths, block = DEPTHS[backbone], partial(ResidualBlock, bias=True)
        self.encoder = Encoder(in_channels, WIDTHS, depths, block)
        self.decoder = NestedDecoder(WIDTHS, wiring="dna", depths=depths[:-1], block=block)
        self.fuse = LevelFusion(
            WIDTHS, WIDTHS[0], block, project_finest=False, align_corners=True, coarsest_first=True
        )
        self.auxiliary = nn.ModuleList(nn.Conv2d(WIDTHS[0], 1, 1) for _ in WIDTHS[2:] if deep)
        self.head = nn.Conv2d(WIDTHS[0], 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.xavier_normal_(module.weight)  # as official; biases as PyTorch makes them

    def forward(self, image: Tensor) -> Logits:
        """Predict the target; in training, where ``deep``, also from X[0, 1], X[0, 2] and X[0, 3].

        Args:
            image: (B, 1, H, W) in [0, 1], grey; with ``in_channels=3`` also (B, 3, H, W). Any H, W.

        Raises:
            ValueError: The shape is another.
        """
        nodes = self.decoder.all_nodes(self.encoder(self.prepare(image)))
        last = len(WIDTHS) - 1
        fused, _ = self.fuse([nodes[i, last - i] for i in range(len(WIDTHS))])
        maps = [in_float32(self.head, fused)]
        if self.training:
            maps += [in_float32(head, nodes[0, j]) for j, head in enumerate(self.auxiliary, start=1)]
        target, *auxiliary = (logits[..., : image.shape[-2], : image.shape[-1]] for logits in maps)
        return Logits(target, auxiliary=tuple(auxiliary))
