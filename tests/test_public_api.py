"""What `import ismallnet` offers."""

from __future__ import annotations

import ast
import importlib
from importlib.metadata import version
from pathlib import Path

import pytest

import ismallnet

NAMES = sorted(set(ismallnet.__all__) - {"__version__"})


def test_version_is_that_of_the_distribution() -> None:
    assert ismallnet.__version__ == version("ismallnet")


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(ismallnet, name).__doc__


def test_about_fifteen_names_are_public() -> None:
    assert 10 <= len(NAMES) <= 20


def test_dir_lists_the_public_names() -> None:
    assert set(ismallnet.__all__) <= set(dir(ismallnet))


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="detect_files"):
        ismallnet.detekt  # noqa: B018


def test_type_checkers_see_the_same_names_as_the_interpreter() -> None:
    """The names are imported lazily, so they stand twice in the source: both lists are the same."""
    tree = ast.parse(Path(ismallnet.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == NAMES
    for name, module in seen.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(ismallnet, name)
