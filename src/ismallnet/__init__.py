"""Infrared small-target detection: networks, training and one evaluator that can be trusted.

    detector = ismallnet.load("ismallnet-s")
    found = detector(ismallnet.read_image("scene.png"))
    found.score, found.mask, found.targets

The names below are imported when they are first used, so that ``import ismallnet`` costs nothing. The verbs
`train` and `evaluate` are modules of their own name: ``from ismallnet.evaluate import evaluate``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ismallnet.detect import detect_files as detect_files
    from ismallnet.detector import Detector as Detector
    from ismallnet.detector import list_detectors as list_detectors
    from ismallnet.detector import load as load
    from ismallnet.draw import overlay as overlay
    from ismallnet.labels import decouple as decouple
    from ismallnet.media import Image as Image
    from ismallnet.media import normalise as normalise
    from ismallnet.media import read_image as read_image
    from ismallnet.models import create_model as create_model
    from ismallnet.models import list_models as list_models
    from ismallnet.rules import Fixed as Fixed
    from ismallnet.rules import Statistical as Statistical
    from ismallnet.streams import frames as frames
    from ismallnet.types import Detection as Detection
    from ismallnet.types import Logits as Logits
    from ismallnet.types import Target as Target

    __version__: str

_HOME = {
    "Detection": "types",
    "Detector": "detector",
    "Fixed": "rules",
    "Image": "media",
    "Logits": "types",
    "Statistical": "rules",
    "Target": "types",
    "create_model": "models",
    "decouple": "labels",
    "detect_files": "detect",
    "frames": "streams",
    "list_detectors": "detector",
    "list_models": "models",
    "load": "detector",
    "normalise": "media",
    "overlay": "draw",
    "read_image": "media",
}
"""Public name to the module it lives in."""

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ismallnet")
    if name not in _HOME:
        raise AttributeError(f"module 'ismallnet' has no attribute {name!r}; it has {', '.join(_HOME)}")
    return getattr(import_module(f"ismallnet.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
