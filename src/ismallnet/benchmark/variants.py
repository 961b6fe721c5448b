"""What the ablation trains and asks: a network, what is changed of it one thing at a time, in which order."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ismallnet import config

BASE = "base"
RECIPE = Path("recipes/ablation.yaml")
SEEDS = (0, 1, 2)
VARIANTS: Mapping[str, Mapping[str, str]] = {
    BASE: {},
    "none": {"model.options.streams": "none"},
    "unsupervised": {"model.options.streams": "unsupervised"},
    "unet": {"model.options.wiring": "unet"},
    "unet++": {"model.options.wiring": "unet++"},
    "dna": {"model.options.wiring": "dna"},
    "interior": {"model.options.streams": "interior"},
    "boundary": {"model.options.streams": "boundary"},
    "official": {"labels": "official"},
    "ldf": {"labels": "ldf"},
}
"""The base recipe and what each variant has otherwise, those first that answer most."""


@dataclass(frozen=True, slots=True)
class Question:
    """Something the paper claims of its network, as a comparison of the base with variants."""

    name: str
    text: str
    """Answered by yes where the base is better than every one of the variants."""
    variants: tuple[str, ...]


QUESTIONS = (
    Question("MNIM", "Is MNIM better than the other wirings?", ("dna", "unet++", "unet")),
    Question(
        "two streams",
        "Are an interior and a boundary stream better than one of the two, and than none?",
        ("none", "interior", "boundary"),
    ),
    Question(
        "label decoupling",
        "Are two streams with decoupled labels better than the same two without labels of their own?",
        ("unsupervised",),
    ),
    Question(
        "label recipe",
        "Is the label recipe `target` better than the official code's, and than that of LDF?",
        ("official", "ldf"),
    ),
)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One training run of the ablation."""

    variant: str
    seed: int
    overrides: Mapping[str, str]
    recipe: config.Recipe
    sha256: str = field(init=False)
    """Of all in the recipe that decides the weights; see `fingerprint`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", fingerprint(self.recipe))

    @property
    def name(self) -> str:
        """Name of the run's folder: another recipe has another one."""
        return f"{self.variant}-{self.seed}-{self.sha256[:8]}"


def plan(
    recipe: str | Path = RECIPE,
    *,
    root: str | Path = "data",
    variants: Mapping[str, Mapping[str, str]] = VARIANTS,
    seeds: Sequence[int] = SEEDS,
) -> tuple[Run, ...]:
    """Lay out all runs in the order of their value: every variant by the first seed, then by the next.

    Their precision is what `auto` stands for here, so that rows of one table are computed alike.

    Args:
        recipe: File of the recipe that variants change.
        root: The folder that holds the data sets' folders.
        variants: By name, dotted keys of the recipe and their values, as `config.load` takes them.
        seeds: Of every variant.

    Raises:
        FileNotFoundError: no such recipe.
        ValueError: an unknown key or a value out of range; or a recipe without a validation fold, or for
            several devices.
    """
    from ismallnet import devices

    recipes = {
        name: config.load(recipe, overrides={"data.root": str(root), **changed})
        for name, changed in variants.items()
    }
    for each in recipes.values():
        _check(each, recipe)
    settled = {name: devices.settled(each.training) for name, each in recipes.items()}
    return tuple(
        Run(name, seed, changed, replace(recipes[name], training=replace(settled[name], seed=seed)))
        for seed in seeds
        for name, changed in variants.items()
    )


def choose(
    runs: Sequence[Run], *, only: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> tuple[Run, ...]:
    """Return the runs of some variants and some seeds, in the plan's order; None is all.

    Raises:
        ValueError: no such variant or seed in the plan.
    """
    for what, wanted, known in (
        ("variant", only, dict.fromkeys(run.variant for run in runs)),
        ("seed", seeds, dict.fromkeys(run.seed for run in runs)),
    ):
        for each in wanted or ():
            if each not in known:
                hint = config.nearest(str(each), map(str, known))
                raise ValueError(f"unknown {what} {each!r}{hint}; the plan has {', '.join(map(str, known))}")
    return tuple(
        run for run in runs if (only is None or run.variant in only) and (seeds is None or run.seed in seeds)
    )


def fingerprint(recipe: config.Recipe) -> str:
    """Checksum of what a recipe says otherwise than the defaults, and of all options of its network.

    Left out is what does not decide the weights: where the data are, on which device, how often is saved and
    validated. A new key of the recipe with its default changes nothing. A changed default, as any other
    change of the code, is not noticed: rows of a table carry the commit.

    Returns:
        SHA-256 in hexadecimal digits.

    Raises:
        ValueError: the recipe's network is not known.
    """
    from ismallnet.models import find_model

    options = {**find_model(recipe.model.name).options, **recipe.model.options}
    decided = config.decisive(recipe, anywhere=True)
    decided = replace(decided, model=replace(recipe.model, options=options))
    text = json.dumps(_otherwise(decided), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _otherwise(value: Any) -> Any:
    """What differs from the defaults of dataclasses, as plain values."""
    if isinstance(value, tuple | list):
        return [_otherwise(each) for each in value]
    if not dataclasses.is_dataclass(value):
        return value
    found = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return {
        each.name: _otherwise(found[each.name])
        for each in dataclasses.fields(value)
        if found[each.name] != each.default
        and (each.default_factory is dataclasses.MISSING or found[each.name] != each.default_factory())
    }


def _check(recipe: config.Recipe, path: str | Path) -> None:
    if recipe.data.fold is None:
        raise ValueError(f"{path} has no data.fold, and a fold judges the variants; set it to 0 to 4")
    if recipe.training.devices * recipe.training.nodes > 1:
        raise ValueError(
            f"{path} is for {recipe.training.devices * recipe.training.nodes} devices; an ablation's run has "
            "one: set training.devices and training.nodes to 1, and start a process a device"
        )
