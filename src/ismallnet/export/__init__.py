"""A network as a file for other runtimes: written, opened again, and compared with PyTorch before it is kept.

What is read and run without PyTorch is in `ismallnet.runtimes`; importing this costs nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ismallnet.checkpoint import load_model, weights_sha256, written_whole
from ismallnet.runtimes import (
    RUNTIMES,
    SIDECAR,
    SUFFIXES,
    Artefact,
    Input,
    Precision,
    RuntimeName,
    is_installed,
)

if TYPE_CHECKING:
    from torch import nn

    from ismallnet.data import Dataset
    from ismallnet.types import Sample

RANGES: dict[str, tuple[float, float]] = {"uint8": (0, 255), "uint16": (0, 65535), "float32": (0, 1)}
"""The values of each input that are 0 and 1 to the network, unless others are given."""
PRECISIONS = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "int8"),
    "torch": ("fp32", "fp16"),
}
NEEDS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino"), "torch": ()}
"""The packages that writing each format takes, and reading it again."""
SAMPLES = 64
"""Train images to calibrate on, and as many others to compare on."""


def export(
    weights: str | Path,
    out: str | Path,
    *,
    format: str = "onnx",
    input: Input = "float32",
    range: tuple[float, float] | None = None,
    precision: Precision = "fp32",
    threshold: float = 0.5,
    datasets: Sequence[Dataset] = (),
    provenance: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Artefact:
    """Write a network as a graph of its own, from images to scores.

    The folder holds the graph and `export.json`. It appears when the graph, opened again by every runtime
    that is installed and reads it, gave PyTorch's scores on seeded scenes and on the images given, or not at
    all.

    Args:
        weights: A model folder.
        out: The folder to write.
        format: `onnx`, `openvino` or `torch`.
        input: Type of the images that the graph takes.
        range: The values of the input that become 0 and 1; those of `RANGES` where None.
        precision: `fp32`, `fp16` or, except for torch, `int8`.
        threshold: Of the score; goes into `export.json`.
        datasets: Train images with masks. int8 is calibrated on some, the graph is compared on others.
        provenance: Goes into `export.json`.
        force: Write into a folder that holds something.

    Raises:
        ExportError: The graph is too far from PyTorch; the text has the largest difference.
        FileExistsError: The folder holds something and ``force`` is not set.
        FileNotFoundError: No weights there.
        ImportError: What the format needs is not installed.
        ValueError: A choice that is none, int8 without images, or a test list.
    """
    _check(format, input, precision, datasets)
    weights = Path(weights)
    model, saved = load_model(weights)
    artefact = describe(
        model,
        saved.name,
        weights_sha256(weights),
        format=format,
        input=input,
        range=range,
        precision=precision,
        threshold=threshold,
        provenance=provenance or {},
    )
    calibration, samples = _draw(datasets)
    with written_whole(Path(out), force=force) as made:
        write(artefact, model, made, calibration)
        artefact = replace(artefact, differences=compare(artefact, made, model, samples, strict=True))
        (made / SIDECAR).write_text(artefact.to_json(), encoding="utf-8")
    return artefact


def describe(
    model: nn.Module,
    name: str,
    weights_sha256: str,
    *,
    format: str = "onnx",
    input: Input = "float32",
    range: tuple[float, float] | None = None,
    **others: Any,
) -> Artefact:
    """Say what an artefact of a network will be; the arguments are those of `export`.

    Raises:
        ValueError: A range that is none.
    """
    low, high = RANGES[input] if range is None else range
    if not low < high:
        raise ValueError(f"range is two values, the lower first; got {low:g} and {high:g}")
    return Artefact(
        model=name,
        file=f"{name}{SUFFIXES[format]}",
        format=format,
        input=input,
        low=low,
        high=high,
        minimum=max(int(getattr(model, "minimum", 1)), 2),  # a single pixel has no mirror image
        multiple=int(getattr(model, "multiple", 1)),
        weights_sha256=weights_sha256,
        **{"precision": "fp32", "threshold": 0.5, **others},
    )


def write(artefact: Artefact, model: nn.Module, folder: Path, calibration: Sequence[Sample] = ()) -> None:
    """Write the graph of an artefact, and a first `export.json`, into a folder."""
    import numpy as np

    from ismallnet.export.graph import ScoreGraph, write_onnx, write_openvino, write_torch

    precision, kind = artefact.precision, artefact.input
    half = precision == "fp16" and artefact.format != "openvino"  # which stores fp16, and computes as it can
    graph = ScoreGraph(model, low=artefact.low, high=artefact.high, half=half).eval()
    file = folder / artefact.file
    (folder / SIDECAR).write_text(artefact.to_json(), encoding="utf-8")
    if artefact.format == "torch":
        write_torch(graph, file, input=kind)
        return
    with tempfile.TemporaryDirectory() as scratch:
        steps = [Path(scratch) / "plain.onnx"]
        write_onnx(graph, steps[0], input=kind)
        if precision == "int8":
            from ismallnet.export.quantise import quantise

            steps.append(Path(scratch) / "int8.onnx")
            images = (sample.image.astype(np.float32) / np.float32(255) for sample in calibration)
            quantise(steps[0], steps[1], artefact, images)
        if artefact.format == "openvino":
            write_openvino(steps[-1], file, half=precision == "fp16")
        else:
            file.write_bytes(steps[-1].read_bytes())


def compare(
    artefact: Artefact, folder: Path, model: nn.Module, samples: Sequence[Sample] = (), *, strict: bool
) -> dict[str, dict[str, Any]]:
    """Measure every installed runtime that reads an artefact against PyTorch in float32.

    Args:
        artefact: What was written.
        folder: Where.
        model: The plain network.
        samples: Images with masks to compare on, beside the seeded scenes.
        strict: Refuse the artefact where one runtime is too far off, in bfloat16 apart.

    Returns:
        By runtime, on `scenes` and, where there are samples, on `images`: what `check.Difference` has. The
        key `openvino bf16` is of an artefact in fp32, computed in bfloat16. Where a runtime cannot be had or
        is too far off, the key `refused` alone, with the reason.

    Raises:
        ExportError: A runtime is too far off, and ``strict``.
    """
    from ismallnet.export import check
    from ismallnet.runtimes import open_artefact

    expected = check.torch_score(model)
    found: dict[str, dict[str, Any]] = {}
    modes: list[tuple[RuntimeName, bool]] = [
        (name, bf16)
        for name, row in RUNTIMES.items()
        for bf16 in ((False, True) if name == "openvino" and artefact.precision == "fp32" else (False,))
        if artefact.format in row.formats and is_installed(name)
    ]
    for name, bf16 in modes:
        label = f"{name} bf16" if bf16 else name
        try:
            _, _, run = open_artefact(folder, runtime=name, bf16=bf16)
            parts = {"scenes": check.compare_scenes(expected, artefact, run)}
            if samples:
                score = check.run_score(artefact, run)
                parts["images"] = check.compare_samples(expected, score, samples, artefact.threshold)
            for difference in parts.values():
                check.require(
                    difference, "bf16" if bf16 else artefact.precision, f"{artefact.file} by {label}"
                )
        except (OSError, MemoryError):
            raise
        except Exception as error:
            refused = isinstance(error, (check.ExportError, ValueError))  # no bfloat16 here is a ValueError
            if strict and not (bf16 and refused):
                raise
            found[label] = {"refused": str(error)}
            continue
        found[label] = {part: asdict(difference) for part, difference in parts.items()}
    return found


def _check(format: str, input: str, precision: str, datasets: Sequence[Dataset]) -> None:
    """Refuse what cannot be exported before anything is read."""
    for option, value, accepted in (
        ("format", format, tuple(SUFFIXES)),
        ("input", input, get_args(Input)),
        ("precision", precision, PRECISIONS.get(format, ())),
    ):
        if value not in accepted:
            raise ValueError(f"unknown {option} {value!r} of {format}; choose from {', '.join(accepted)}")
    for each in datasets:
        if each.holds_test_images:
            raise ValueError(
                f"{each.name} {each.split} is a test list, or holds one; "
                "export calibrates and compares on train lists"
            )
    if precision == "int8" and not datasets:
        raise ValueError("int8 is calibrated on train images; give a data set (--data NAME --root DIR)")
    from importlib.util import find_spec

    needs = (*NEEDS[format], *(["onnxruntime"] if precision == "int8" else []))
    missing = [name for name in dict.fromkeys(needs) if find_spec(name) is None]
    if missing:
        extras = "export,openvino" if format == "openvino" else "export"
        raise ImportError(f"{format} needs {', '.join(missing)}; pip install 'ismallnet[{extras}]'")


def _draw(datasets: Sequence[Dataset]) -> tuple[list[Sample], list[Sample]]:
    """Return images spread evenly over the lists, every other one to calibrate on, the rest to compare on."""
    places = [(each, index) for each in datasets for index, _ in enumerate(each.ids)]
    step = max(len(places) // (2 * SAMPLES), 1)
    chosen = [each[index] for each, index in places[::step][: 2 * SAMPLES]]
    return chosen[::2], chosen[1::2]
