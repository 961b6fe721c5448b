"""Recipes: what decides a training run, with its defaults, and how they are read and written."""

from ismallnet.config.files import dump, from_dict, load, nearest, one_line, parser, read, to_dict, to_yaml
from ismallnet.config.recipe import (
    Augment,
    Data,
    Loss,
    MaskOffset,
    Model,
    Objective,
    Optimizer,
    Recipe,
    Schedule,
    Stage,
    Training,
    TrainSet,
    decisive,
)

__all__ = [
    "Augment",
    "Data",
    "Loss",
    "MaskOffset",
    "Model",
    "Objective",
    "Optimizer",
    "Recipe",
    "Schedule",
    "Stage",
    "TrainSet",
    "Training",
    "decisive",
    "dump",
    "from_dict",
    "load",
    "nearest",
    "one_line",
    "parser",
    "read",
    "to_dict",
    "to_yaml",
]
