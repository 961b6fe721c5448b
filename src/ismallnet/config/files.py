"""Recipes from YAML and JSON, and back.

jsonargparse reads them, and is imported where it is used; PyTorch is not, so the command line is quick.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from argparse import ArgumentError
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from ismallnet.config.recipe import Recipe, require

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def load(path: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from a YAML (or JSON) file.

    Args:
        path: The file; it names what differs from the defaults.
        overrides: Dotted keys and values on top of it, such as `{"optimizer.lr": 0.1}`; text is read as YAML.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown key (the nearest known one is named), a wrong type or a value out of range.
    """
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (overrides or {}).items()}
    return read(path, parser(), [f"--{key}={text}" for key, text in texts.items()])


def read(path: str | Path, keys: ArgumentParser, words: Sequence[str]) -> Recipe:
    """As `load`, with options of a command line, which `keys` knows, on top of the file."""
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no recipe at {path}; the recipes of the project are in recipes/*.yaml")
    try:
        return _build(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, keys, words)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from None


def dump(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe as YAML, every value spelled out; `load` gives it back equal."""
    Path(path).write_text(to_yaml(recipe), encoding="utf-8")


def to_yaml(recipe: Recipe) -> str:
    """The recipe as the text that `dump` writes."""
    import yaml

    text: str = yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)
    return text


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain dicts, lists, numbers and strings, for JSON or YAML."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return plain


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """The recipe that `to_dict` came from; missing keys take their defaults.

    Raises:
        ValueError: an unknown key, a wrong type or a value out of range.
    """
    return _build(values, parser(), ())


def parser(**keywords: Any) -> ArgumentParser:
    """A parser whose options are the keys of a recipe; the keywords are those of jsonargparse's class."""
    from jsonargparse import ArgumentParser

    keys = ArgumentParser(exit_on_error=False, print_config=None, **keywords)
    keys.add_class_arguments(Recipe)
    return keys


def one_line(error: Exception) -> str:
    """The message of an error of jsonargparse or YAML, without line breaks and what says the same twice."""
    return " ".join(re.sub(r"Errors:.*(?=Given value:)", "", str(error), flags=re.DOTALL).split())


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like an unknown one; empty where none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _build(values: Mapping[str, Any], keys: ArgumentParser, words: Sequence[str]) -> Recipe:
    _check_keys(Recipe, values, "")
    try:
        made = keys.instantiate(keys.parse_args(words, namespace=keys.parse_object(dict(values))))
    except ArgumentError as error:
        raise ValueError(one_line(error)) from None
    return Recipe(**{name: made[name] for name in get_type_hints(Recipe)})


def _check_keys(kind: Any, value: Any, key: str) -> None:
    """Refuse unknown keys by their nearest, and the nulls that jsonargparse takes for keys left out."""
    if value is not None and (sections := [k for k in get_args(kind) if dataclasses.is_dataclass(k)]):
        kind = kind if get_origin(kind) is tuple else sections[0]  # a section that may be left out
    if get_origin(kind) is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            _check_keys(get_args(kind)[0], item, f"{key}[{index}]")
    elif dataclasses.is_dataclass(kind):
        require(isinstance(value, Mapping), key or "recipe", value, "a mapping")
        hints = get_type_hints(kind)
        for name, item in value.items():
            place = f"{key}.{name}" if key else str(name)
            if name not in hints:
                raise ValueError(f"unknown key {place!r}{nearest(str(name), hints)} of {', '.join(hints)}")
            _check_keys(hints[name], item, place)
    else:
        require(value is not None or NoneType in get_args(kind), key, value, "a value")
