"""Weights and training states on disk: safetensors and JSON, nothing pickled, nothing half-written.

A model folder follows the Hugging Face hub's convention (`config.json`, `model.safetensors`), so it can be
shared there. A training state is a folder inside the run's folder, written under another name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_STATE, _INFO, _TENSORS = "state-", "state.json", "state.safetensors"
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, slots=True)
class Saved:
    """What a model folder says about its weights."""

    name: str
    """Name for `ismallnet.models.create_model`."""
    options: Mapping[str, Any]
    """Options of the model, beyond those its name means."""
    metadata: Mapping[str, Any]
    """Whatever else was stored: recipe, step, data, results."""
    plugin: str | None = None
    """The distribution that the network is of, where it is from outside."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A moment of a run: what it takes to go on as if nothing had happened."""

    step: int
    """Number of steps done."""
    tensors: Mapping[str, Tensor]
    info: Mapping[str, Any]
    """JSON values."""


def save_model(
    folder: str | Path,
    model: nn.Module,
    *,
    name: str,
    options: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a model folder; one that is there is replaced file by file, each atomically, the weights first.

    Args:
        folder: Where; made if it does not exist.
        model: The network.
        name: The name that `create_model` made it by.
        options: The options that `create_model` made it with. What the name means is stored with them, so
            that the weights outlive a change of what it means.
        metadata: JSON values that are stored too; the keys `model`, `options` and `plugin` are taken.
        half: Store parameters in half precision: half the size, read back as float32. Buffers, the
            batch-norm statistics among them, stay as they are: a variance may be beyond half's range.

    Raises:
        ValueError: metadata with a key that is taken.
    """
    import torch

    from ismallnet.models import distribution_of, find_model

    taken = {"model", "options", "plugin"} & set(metadata or {})
    if taken:
        raise ValueError(f"metadata has the key {taken.pop()!r}, which is taken; rename it")
    tensors = model.state_dict()
    if half:
        halved = {key for key, p in model.named_parameters() if p.dtype == torch.float32}
        tensors = {key: t.half() if key in halved else t for key, t in tensors.items()}
    config: dict[str, Any] = {"model": name, "options": {**find_model(name).options, **options}}
    if (plugin := distribution_of(name)) is not None:
        config["plugin"] = plugin
    config |= metadata or {}
    folder = Path(folder)
    if not folder.exists():
        fresh = folder.with_name(f"{_UNFINISHED}{folder.name}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _write_tensors(fresh / WEIGHTS, tensors)
        _write_json(fresh / CONFIG, config)
        fresh.rename(folder)
        return
    _write_tensors(folder / WEIGHTS, tensors)
    _write_json(folder / CONFIG, config)


def load_model(folder: str | Path) -> tuple[nn.Module, Saved]:
    """Read a model folder.

    Returns:
        The network in float32, on the CPU, in evaluation mode; and what else the folder says.

    Raises:
        FileNotFoundError: the folder has no `config.json` or no `model.safetensors`.
        PluginError: the model's distribution is not installed or broken, or the name is another one's here.
        ValueError: a damaged file, or weights that are not those of the model that the folder names.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ismallnet.models import create_model, distribution_of
    from ismallnet.plugins import PluginError

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}; a model folder has {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        saved = Saved(config.pop("model"), config.pop("options"), config, config.pop("plugin", None))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = "is no JSON object with 'model' and 'options'"
        raise ValueError(f"{folder / CONFIG} {what}: {error}") from error
    here = distribution_of(saved.name)
    if here != saved.plugin:
        owner = "ismallnet" if saved.plugin is None else saved.plugin
        other = "" if here is None else f"; here the name is that of a network of {here}"
        raise PluginError(
            f"{folder} holds weights of {saved.name!r}, a network of the distribution {owner}, which is not "
            f"installed here or no longer has it; install one that has{other}"
        )
    model = create_model(saved.name, **saved.options)
    try:
        stored = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is truncated or no safetensors file: {error}") from error
    tensors = {key: t.float() if t.is_floating_point() else t for key, t in stored.items()}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} does not hold the weights of {saved.name!r}: {error}") from None
    return model.eval(), saved


def save_state(run: str | Path, state: State) -> None:
    """Add a state to a run's folder, then drop the older ones: killed at any moment, one whole is left.

    A state of that step that is there already is kept: it is the same.
    """
    run = Path(run)
    final = run / f"{_STATE}{state.step:08d}"
    if final.exists():
        return
    fresh = run / f"{_UNFINISHED}{_STATE}{state.step:08d}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    _write_tensors(fresh / _TENSORS, state.tensors)
    _write_json(fresh / _INFO, {"step": state.step, **state.info})
    fresh.rename(final)
    for other in run.glob(f"{_STATE}*"):
        if other != final:
            shutil.rmtree(other)


def load_state(run: str | Path) -> State | None:
    """The newest state in a run's folder, on the CPU; None where there is none."""
    from safetensors.torch import load_file

    folders = sorted(folder for folder in Path(run).glob(f"{_STATE}*") if (folder / _INFO).is_file())
    if not folders:
        return None
    info = json.loads((folders[-1] / _INFO).read_text(encoding="utf-8"))
    return State(info.pop("step"), load_file(folders[-1] / _TENSORS), info)


def check_out(out: str | Path, *, force: bool) -> None:
    """Refuse a folder to write that holds something, unless forced; an empty one will do.

    Raises:
        FileExistsError: It does, or it is a file.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; choose a folder")
    if not force and out.exists() and any(out.iterdir()):
        raise FileExistsError(
            f"{out} exists and is not empty; choose another, or overwrite what is there with force (--force)"
        )


@contextmanager
def written_whole(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a folder to write into; its files appear in ``out`` at the end, or none after an exception.

    Args:
        out: made where absent.
        force: move the files into an existing folder; other files in it are left alone.

    Raises:
        FileExistsError: the folder holds something and ``force`` is not set.
    """
    check_out(out, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        made = Path(scratch) / out.name
        made.mkdir()
        yield made
        if out.exists():
            for path in sorted(made.iterdir()):
                path.replace(out / path.name)
        else:
            made.rename(out)


def write_text(path: Path, text: str) -> None:
    """Write a file, or replace it: killed at any moment, the old or the new one is there, whole."""
    partial = path.with_name(f"{_UNFINISHED}{path.name}")
    partial.write_text(text, encoding="utf-8")
    _publish(partial, path)


def file_sha256(path: Path) -> str:
    """Return the checksum of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save

    partial = path.with_name(f"{_UNFINISHED}{path.name}")
    partial.write_bytes(save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}))
    _publish(partial, path)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _publish(partial: Path, path: Path) -> None:
    """Force a written file to the disk and give it its name."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
