"""The networks, by name: an explicit table, no reflection; entry points of other packages add to it."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ismallnet import plugins
from ismallnet.models.acm import ACMNet
from ismallnet.models.alcnet import ALCNet
from ismallnet.models.dnanet import DNANet
from ismallnet.models.ismallnet import ISmallNet
from ismallnet.models.mdvsfa import MDvsFA
from ismallnet.models.tbcnet import TBCNet


@dataclass(frozen=True)
class Entry:
    """A row of ``MODELS``."""

    build: Callable[..., nn.Module]
    summary: str
    recipe: str
    """The recipe that trains it, as the command line takes it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What this name means beyond the defaults of ``build``; JSON values, stored with the weights."""


_PAPER = "recipes/paper-nuaa.yaml"
_COMPACT: dict[str, Any] = {
    "encoder": "plain",
    "share": "decoder",
    "patch": 2,
    "detail": 16,
    "widths": (32, 48, 96, 128, 128),
    "depths": (1, 1, 1, 1, 1),
    "decoder_depths": (1, 1, 1, 1),
    "wiring": "unet",
    "fusion_width": 16,
    "prior": 0.01,
    "down": "max",
    "align_corners": False,
}
_TEXT: dict[str, Any] = {
    "encoder": "resnet18",
    "widths": (64, 64, 128, 256, 512),
    "down": "max",
    "fusion": "add",
}

MODELS: dict[str, Entry] = {
    "ismallnet": Entry(ISmallNet, "iSmallNet as the official code builds it", _PAPER),
    "ismallnet-unet": Entry(ISmallNet, "ablation: U-Net wiring", _PAPER, {"wiring": "unet"}),
    "ismallnet-unet++": Entry(ISmallNet, "ablation: U-Net++ wiring", _PAPER, {"wiring": "unet++"}),
    "ismallnet-dna": Entry(ISmallNet, "ablation: DNANet wiring", _PAPER, {"wiring": "dna"}),
    "ismallnet-single": Entry(
        ISmallNet, "ablation: no interior and boundary streams", _PAPER, {"streams": "none"}
    ),
    "ismallnet-paper": Entry(ISmallNet, "the paper's text read literally", _PAPER, _TEXT),
    "ismallnet-s": Entry(ISmallNet, "our compact network", "recipes/fast-joint.yaml", _COMPACT),
    "tbcnet": Entry(TBCNet, "encoder-decoder under a classifier, Zhao 2020", "recipes/tbcnet-nuaa.yaml"),
    "mdvsfa": Entry(MDvsFA, "misses against false alarms, Wang 2019", "recipes/mdvsfa-nuaa.yaml"),
    "acm": Entry(ACMNet, "asymmetric contextual modulation in a U-Net, Dai 2021", "recipes/acm-nuaa.yaml"),
    "alcnet": Entry(ALCNet, "attentional local contrast, Dai 2021", "recipes/alcnet-nuaa.yaml"),
    "dnanet": Entry(DNANet, "dense nested attention, Li 2022", "recipes/dnanet-nuaa.yaml"),
}


_TABLE = plugins.Table(plugins.MODELS, "model", Entry, MODELS)


def list_models() -> list[str]:
    """Return the names that ``create_model`` takes: ours, then those of plugins, which are not imported.

    Raises:
        ValueError: Names of plugins clash.
    """
    return _TABLE.names()


def all_models() -> dict[str, Entry]:
    """Return the rows of all networks, ours and those of plugins; a broken plugin is warned of and left out.

    Raises:
        ValueError: Names of plugins clash.
    """
    return _TABLE.rows()


def find_model(name: str) -> Entry:
    """Return the row of a network; a plugin is imported here.

    Raises:
        ValueError: No such name, or a plugin that is broken or whose name clashes.
    """
    return _TABLE.find(name)


def distribution_of(name: str) -> str | None:
    """Return the name of the distribution that a network from outside is of; None for one of ours.

    Raises:
        ValueError: Names of plugins clash.
    """
    return _TABLE.distribution(name)


def create_model(name: str, **options: Any) -> nn.Module:
    """Build a network with random weights.

    Args:
        name: One of ``list_models()``.
        **options: Arguments of the network's class, on top of what the name means.

    Returns:
        A module with ``forward(image) -> Logits`` and ``score(image)``.

    Raises:
        ValueError: No such name, or the network has no such option, the nearest is given; or a plugin that is
            broken or whose name clashes.
    """
    entry = find_model(name)
    known = list(inspect.signature(entry.build).parameters)
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown option of {name}: {option!r}; {hint}choose from {', '.join(known)}")
    return entry.build(**{**entry.options, **options})


def describe(name: str, options: Mapping[str, Any]) -> str:
    """Write a network as its name and the options beyond what that means, such as ``acm(stem=stride4)``."""
    meant = json.loads(json.dumps(find_model(name).options))
    own = [f"{key}={value}" for key, value in options.items() if key not in meant or meant[key] != value]
    return f"{name}({', '.join(own)})" if own else name
