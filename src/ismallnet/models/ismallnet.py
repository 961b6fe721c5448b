"""iSmallNet (Hu et al., 2023): two encoders, nested decoders, interior and boundary streams, fusion.

An image goes through one or two encoders; each stream refines its features in a nested decoder
(MNIM) and predicts its own map; the fusion stream (IBFM) joins the streams level by level and
predicts the target. Built after the official code; where the paper's text differs, an option says so:

* the text has ResNet-18 encoders whose first feature is at half resolution (``encoder="resnet18"``),
  the code five levels of Res-CBAM blocks from full resolution on (``encoder="cbam"``);
* Eq. 2 halves by max-pooling (``down="max"``), the code bilinearly (``down="bilinear"``);
* the text adds the streams to the global features (``fusion="add"``), the code concatenates;
* the code uses one 1×1 convolution for the two finest levels and leaves another unused
  (``official=True``); by default every level has its own, and every parameter a gradient.

The order in which levels are concatenated is ours, finest first; the code's is coarsest first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ismallnet.models.encoder import RESNET18_DEPTHS, Encoder, ResNet18
from ismallnet.models.layers import (
    OFFICIAL_BLOCK,
    Constants,
    MergeBlock,
    Network,
    ResidualBlock,
    check_choice,
    in_float32,
    initialise,
    resize,
    set_prior,
)
from ismallnet.models.nested import Down, LevelFusion, NestedDecoder, WiringName
from ismallnet.types import Logits

Streams = Literal["both", "interior", "boundary", "none", "unsupervised"]
STREAMS: dict[str, tuple[str, ...]] = {
    "both": ("interior", "boundary"),
    "interior": ("interior",),
    "boundary": ("boundary",),
    "none": ("target",),
    "unsupervised": ("first", "second"),
}
"""The streams that are built; interior and boundary are supervised by their own label maps."""

OFFICIAL: Constants = (
    (124.55 / 255, 118.90 / 255, 102.94 / 255),
    (56.77 / 255, 55.97 / 255, 57.50 / 255),
)
"""The official code's three-channel constants (those of the DUTS saliency data set)."""
OFFICIAL_NAMES = (
    (r"^encoders\.0\.levels\.(\d)", r"bbkbone.conv\1_0"),
    (r"^encoders\.1\.levels\.(\d)", r"dbkbone.conv\1_0"),
    (r"^decoders\.0\.nodes\.", "decoderb1.conv"),
    (r"^decoders\.1\.nodes\.", "decoderd1.conv"),
    (r"^finals\.0\.project\.(\d)", r"decoderb2.conv0_\1_1x1"),
    (r"^finals\.1\.project\.(\d)", r"decoderd2.conv0_\1_1x1"),
    (r"^finals\.0\.block", "decoderb2.conv0_4_final.0"),
    (r"^finals\.1\.block", "decoderd2.conv0_4_final.0"),
    (r"^fuse\.project\.(\d)", r"decoder3.conv\1_1x1"),  # conv0_1x1 is the one that is never used
    (r"^fuse\.block", "decoder3.conv_final.0"),
    (r"^heads\.interior\.predict", "linearb"),
    (r"^heads\.boundary\.predict", "lineard"),
    (r"^heads\.target\.body", "linear"),
    (r"^heads\.target\.predict", "linear.3"),
    *OFFICIAL_BLOCK,
)
"""From our names of the tensors, where ``official``, to that code's, one substitution after another."""
OFFICIAL_REVERSED = r"^(finals\.\d|fuse)\.block\.(conv1|shortcut\.0)\.weight$"
"""Our names of the convolutions that read all levels at once: coarsest first in the official code."""


class Head(nn.Module):
    """Features at 1/``stride`` of the image to one logit a pixel, by a 3×3 convolution.

    Args:
        width: Channels of the features.
        stride: Side of the square of pixels that each feature stands for.
        shuffle: Predict the stride × stride pixels under each feature; else one, interpolated bilinearly.
        hidden: Channels of another 3×3 convolution before, with batch norm and ReLU; None: there is none.
    """

    def __init__(self, width: int, stride: int, *, shuffle: bool, hidden: int | None = None) -> None:
        super().__init__()
        self.body: nn.Module = nn.Identity()
        if hidden is not None:
            self.body = nn.Sequential(nn.Conv2d(width, hidden, 3, 1, 1), nn.BatchNorm2d(hidden), nn.ReLU())
        self.predict = nn.Conv2d(hidden or width, stride**2 if shuffle else 1, 3, 1, 1)
        self.stride, self.shuffle = stride, shuffle

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to (B, 1, H · stride, W · stride)."""
        logits = in_float32(self.predict, self.body(x))
        if self.shuffle:
            return F.pixel_shuffle(logits, self.stride)
        return resize(logits, [n * self.stride for n in logits.shape[-2:]])


class DetailHead(nn.Module):
    """Features at 1/``stride`` of the image to one logit a pixel, with a look at the image itself.

    The features are unfolded to full resolution (a 1×1 convolution, pixel shuffle, batch norm, ReLU), joined
    with those of a residual block on the image, merged by a ``MergeBlock``, and predicted from. Every layer
    at full resolution has ``width`` channels.

    Args:
        inputs: Channels of the features.
        width: Channels at full resolution.
        stride: Side of the square of pixels that each feature stands for.
        in_channels: Channels of the image.
    """

    def __init__(self, inputs: int, width: int, *, stride: int, in_channels: int) -> None:
        super().__init__()
        self.stride = stride
        self.image = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            ResidualBlock(width, width, attention=False),
        )
        self.unfold = nn.Conv2d(inputs, width * stride**2, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.merge = MergeBlock(2 * width, width)
        self.predict = nn.Conv2d(width, 1, 3, 1, 1)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Map (B, inputs, H / stride, W / stride) and the normalised image (B, C, H, W) to (B, 1, H, W)."""
        fine = F.relu(self.norm(F.pixel_shuffle(self.unfold(x), self.stride)))
        return in_float32(self.predict, self.merge(torch.cat([fine, self.image(image)], 1)))


class ISmallNet(Network):
    """The three-stream network and, by its options, its ablations.

    Args:
        in_channels: 1 for grey; 3 for the official layout, to which a grey image is expanded.
        widths: Channels of each level, finest first.
        depths: Blocks of each encoder level; ``resnet18`` has its own, which are these by default.
        decoder_depths: Blocks of a decoder node on each level but the coarsest.
        wiring: A name in ``ismallnet.models.nested.WIRINGS``.
        streams: ``both``; one of ``interior``, ``boundary``; ``none``: one stream, no fusion stream, the
            target only (the paper's "w/o interior/boundary stream"); ``unsupervised``: both are
            built, neither has its own supervision.
        encoder: ``cbam`` (official), ``resnet18`` (the text), ``plain`` (residual blocks, no attention).
        share: What the streams have in common: ``nothing`` (official), the ``encoder``, or the ``decoder``
            as well, so that they part where their levels are fused.
        patch: Side of the square of pixels that is folded into the channels before the encoder and
            unfolded by the heads: 2 runs the network at half resolution and loses no pixel.
        detail: Channels of the target's head at full resolution, which also sees the image (``DetailHead``);
            0: the target has a head like the streams'. Needs a patch above 1 and a fusion stream.
        fusion: ``concat`` (official) or ``add`` (the text).
        fusion_width: Channels of the projected levels; ``widths[0]`` where None.
        down: ``bilinear`` (official) or ``max`` (Eq. 2) for the links from the level above.
        align_corners: Of the decoders' bilinear up-sampling. True (official) shifts coarse features against
            fine ones by up to half a coarse pixel, depending on where they lie in the image; False nowhere.
        deep: Also predict the target from each fused level, as ``Logits.auxiliary`` (training only).
        prior: Probability of a target that the biases of the heads start from, 0 to 1 exclusive; None: one
            half, as official.
        official: Reproduce the official code's projection mix-up, dead parameters included.
        mean: Of the input by channel, in [0, 1]; None: the train lists' (grey) or the official ones.
        std: Likewise.

    Raises:
        ValueError: An option outside its choices, or lengths that do not match.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 128, 256),
        depths: Sequence[int] = (1, 2, 2, 2, 2),
        decoder_depths: Sequence[int] = (1, 2, 2, 2),
        wiring: WiringName = "mnim",
        streams: Streams = "both",
        encoder: Literal["cbam", "resnet18", "plain"] = "cbam",
        share: Literal["nothing", "encoder", "decoder"] = "nothing",
        patch: int = 1,
        detail: int = 0,
        fusion: Literal["concat", "add"] = "concat",
        fusion_width: int | None = None,
        down: Down = "bilinear",
        align_corners: bool = True,
        deep: bool = False,
        prior: float | None = None,
        official: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(in_channels, mean, std, official=OFFICIAL)
        for option, value, accepted in (
            ("streams", streams, STREAMS),
            ("encoder", encoder, ("cbam", "resnet18", "plain")),
            ("share", share, ("nothing", "encoder", "decoder")),
            ("fusion", fusion, ("concat", "add")),
        ):
            check_choice(option, value, accepted)
        _check_levels(widths, depths, decoder_depths, encoder=encoder, official=official)
        _check_heads(patch=patch, detail=detail, streams=streams)
        self.streams, self.fusion, self.patch = STREAMS[streams], fusion, patch
        plain = partial(ResidualBlock, attention=False)
        block: Callable[[int, int], nn.Module] = ResidualBlock if encoder == "cbam" else plain
        node: Callable[[int, int], nn.Module] = MergeBlock if encoder == "plain" else block
        width = widths[0] if fusion_width is None else fusion_width
        inputs = in_channels * patch**2
        self.encoders = nn.ModuleList(
            ResNet18(inputs, widths) if encoder == "resnet18" else Encoder(inputs, widths, depths, block)
            for _ in range(1 if share != "nothing" else len(self.streams))
        )
        self.decoders = nn.ModuleList(
            NestedDecoder(
                widths,
                wiring=wiring,
                depths=decoder_depths,
                block=node,
                down=down,
                align_corners=align_corners,
            )
            for _ in range(1 if share == "decoder" else len(self.streams))
        )
        self.finals = nn.ModuleList(
            LevelFusion(widths, width, node, project_finest=width != widths[0]) for _ in self.streams
        )
        stride = (ResNet18 if encoder == "resnet18" else Encoder).stride * patch
        head = partial(Head, stride=stride, shuffle=patch > 1)
        self.heads = nn.ModuleDict(
            {s: head(width) for s in self.streams if s in ("interior", "boundary", "target")}
        )
        fused = [width * len(self.streams)] * len(widths)
        if streams != "none":
            self.fuse = LevelFusion(fused, width, node, project_finest=True, official=official)
            joined = width * (1 + len(self.streams)) if fusion == "concat" else width
            self.heads["target"] = (
                DetailHead(joined, detail, stride=stride, in_channels=in_channels)
                if detail
                else head(joined, hidden=width)
            )
        self.auxiliary = nn.ModuleList(head(width) for _ in widths) if deep else None
        self.fusing: nn.Module | None = None  # what does the work of `fuse_levels` in the inference form
        self.multiple = stride * 2 ** (len(widths) - 1)
        initialise(self)
        if prior is not None:
            for module in self.modules():
                if isinstance(module, Head | DetailHead):
                    set_prior(module.predict, prior)

    def forward(self, image: Tensor) -> Logits:
        """Predict the target and, with these streams, the interior and boundary maps.

        Args:
            image: (B, 1, H, W) in [0, 1], grey; with ``in_channels=3`` also (B, 3, H, W). Any H, W.

        Raises:
            ValueError: The shape is another.
        """
        full = self.prepare(image)
        x = F.pixel_unshuffle(full, self.patch) if self.patch > 1 else full
        features = [encoder(x) for encoder in self.encoders]
        features *= len(self.decoders) // len(features)
        nodes = [decoder(levels) for decoder, levels in zip(self.decoders, features, strict=True)]
        nodes *= len(self.finals) // len(nodes)
        finals, fused = (self.fusing or self.fuse_levels)(nodes)
        maps = {s: self.heads[s](f) for s, f in zip(self.streams, finals, strict=False) if s in self.heads}
        if "target" not in maps:
            joined = torch.cat(finals, 1) if self.fusion == "concat" else torch.stack(finals).sum(0)
            head = self.heads["target"]
            maps["target"] = head(joined, full) if isinstance(head, DetailHead) else head(joined)
        extra: list[Tensor] = []
        if self.auxiliary is not None and self.training:
            extra = [head(level) for head, level in zip(self.auxiliary, fused, strict=True)]
        crop = (..., slice(image.shape[-2]), slice(image.shape[-1]))
        return Logits(
            maps["target"][crop],
            maps["interior"][crop] if "interior" in maps else None,
            maps["boundary"][crop] if "boundary" in maps else None,
            tuple(logits[crop] for logits in extra),
        )

    def fuse_levels(self, nodes: Sequence[Sequence[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        """Fuse the levels of each stream and, where there is a fusion stream, those of all streams.

        Args:
            nodes: By stream, [(B, widths[i], H / 2**i, W / 2**i)].

        Returns:
            (B, width, H, W) of each stream, then of the fusion stream; the projected levels of the last.
        """
        pairs = [fuse(levels) for fuse, levels in zip(self.finals, nodes, strict=True)]
        finals, projected = [final for final, _ in pairs], [levels for _, levels in pairs]
        if "target" in self.streams:
            return finals, projected[0]
        final, fused = self.fuse([torch.cat(level, 1) for level in zip(*projected, strict=True)])
        return [*finals, final], fused


def _check_levels(
    widths: Sequence[int],
    depths: Sequence[int],
    decoder_depths: Sequence[int],
    *,
    encoder: str,
    official: bool,
) -> None:
    if not len(widths) == len(depths) == len(decoder_depths) + 1:
        raise ValueError(
            f"got {len(widths)} widths, {len(depths)} depths and {len(decoder_depths)} decoder depths; "
            "give one width and depth a level and one decoder depth for each level but the coarsest"
        )
    if encoder == "resnet18" and tuple(depths) != RESNET18_DEPTHS[: len(depths)]:
        raise ValueError(f"got depths {tuple(depths)}; ResNet-18 has {RESNET18_DEPTHS}, leave them out")
    if official and len(widths) != 5:
        raise ValueError(f"official=True reproduces five levels; got {len(widths)} widths")


def _check_heads(*, patch: int, detail: int, streams: str) -> None:
    if patch < 1 or detail < 0:
        raise ValueError(f"got patch={patch}, detail={detail}; give at least 1 (off) and at least 0 (off)")
    if detail and (patch == 1 or streams == "none"):
        raise ValueError(
            f"detail={detail} refines folded streams; it needs patch > 1 and streams other than none"
        )
