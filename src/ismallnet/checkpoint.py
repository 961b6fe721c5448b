"""Weights and training states on disk: safetensors and JSON, nothing pickled, nothing half-written.

A model folder follows the Hugging Face hub's convention, so it can be shared there: `config.json` and
`model.safetensors`, or shards with `model.safetensors.index.json`. A training state is a folder inside the
run's folder, written under another name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ismallnet.publish import room

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SUMS = "sha256"
"""The key of `config.json` with the SHA-256 of each file of weights, by its name."""
_STATE, _INFO, _TENSORS = "state-", "state.json", "state.safetensors"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_UNFINISHED = ".unfinished-"
_NO_CONFIG = "is no JSON object with 'model' and 'options'"


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
    shard_bytes: int | None = None,
) -> None:
    """Write a model folder; one that is there is replaced file by file, each atomically, the weights first.

    With ``shard_bytes`` it is one to share: its config has the checksums of the weights, so a folder that was
    being replaced when the process was killed is refused by `load_model` until it is written again.

    Args:
        folder: Where; made if it does not exist.
        model: The network.
        name: The name that `create_model` made it by.
        options: The options that `create_model` made it with. What the name means is stored with them, so
            that the weights outlive a change of what it means.
        metadata: JSON values that are stored too; `model`, `options`, `plugin` and `sha256` are taken.
        half: Store parameters in half precision: half the size, read back as float32. Buffers, the
            batch-norm statistics among them, stay as they are: a variance may be beyond half's range.
        shard_bytes: Most bytes of tensors in a file, beside a header of some kilobytes; weights of more are
            sharded. A tensor is never divided: one that is larger has a file to itself. None: one file.

    Raises:
        ValueError: metadata with a key that is taken.
    """
    import torch

    from ismallnet.models import distribution_of, find_model

    taken = {"model", "options", "plugin", SUMS} & set(metadata or {})
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
        _fill(fresh, tensors, config, shard_bytes)
        fresh.rename(folder)
        return
    _fill(folder, tensors, config, shard_bytes)


def _fill(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], shard_bytes: int | None
) -> None:
    """Write the weights, their index where there are several files, the config; drop what they replace."""
    shards = [list(tensors)] if shard_bytes is None else _shards(tensors, shard_bytes)
    count = len(shards)
    names = (
        [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)] if count > 1 else [WEIGHTS]
    )
    for name, keys in zip(names, shards, strict=True):
        _write_tensors(folder / name, {key: tensors[key] for key in keys})
    if count > 1:
        places = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        total = sum(tensor.nbytes for tensor in tensors.values())
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    if shard_bytes is not None:
        config = {**config, SUMS: {name: file_sha256(folder / name) for name in names}}
    _write_json(folder / CONFIG, config)
    stale = {path.name for path in folder.iterdir() if _SHARD.fullmatch(path.name)} | {WEIGHTS, INDEX}
    for name in stale - {*names, *([INDEX] if count > 1 else [])}:
        (folder / name).unlink(missing_ok=True)


def _shards(tensors: Mapping[str, Tensor], most: int) -> list[list[str]]:
    """Divide tensors, in their order, into groups of at most so many bytes, or of one tensor."""
    groups: list[list[str]] = [[]]
    size = 0
    for key, tensor in tensors.items():
        if groups[-1] and size + tensor.nbytes > most:
            groups.append([])
            size = 0
        groups[-1].append(key)
        size += tensor.nbytes
    return groups


def load_model(folder: str | Path) -> tuple[nn.Module, Saved]:
    """Read a model folder.

    Returns:
        The network in float32, on the CPU, in evaluation mode; and what else the folder says.

    Raises:
        FileNotFoundError: the folder has no `config.json`, or lacks a file of weights.
        PluginError: the model's distribution is not installed or broken, or the name is another one's here.
        ValueError: a damaged file, one with another checksum than the config's, or weights that are not those
            of the model that the folder names.
    """
    from ismallnet.models import create_model, distribution_of
    from ismallnet.plugins import PluginError

    folder = Path(folder)
    files = weight_files(folder)
    for name, sum_ in _read_config(folder).get(SUMS, {}).items():
        if file_sha256(folder / name) != sum_:
            raise ValueError(
                f"{folder / name} is damaged or not the file of these weights: its SHA-256 is not that in "
                f"{CONFIG}; get the folder again, or write it again where it was made"
            )
    saved = read_saved(folder)
    here = distribution_of(saved.name)
    if here != saved.plugin:
        owner = "ismallnet" if saved.plugin is None else saved.plugin
        other = "" if here is None else f"; here the name is that of a network of {here}"
        raise PluginError(
            f"{folder} holds weights of {saved.name!r}, a network of the distribution {owner}, which is not "
            f"installed here or no longer has it; install one that has{other}"
        )
    model = create_model(saved.name, **saved.options)
    stored = {key: tensor for path in files for key, tensor in _read_tensors(path).items()}
    tensors = {key: t.float() if t.is_floating_point() else t for key, t in stored.items()}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        what = files[0] if len(files) == 1 else folder
        raise ValueError(f"{what} does not hold the weights of {saved.name!r}: {error}") from None
    return model.eval(), saved


def read_saved(folder: str | Path) -> Saved:
    """Read what a model folder says of its weights; these themselves are not opened.

    Raises:
        FileNotFoundError: the folder has no `config.json`.
        ValueError: it is damaged.
    """
    config = _read_config(Path(folder))
    config.pop(SUMS, None)
    try:
        return Saved(config.pop("model"), config.pop("options"), config, config.pop("plugin", None))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{Path(folder) / CONFIG} {_NO_CONFIG}: {error}") from error


def weight_files(folder: str | Path) -> tuple[Path, ...]:
    """Return the files of a model folder's weights: those that its checksums are of, else one, else shards.

    Raises:
        FileNotFoundError: no model folder, or a file of weights is missing.
        ValueError: a config or an index that is not to be read.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"no {CONFIG} in {folder}; a model folder has {CONFIG} and {WEIGHTS}")
    names = list(_read_config(folder).get(SUMS, {}))
    if not names and (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        try:
            places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(places.values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / INDEX} is no index of shards: {error!r}") from error
    names = names or [WEIGHTS]
    for name in names:
        if Path(name).name != name:
            raise ValueError(
                f"{folder} names the file of weights {name!r}; it has to be in the folder itself"
            )
        if not (folder / name).is_file():
            of = f"a model folder has {CONFIG} and {WEIGHTS}"
            if len(names) > 1:
                of = f"its weights are in {len(names)} files, and all are needed"
            raise FileNotFoundError(f"no {name} in {folder}; {of}")
    return tuple(folder / name for name in names)


def weights_sha256(folder: str | Path) -> str:
    """Return what tells a model folder's weights from others: the SHA-256 of the file of weights.

    Of shards it is that of the lines ``<SHA-256>  <name>`` that ``sha256sum *.safetensors`` writes.

    Raises:
        FileNotFoundError: as `weight_files`.
        ValueError: as `weight_files`.
    """
    files = weight_files(folder)
    if len(files) == 1:
        return file_sha256(files[0])
    lines = "".join(f"{file_sha256(path)}  {path.name}\n" for path in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _read_config(folder: Path) -> dict[str, Any]:
    """Read a config as far as that it is an object, whose checksums are an object too."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config.get(SUMS, {}).items()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG} {_NO_CONFIG}: {error}") from error
    return dict(config)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error


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
        OSError: it cannot be written, as on a full disk.
    """
    check_out(out, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    with room(out), tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
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
