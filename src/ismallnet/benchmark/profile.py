"""Where the time of a network goes, by kind of layer, beside what arithmetic and memory would take alone.

Every operation that PyTorch dispatches is timed, with its multiply-adds and the bytes of what it reads and
writes. The floors are these divided by what this machine does in a large convolution, in float32 and, where
it computes in it, in bfloat16, and in a large copy, measured in the same run. (A matrix product is no
measure: on some processors PyTorch's library for it does a third of what its convolutions do.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ismallnet.benchmark.speed import circumstances, network
from ismallnet.runtimes import has_bf16

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

KINDS: Mapping[str, tuple[str, ...]] = {
    "convolution": ("convolution", "addmm", "mm"),
    "norm": ("batch_norm",),
    "activation": ("relu", "sigmoid", "clamp"),
    "resize": ("upsample", "max_pool", "pixel_shuffle", "pixel_unshuffle"),
    "concat": ("cat", "stack"),
}
"""Kinds of operations, by a part of their names; within an attention module all are ``attention``."""


@dataclass(slots=True)
class Share:
    """What one kind of layer takes."""

    calls: int = 0
    seconds: float = 0.0
    flops: int = 0
    """Additions and multiplications of convolutions; others' are not counted."""
    bytes: int = 0
    """Of the tensors that are read and written; views cost nothing."""


def profile(model: nn.Module, *, side: int = 256, repetitions: int = 10) -> dict[str, Share]:
    """Time a network by kind of layer, an image at a time; the shares are of one image.

    Args:
        model: In evaluation mode.
        side: Height and width of the image.
        repetitions: Over which times are averaged, after one that does not count.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    shares: dict[str, Share] = {}
    inside = [0]

    class Timed(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is not annotated
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            start = time.perf_counter()
            result = func(*args, **(kwargs or {}))
            seconds = time.perf_counter() - start
            if func.is_view:
                return result
            share = shares.setdefault("attention" if inside[0] else _kind(func.__name__), Share())
            share.calls += 1
            share.seconds += seconds
            if func._overloadpacket in flop_registry:
                count = flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
                share.flops += int(count)
            leaves = torch.utils._pytree.tree_leaves((args, kwargs, result))
            share.bytes += sum(x.numel() * x.element_size() for x in leaves if isinstance(x, torch.Tensor))
            return result

    image = torch.rand(1, 1, side, side)
    with torch.no_grad(), _marked(model, inside):
        model(image)
        with Timed():  # type: ignore[no-untyped-call]
            for _ in range(repetitions):
                model(image)
    for share in shares.values():
        share.calls //= repetitions
        share.seconds /= repetitions
        share.flops //= repetitions
        share.bytes //= repetitions
    return dict(sorted(shares.items(), key=lambda item: -item[1].seconds))


class Peaks(NamedTuple):
    """What PyTorch does on this machine in a second."""

    float32: float
    """Operations in a large convolution."""
    bfloat16: float | None
    """None where the processor only emulates it."""
    bytes: float
    """Read and written in a large copy."""


def peaks() -> Peaks:
    """Measure what this machine does in a second."""
    import torch

    channels, side = 128, 128
    long = torch.rand(2**25)
    target = torch.empty_like(long)

    def best(function: Callable[[], object]) -> float:
        times = []
        with torch.inference_mode():
            for _ in range(5):
                start = time.perf_counter()
                function()
                times.append(time.perf_counter() - start)
        return min(times)

    def convolution(kind: torch.dtype) -> float:
        x = torch.rand(1, channels, side, side).to(kind, memory_format=torch.channels_last)
        weights = torch.rand(channels, channels, 3, 3).to(kind, memory_format=torch.channels_last)
        seconds = best(lambda: torch.nn.functional.conv2d(x, weights, padding=1))
        return 2 * 9 * (channels * side) ** 2 / seconds

    return Peaks(
        convolution(torch.float32),
        convolution(torch.bfloat16) if has_bf16("cpu") else None,
        2 * 4 * 2**25 / best(lambda: target.copy_(long)),
    )


def to_markdown(name: str, shares: Mapping[str, Share], peak: Peaks) -> str:
    """Return a table of a network's shares and the floors."""
    total = sum(share.seconds for share in shares.values())
    flops = sum(share.flops for share in shares.values())
    moved = sum(share.bytes for share in shares.values())
    floors = [
        f"{1000 * flops / speed:.1f} ms in {kind} ({speed / 1e9:.0f} GFLOP/s)"
        for kind, speed in (("float32", peak.float32), ("bfloat16", peak.bfloat16))
        if speed is not None
    ]
    lines = [
        f"## {name}",
        "",
        "| layers | calls | ms | share of time | GFLOP | MB read and written |",
        "|---|---|---|---|---|---|",
        *(
            f"| {kind} | {each.calls} | {1000 * each.seconds:.1f} | {100 * each.seconds / total:.0f} % "
            f"| {each.flops / 1e9:.2f} | {each.bytes / 1e6:.0f} |"
            for kind, each in shares.items()
        ),
        "",
        f"All: {1000 * total:.1f} ms. Floor of arithmetic, at the speed of a large convolution: "
        f"{' and '.join(floors)}. Floor of memory: {1000 * moved / peak.bytes:.1f} ms at the "
        f"{peak.bytes / 1e9:.1f} GB/s of a copy.",
    ]
    return "\n".join(lines) + "\n"


def page(names: Sequence[str], *, side: int = 256) -> str:
    """Return a page with the table of each network, plain and in its inference form."""
    from ismallnet.models.inference import inference_form

    peak = peaks()
    parts = [f"# Where the time goes, by eager PyTorch in float32, at 1×{side}×{side}\n"]
    for name in names:
        model, _ = network(name)
        parts.append(to_markdown(name, profile(model, side=side), peak))
        parts.append(to_markdown(f"{name}, inference form", profile(inference_form(model), side=side), peak))
    here = circumstances()
    parts.append("{date}, commit {commit}, {hardware}; {versions}.\n".format(**here))
    return "\n".join(parts)


def _kind(name: str) -> str:
    for kind, parts in KINDS.items():
        if any(part in name for part in parts):
            return kind
    return "other"


@contextmanager
def _marked(model: nn.Module, inside: list[int]) -> Iterator[None]:
    """Count up while a module of attention runs."""
    from ismallnet.models.layers import ChannelAttention, SpatialAttention

    def enter(*_: object) -> None:
        inside[0] += 1

    def leave(*_: object) -> None:
        inside[0] -= 1

    found = [m for m in model.modules() if isinstance(m, ChannelAttention | SpatialAttention)]
    handles = [h for m in found for h in (m.register_forward_pre_hook(enter), m.register_forward_hook(leave))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
