"""Named ways of scoring: a number is comparable only with numbers of the same protocol.

"mIoU" means at least four things in this field. Each protocol here fixes all of them: the decision
rule for probabilities, the geometry that is scored, the way images are averaged, the matching of
components, and the empty case. Sources: the public evaluation code of iSmallNet, DNANet, BasicIRSTD
and ACM; see ``docs/metrics.md``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Matching = Literal["bipartite", "greedy"]
Average = Literal["pooled", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Every parameter that an evaluation depends on, stored with every result."""

    name: str
    threshold: float = 0.5
    """A probability is positive strictly above this (a logit of 0 is 0.5)."""
    eight_bit: bool = False
    """A probability is positive when ``round(255 * score) != 0`` (half to even: above 0.5/255)."""
    average: Average = "pooled"
    """Headline IoU, precision and recall: from pooled pixel counts, or the mean over images."""
    empty: float = 1.0
    """nIoU of an image without predicted and true pixels."""
    matching: Matching = "bipartite"
    """``bipartite``: most pairs, then least total distance. ``greedy``: each true component in label
    order takes the first free prediction in label order."""
    distance_px: float = 3.0
    """Centroids match strictly below this distance."""
    size: tuple[int, int] | None = None
    """(H, W): image (bilinear with antialiasing, as PIL) and mask (nearest) are resized to it and
    scored there; None: native."""
    input_sizes: tuple[tuple[str, tuple[int, int]], ...] = ()
    """(data set, (H, W)): the detector sees the image at this size, and the logits are resized back."""
    pad_multiple: int = 1
    """The image is zero-padded at the bottom and right to this multiple, the score cropped back."""
    split: str | None = None
    """Folder of the split lists the protocol belongs to; None: any."""

    def input_size(self, data: str) -> tuple[int, int] | None:
        """(H, W) at which the detector sees the images of the data set; None: as they are."""
        return dict(self.input_sizes).get(data)

    def parameters(self) -> dict[str, object]:
        """All parameters, ready for JSON."""
        return asdict(self)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="standard"),
        Protocol(
            name="ismallnet",
            threshold=0.5 / 255,
            eight_bit=True,
            average="image",
            empty=0.0,
            input_sizes=(("NUAA-SIRST", (352, 352)),),
        ),
        Protocol(name="dnanet", size=(256, 256), matching="greedy"),
        Protocol(name="basicirstd", pad_multiple=32, matching="greedy"),
        Protocol(name="acm", size=(512, 512), split="idx_427"),
    )
}


def get_protocol(protocol: str | Protocol) -> Protocol:
    """Look a protocol up by name; a `Protocol` passes through.

    Raises:
        ValueError: the name is not in `PROTOCOLS`.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]
