"""What is refused of an exported network's folder, and how pixels become a graph's input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ismallnet.runtimes import (
    MANY,
    SIDECAR,
    Artefact,
    by_speed,
    has_bf16,
    is_artefact,
    name_of,
    open_artefact,
    read_artefact,
)


def artefact(**changes: Any) -> Artefact:
    values: dict[str, Any] = {
        "model": "it", "file": "it.onnx", "format": "onnx", "input": "uint16", "low": 7000, "high": 11000,
        "minimum": 16, "multiple": 32, "precision": "fp32", "threshold": 0.5, "weights_sha256": "0",
    }  # fmt: skip
    return Artefact(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / SIDECAR).write_text(artefact().to_json())
    (tmp_path / "it.onnx").write_bytes(b"no graph")
    return tmp_path


def test_what_is_written_is_read_again(folder: Path) -> None:
    assert read_artefact(folder) == read_artefact(folder / "it.onnx") == (folder, artefact())


def test_pixels_become_the_counts_that_they_came_from() -> None:
    counts = artefact().encode(np.array([[0, 0.25, 1]], np.float32))
    assert (counts.tolist(), counts.dtype) == ([[7000, 8000, 11000]], np.uint16)
    grey = artefact(input="uint8", low=0, high=255).encode(np.array([[0.5]], np.float32))
    assert (grey.tolist(), grey.dtype) == ([[128]], np.uint8)  # 127.5, to even


def test_a_model_folder_is_no_artefact(folder: Path) -> None:
    assert is_artefact(folder)
    (folder / "config.json").touch()
    assert not is_artefact(folder)


def test_a_graph_without_its_sidecar_is_named(folder: Path) -> None:
    (folder / SIDECAR).unlink()
    with pytest.raises(FileNotFoundError, match=r"no export\.json beside .*it\.onnx"):
        read_artefact(folder / "it.onnx")


def test_a_sidecar_of_another_graph_is_refused(folder: Path) -> None:
    (folder / "other.onnx").touch()
    with pytest.raises(ValueError, match=r"is of it\.onnx, not of other\.onnx"):
        read_artefact(folder / "other.onnx")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"model": 1, "colour": 2}'])
def test_a_sidecar_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / SIDECAR).write_text(text)
    with pytest.raises(ValueError, match="none that this version of ismallnet export wrote"):
        read_artefact(folder)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_damaged_graph_is_named(folder: Path, runtime: Any) -> None:
    pytest.importorskip(runtime)
    with pytest.raises(ValueError, match=rf"it\.onnx cannot be opened by {runtime}"):
        open_artefact(folder, runtime=runtime)


def test_a_runtime_that_does_not_read_the_format_is_answered_with_those_that_do(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"torch does not read it\.onnx.*choose onnxruntime, openvino"):
        open_artefact(folder, runtime="torch")


def test_many_images_are_for_the_fastest_and_few_for_the_soonest() -> None:
    assert by_speed(MANY)[0] == "openvino"
    assert by_speed(MANY - 1)[0] == "onnxruntime"


def test_an_unknown_runtime_is_answered_with_the_known() -> None:
    assert name_of("auto") is None
    with pytest.raises(ValueError, match="unknown runtime 'tensorrt'; choose from auto, openvino"):
        name_of("tensorrt")


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "bf16"])
@pytest.mark.parametrize("able", [False, True])
@pytest.mark.parametrize("onednn", [False, True])
def test_a_processor_has_bf16_where_it_and_the_library_say_so(
    monkeypatch: pytest.MonkeyPatch, feature: str, able: bool, onednn: bool
) -> None:
    features = {"avx512_f": True, feature: able}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    assert has_bf16("cpu") == (able and onednn)
    assert not has_bf16("mps:0")


def test_a_gpu_has_bf16_where_it_does_not_emulate_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (False, True):

        def supported(*, including_emulation: bool = True, native: bool = native) -> bool:
            return including_emulation or native

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        assert has_bf16("cuda:1") == native
