"""Weights of the official iSmallNet and DNANet codes, made a model folder of ours.

What a tensor is called there is a table in the network's own file, ``OFFICIAL_NAMES``. Here are the reading,
the check that no tensor of either side is left over, and the order of the levels where theirs is another.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ismallnet import checkpoint
from ismallnet.models import create_model, dnanet, ismallnet


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """One form in which an official code stores a network."""

    model: str
    """Our name of the network."""
    options: Mapping[str, Any]
    """With which ours has the same layers."""
    names: Sequence[tuple[str, str]]
    """From our names of the tensors to the official ones: pattern and replacement, one after another."""
    reversed: str = r"(?!)"
    """Pattern of our names of the convolutions whose input has the levels in the other order; here none."""

    def official(self, name: str) -> str:
        """Return the official name for ours."""
        for pattern, replacement in self.names:
            name = re.sub(pattern, replacement, name)
        return name


LAYOUTS = (
    Layout(
        "ismallnet",
        {"official": True, "in_channels": 3},
        ismallnet.OFFICIAL_NAMES,
        ismallnet.OFFICIAL_REVERSED,
    ),
    *(
        Layout("dnanet", {"backbone": backbone, "deep": deep, "in_channels": 3}, names)
        for backbone in ("resnet18", "resnet10", "resnet34")
        for deep, names in ((True, dnanet.OFFICIAL_NAMES), (False, dnanet.OFFICIAL_NAMES_SINGLE))
    ),
)
SOURCES = {
    "ismallnet": "github.com/huzhihen/iSmallNet",
    "dnanet": "github.com/YeRen123455/Infrared-Small-Target-Detection",
}
"""Where each network's official code is."""
_OURS = ("mean", "std")
"""Tensors that only our networks have."""
_COUNTER = "num_batches_tracked"
"""Of a batch norm; older files lack it, and nothing is computed with it."""
_LEVELS = 5
_SHOWN = 4
"""Names that an error lists."""


def convert(weights: str | Path, out: str | Path, *, model: str, force: bool = False) -> checkpoint.Saved:
    """Write a model folder from a file of official weights.

    Args:
        weights: The file, see ``read_weights``.
        out: The folder, for ``ismallnet.load``. The network in it has three channels and the official mean
            and standard deviation; its metadata has the file's name and sha256, the layout and the date.
        model: ``ismallnet`` or ``dnanet``.
        force: Overwrite the folder.

    Raises:
        FileExistsError: The folder holds something, and no ``force``.
        FileNotFoundError: No such file.
        ValueError: Another model, a file that cannot be read, or weights of another network.
    """
    weights, out = Path(weights), Path(out)
    checkpoint.check_out(out, force=force)
    try:
        network, layout = from_official(read_weights(weights), model)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from error
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    origin = {"file": weights.name, "sha256": sha256, "layout": SOURCES[model], "date": date}
    saved = checkpoint.Saved(model, layout.options, {"converted": origin})
    checkpoint.save_model(out, network, name=model, options=layout.options, metadata=saved.metadata)
    return saved


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict on to the CPU, without running any code that the file may hold.

    Args:
        path: Written by ``torch.save``, whatever its suffix, or ``.safetensors``. The state dict may stand
            under the key ``state_dict``, and its names may begin with ``module.``, as DataParallel's do.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A damaged file, one with Python objects other than tensors and numbers, or no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; give one of weights, such as model.pth or .safetensors")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"got a {type(content).__name__}; expected tensors by name, a state dict")
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(
            f"expected tensors by name, a state dict, at the top or under 'state_dict'; no tensors are "
            f"{_some(others)}"
        )
    wrapped = all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in content.items()}


def from_official(tensors: Mapping[str, Tensor], model: str) -> tuple[nn.Module, Layout]:
    """Build a network of ours with official weights.

    Args:
        tensors: By official name. Counters of batch norms may be missing.
        model: ``ismallnet`` or ``dnanet``; which depths and heads DNANet has is seen from the names.

    Returns:
        The network, in evaluation mode, and the layout that was met.

    Raises:
        ValueError: Another model, or a tensor missing, left over or of another shape.
    """
    if model not in SOURCES:
        raise ValueError(f"unknown model {model!r}; choose from {', '.join(SOURCES)}")
    layout = max((row for row in LAYOUTS if row.model == model), key=lambda row: _likeness(row, tensors))
    official = _tensors(layout)
    missing = [name for name in official if name not in tensors and not name.endswith(_COUNTER)]
    unexpected = [name for name in tensors if name not in official]
    if missing or unexpected:
        raise ValueError(
            f"these are not the weights of {model}. Missing: {_some(missing)}; "
            f"unexpected: {_some(unexpected)}. {_advice(tensors)}"
        )
    wrong = [
        f"{name} is {tuple(tensors[name].shape)} instead of {shape}"
        for name, (_, shape) in official.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise ValueError(
            f"the names are those of {model}, but {_some(wrong)}; accepted are three input channels and "
            "the official widths, 16 to 256"
        )
    network = create_model(model, **layout.options)
    state = network.state_dict()
    for name, (ours, _) in official.items():
        if name in tensors:
            turn = re.search(layout.reversed, ours)
            state[ours] = _reverse_levels(tensors[name]) if turn else tensors[name]
    network.load_state_dict(state)
    return network.eval(), layout


@cache
def _tensors(layout: Layout) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return our name and the shape of every tensor by its official name."""
    with torch.device("meta"):
        ours = create_model(layout.model, **layout.options).state_dict()
    return {layout.official(name): (name, tuple(ours[name].shape)) for name in ours if name not in _OURS}


def _load_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"truncated, or no safetensors file: {error}") from error


def _load_torch(path: Path) -> Any:
    """Read what ``torch.save`` wrote: tensors, containers, numbers (DNANet's code stores one of NumPy's)."""
    scalar: Any = np.float64(0).__reduce__()[0]  # makes a number of its bytes
    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    old_and_new = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals([np.dtype, *kinds, *old_and_new]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        reason = str(error) or repr(error)
        refused = re.search(r"GLOBAL (\S+)", reason)
        if refused and isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"it holds {refused[1]}, which is no tensor; it is not loaded, since that can run code. If "
                "you trust the file, save its state dict alone: "
                "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'plain.pth')"
            ) from error
        unsafe = "weights_only" in reason  # torch's own advice is to run whatever the file holds
        why = "it is no archive of tensors" if unsafe else reason.splitlines()[0]
        raise ValueError(f"damaged, or no weights saved by torch: {why}") from error


def _likeness(layout: Layout, names: Collection[str]) -> float:
    """Return the share of names that layout and file have in common, of all names of both; 1 for the same."""
    official = {name for name in _tensors(layout) if not name.endswith(_COUNTER)}
    present = {name for name in names if not name.endswith(_COUNTER)}
    return len(official & present) / len(official | present)


def _advice(names: Collection[str]) -> str:
    best = max(LAYOUTS, key=lambda row: _likeness(row, names))
    share = _likeness(best, names)
    accepted = " and ".join(f"{name} ({source})" for name, source in SOURCES.items())
    like = f"{best.model} most: {share:.0%} of the names" if share else "neither"
    return f"Accepted are the official layouts of {accepted}; the file resembles {like}"


def _reverse_levels(weight: Tensor) -> Tensor:
    """Turn round the levels that a convolution reads; weight is (out, levels · channels, height, width)."""
    return torch.cat(weight.chunk(_LEVELS, 1)[::-1], 1)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"
