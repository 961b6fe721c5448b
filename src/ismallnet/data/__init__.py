"""Data sets: public layouts, a user's own folder, packed files; validation folds; synthetic scenes."""

from ismallnet.data.dataset import Dataset, load
from ismallnet.data.folds import folds, validation_split

__all__ = ["Dataset", "folds", "load", "validation_split"]
