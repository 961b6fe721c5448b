"""Data sets: public layouts, a user's own folder, packed files; validation folds; synthetic scenes."""

from ismallnet.data.dataset import Dataset
from ismallnet.data.folds import folds, validation_split
from ismallnet.data.sources import load, load_all

__all__ = ["Dataset", "folds", "load", "load_all", "validation_split"]
