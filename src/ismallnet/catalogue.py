"""Which names have trained weights, and the model folder that each stands for."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ismallnet.checkpoint import CONFIG

WEIGHTS = Path(__file__).parent / "weights"
"""The bundled weights, a model folder each."""
VARIABLE = "ISMALLNET_WEIGHTS"
"""The environment variable with a folder of further model folders."""


class NoWeightsError(LookupError):
    """A model that was never trained: it would answer at random."""


def shelves() -> tuple[Path, ...]:
    """Return the folders of model folders, the first first: a name that is in two of them means the first's.

    The weights of the package; `weights/` of a source checkout, where the package is run from one; the folder
    that the environment variable ISMALLNET_WEIGHTS names.
    """
    checkout = Path(__file__).parents[2]
    given = os.environ.get(VARIABLE)
    return (
        WEIGHTS,
        *([checkout / "weights"] if (checkout / "pyproject.toml").is_file() else []),
        *([Path(given)] if given else []),
    )


def list_weights() -> dict[str, Path]:
    """Return every name with weights, sorted within its folder, and the model folder that it stands for.

    Raises:
        FileNotFoundError: ISMALLNET_WEIGHTS names no folder.
    """
    found: dict[str, Path] = {}
    for shelf in shelves():
        if str(shelf) == os.environ.get(VARIABLE) and not shelf.is_dir():
            raise FileNotFoundError(f"{VARIABLE} is {shelf}, which is no folder; name one with model folders")
        for config in sorted(shelf.glob(f"*/{CONFIG}")):
            found.setdefault(config.parent.name, config.parent)
    return found


def find_weights(name_or_folder: str | Path) -> Path:
    """Return the model folder that a name or a folder stands for; see `ismallnet.load` for both.

    Raises:
        NoWeightsError: a known model without weights; the text has the command that trains it.
        FileNotFoundError: neither a known name nor a folder with weights.
    """
    name = str(name_or_folder)
    if (known := list_weights().get(name)) is not None:
        return known  # without the networks, whose import is PyTorch's
    from ismallnet.filters import list_filters
    from ismallnet.models import find_model, list_models

    if name in list_models():
        raise NoWeightsError(
            f"{name} has no trained weights here, and random ones are not run; train it and load its folder: "
            f"ismallnet train {find_model(name).recipe} --model.name {name} --out runs/{name}"
        )
    folder = Path(name_or_folder)
    for candidate in (folder, folder / "best", folder / "last"):
        if (candidate / CONFIG).is_file():
            return candidate
    if folder.is_dir():
        raise FileNotFoundError(
            f"no config.json in {folder} or its folders best and last; give a model's or a run's folder"
        )
    names = list(dict.fromkeys([*list_models(), *list_weights(), *list_filters()]))
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise FileNotFoundError(f"{name} is neither a folder nor a model; {hint}choose from {', '.join(names)}")
