"""Graphs made once for given weights and kept, so that `detect` need not wait for PyTorch again.

A graph is an artefact of `ismallnet.export` in the user's cache (below `XDG_CACHE_HOME`, or `~/.cache`). Its
name is made of all that it depends on: weights, their configuration, versions, the sources of the networks
and of the export, and the machine, where each runtime was compared with PyTorch. Deleting it costs seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ismallnet.checkpoint import CONFIG, file_sha256, load_model, weights_sha256
from ismallnet.openvino_cpu import require_bf16
from ismallnet.runtimes import (
    MANY,
    RUNTIMES,
    SIDECAR,
    RuntimeName,
    by_speed,
    is_installed,
)

_SOURCES = Path(__file__).parents[1]


def graph_of(
    weights: Path, *, runtime: RuntimeName | None, bf16: bool, images: int
) -> tuple[Path, RuntimeName] | None:
    """Return a graph of a model folder, and what runs it; made where it is worth it.

    Args:
        weights: The model folder.
        runtime: `onnxruntime` or `openvino`: the graph is made if there is none. None: the one that is
            soonest done with so many images, of those that gave PyTorch's scores on this machine; a graph is
            made from `runtimes.MANY` images on, and not where PyTorch has an accelerator.
        bf16: Compute in bfloat16.
        images: How many are to be scored.

    Returns:
        The artefact's folder and the runtime; None, without a runtime given, where PyTorch is to do it.

    Raises:
        ImportError: The runtime, or what writes its graph, is not installed.
        OSError: The cache cannot be written, and a runtime is given.
        ValueError: The runtime given does not give PyTorch's scores here, or the processor has no bfloat16.
    """
    wanted = [name for name in by_speed(images) if name != "torch"] if runtime is None else [runtime]
    needed = [name for name in wanted if is_installed(name) and (not bf16 or name == "openvino")]
    if runtime is not None:
        _require(runtime, bf16)
    elif images >= MANY and _accelerated():
        return None
    place = _place(weights)
    labels = {name: f"{name} bf16" if bf16 else name for name in needed}
    if not needed:
        return None
    if not set(labels.values()) <= _verdicts(place).keys():
        if runtime is None and (images < MANY or not is_installed_writer()):
            return None
        try:
            _make(weights, place)
        except Exception:  # PyTorch can do it, whatever goes wrong
            if runtime is not None:
                raise
            return None
    verdicts = _verdicts(place)
    for name, label in labels.items():
        if "refused" not in verdicts[label]:
            return place, name
    if runtime is None:
        return None
    why = verdicts[labels[runtime]]["refused"]
    raise ValueError(
        f"{runtime} does not give the scores of PyTorch on this machine ({why}); choose --runtime torch"
    )


def is_installed_writer() -> bool:
    """Whether a graph can be written here."""
    from importlib.util import find_spec

    return find_spec("onnx") is not None


def _require(runtime: RuntimeName, bf16: bool) -> None:
    row = RUNTIMES[runtime]
    if not is_installed(runtime) or not is_installed_writer():
        extras = ",".join(dict.fromkeys(("export", row.extra)))
        raise ImportError(f"{runtime} or onnx is not installed; pip install 'ismallnet[{extras}]'")
    if bf16 and runtime != "openvino":
        raise ValueError(f"bf16 is for openvino and torch; {runtime} has none on a CPU")
    if bf16:
        require_bf16()


def _place(weights: Path) -> Path:
    """Return the folder of the graph of these weights, there or not."""
    plugin = json.loads((weights / CONFIG).read_text("utf-8")).get("plugin")
    packages = ("ismallnet", "torch", "onnx", "onnxruntime", "openvino", *([plugin] if plugin else []))
    parts = [platform.node(), platform.machine(), *map(_version, packages)]
    parts += [weights_sha256(weights), file_sha256(weights / CONFIG)]
    sources = [*_SOURCES.glob("models/*.py"), *_SOURCES.glob("export/*.py")]
    sources += [_SOURCES / "runtimes.py", _SOURCES / "openvino_cpu.py"]
    parts += [file_sha256(path) for path in sorted(sources)]
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ismallnet" / "graphs" / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _verdicts(place: Path) -> dict[str, Any]:
    """Return what came of the comparisons with PyTorch, as `export.compare` has it; none: no key."""
    sidecar = place / SIDECAR
    return dict(json.loads(sidecar.read_text("utf-8"))["differences"]) if sidecar.is_file() else {}


def _make(weights: Path, place: Path) -> None:
    """Write the graph, compare every installed runtime, publish it whole; another process may be first.

    Of a network that cannot be written there is that verdict alone, so that it is not tried at every run.
    """
    from ismallnet.export import compare, describe, write

    model, saved = load_model(weights)
    artefact = describe(model, saved.name, weights_sha256(weights))
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=place.parent) as scratch:
        made = Path(scratch) / place.name
        made.mkdir()
        try:
            write(artefact, model, made)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # whatever the exporters of a network raise
            verdict = {"refused": f"it cannot be written as a graph: {error}"}
            found: dict[str, Any] = dict.fromkeys((*RUNTIMES, "openvino bf16"), verdict)
        else:
            found = compare(artefact, made, model, strict=False)
        (made / SIDECAR).write_text(replace(artefact, differences=found).to_json(), encoding="utf-8")
        if place.exists():  # of fewer runtimes: one was installed since
            place.rename(Path(scratch) / "old")
        try:
            made.rename(place)
        except OSError:
            if not (place / SIDECAR).is_file():
                raise


def _accelerated() -> bool:
    import torch

    return torch.accelerator.current_accelerator(check_available=True) is not None
