"""Who takes part: filters and networks with weights, each scoring an image once a geometry."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ismallnet.benchmark.published import published
from ismallnet.benchmark.seeds import name_of
from ismallnet.catalogue import NoWeightsError, find_weights
from ismallnet.checkpoint import CONFIG
from ismallnet.detector import Detector, load
from ismallnet.filters import NotCalibratedError, calibration_of, list_filters
from ismallnet.models import describe, list_models
from ismallnet.plugins import PluginError
from ismallnet.rules import Rule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from ismallnet.data import Dataset

SIDE = 256
"""Height and width, in pixels, of the image that multiply-adds are counted for."""
NO_WEIGHTS = "no weights"
FIXED = "fixed, not calibrated"


@dataclass(frozen=True, slots=True)
class Missing:
    """A detector that cannot take part on a data set."""

    name: str
    data: str
    reason: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a table says of a detector beside its rates; None where it does not apply."""

    calibrated: str
    """Where its k or threshold comes from."""
    network: str | None = None
    """Its name and the options beyond what that means, such as ``acm(stem=stride4)``."""
    parameters: int | None = None
    macs: int | None = None
    """Multiply-adds for an image of `SIDE` × `SIDE` pixels."""
    trained_on: str | None = None
    training_seed: int | None = None


class Remembering:
    """A detector that scores an image once a geometry, however many protocols ask; it keeps every map."""

    def __init__(self, detector: Detector) -> None:
        self.name: str = detector.name
        self.rule: Rule = detector.rule
        self.weights_sha256 = detector.weights_sha256
        self._detector = detector
        self._maps: dict[tuple[object, ...], NDArray[np.float32]] = {}
        self._seconds: dict[tuple[int, int] | None, list[float]] = {}

    def score(
        self, image: NDArray[np.float32], *, input_size: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """(H, W) score map, from memory where the same pixels were scored at the same size before."""
        key = hashlib.sha256(image.tobytes()).digest(), image.shape, input_size
        if key not in self._maps:
            start = time.perf_counter()
            self._maps[key] = self._detector.score(image, input_size=input_size)
            self._seconds.setdefault(input_size, []).append(time.perf_counter() - start)
        return self._maps[key]

    def milliseconds(self, input_size: tuple[int, int] | None) -> float:
        """Median wall-clock time of an image in a geometry that was scored."""
        return 1000 * statistics.median(self._seconds[input_size])


def list_entrants(names: Sequence[str] | None, weights: Mapping[str, str]) -> list[str]:
    """Return the names that take part: those given, else all there are in the paper's order; then of weights.

    Args:
        names: Names, or folders of weights; all filters and networks where None.
        weights: By NAME, or by NAME:DATA for one data set, the folder of weights that takes the name's part.

    Raises:
        ValueError: A name is given twice.
    """
    if names is None:
        every = [*(row.detector for row in published()), *list_filters(), *list_models()]
        names = list(dict.fromkeys(every))
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{min(twice)} is given twice; a detector has one row a data set and protocol")
    return list(dict.fromkeys([*names, *(key.partition(":")[0] for key in weights)]))


def by_seed(name: str, folders: Sequence[str]) -> dict[str, str]:
    """Name several folders of weights of one detector by the seeds of their training.

    Args:
        name: What the detector is called, with ``:DATA`` where it takes part on one data set only.
        folders: Model folders or runs' folders.

    Returns:
        The folders by NAME, or NAME:DATA, each with its seed (`seeds.name_of`).

    Raises:
        ValueError: Weights without a seed, or two with the same.
        FileNotFoundError: A folder without weights.
    """
    own, colon, data = name.partition(":")
    found: dict[str, str] = {}
    for folder in folders:
        config = json.loads((find_weights(folder) / CONFIG).read_text("utf-8"))
        seed = _training_seed(config)
        if seed is None:
            raise ValueError(f"{folder} does not say by which seed it was trained; give it a name of its own")
        key = f"{name_of(own, seed)}{colon}{data}"
        if key in found:
            raise ValueError(f"{folder} and {found[key]} are both of seed {seed}; give each seed once")
        found[key] = folder
    return found


def enter(
    names: Sequence[str], data: str, weights: Mapping[str, str], *, device: str = "auto"
) -> tuple[dict[str, Detector], list[Missing]]:
    """Load the detectors that take part on a data set, and say of the others why they do not.

    Raises:
        FileNotFoundError: Neither a known name nor a folder with weights.
        ValueError: Damaged weights, or a device that is not here.
    """
    elsewhere = {key.partition(":")[0] for key in weights} - {*list_models(), *list_filters()}
    ready: dict[str, Detector] = {}
    missing = []
    for name in names:
        source = weights.get(f"{name}:{data}", weights.get(name, name))
        if source == name and name in elsewhere:
            missing.append(
                Missing(name, data, f"{NO_WEIGHTS} for {data}: give --weights {name}:{data}=FOLDER")
            )
            continue
        try:
            ready[name] = load(source, device=device)
        except NoWeightsError as error:
            if any(key.startswith(name_of(name, "")) for key in weights):
                continue  # its seeds take part
            missing.append(_untrained(name, data, error))
        except (NotCalibratedError, PluginError) as error:
            missing.append(Missing(name, data, str(error)))
    return ready, missing


def untrained(names: Sequence[str], data: str, weights: Mapping[str, str]) -> list[Missing]:
    """Say which networks could not take part on a data set for want of weights; nothing is loaded."""
    missing = []
    for name in names:
        try:
            if name not in list_filters():
                find_weights(weights.get(f"{name}:{data}", weights.get(name, name)))
        except NoWeightsError as error:
            if not any(key.startswith(name_of(name, "")) for key in weights):
                missing.append(_untrained(name, data, error))
    return missing


def _untrained(name: str, data: str, error: NoWeightsError) -> Missing:
    command = str(error).rpartition(": ")[2]  # its text ends in it
    return Missing(name, data, f"{NO_WEIGHTS}: train with {command}")


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """Return the first ``limit`` images of a data set under a name that says so; all where None.

    Raises:
        ValueError: A limit below 1.
    """
    if limit is None:
        return dataset
    if limit < 1:
        raise ValueError(f"limit is a number of images, 1 or more; got {limit}")
    ids = dataset.ids[:limit]  # the split stays last in the name, where a test list is known by it
    return dataset.subset(ids, split=f"first {len(ids)} of {len(dataset)}/{dataset.split}")


def facts(detector: Detector) -> Facts:
    """Return what a table says of a detector beside its rates."""
    if detector.folder is None:
        return Facts(calibrated=calibration_of(detector.name))
    from ismallnet.checkpoint import load_model

    model, saved = load_model(detector.folder)
    lists = (f"{each['name']} {each['split']}" for each in saved.metadata.get("data", []))
    return Facts(
        calibrated=FIXED,
        network=describe(saved.name, saved.options),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=multiply_adds(model),
        trained_on=" + ".join(lists) or None,
        training_seed=_training_seed(saved.metadata),
    )


def _training_seed(metadata: Mapping[str, Any]) -> int | None:
    seed: int | None = metadata.get("recipe", {}).get("training", {}).get("seed")
    return seed


def multiply_adds(model: nn.Module) -> int:
    """Return the multiply-adds of a network, in evaluation mode, for an image of `SIDE` × `SIDE` pixels."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, SIDE, SIDE))
    macs: int = counter.get_total_flops() // 2
    return macs
