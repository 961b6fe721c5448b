"""`ismallnet export`: a graph that other verbs take, or an error that says what to do and leaves nothing."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ismallnet import checkpoint
from ismallnet.cli import main
from ismallnet.export import check
from ismallnet.models import create_model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
NARROW: dict[str, Any] = {"widths": (4, 4, 4, 4, 4), "fusion_width": 4}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "narrow"
    model = create_model("ismallnet-s", **NARROW)
    checkpoint.save_model(folder, model, name="ismallnet-s", options=NARROW)
    return folder


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in an empty folder, the seeded scenes small: status, output and error, spaces folded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "SIZES", ((64, 64),))

    def run(*words: object) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, " ".join(out.split()), " ".join(err.split())

    return run


Run = Callable[..., tuple[int, str, str]]


def test_the_graph_is_written_compared_and_taken_by_detect(run: Run, weights: Path, tmp_path: Path) -> None:
    status, out, _ = run("export", weights, "--threshold", "0.3", "--out", "graph")
    assert status == 0
    assert "ismallnet-s.onnx: scores against PyTorch in fp32" in out
    assert "onnxruntime scenes" in out
    assert "ismallnet detect IMAGES --model graph" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph"]
    assert sorted(path.name for path in Path("graph").iterdir()) == ["export.json", "ismallnet-s.onnx"]
    said = json.loads(Path("graph/export.json").read_text("utf-8"))
    assert (said["format"], said["input"], said["precision"], said["threshold"]) == (
        "onnx", "float32", "fp32", 0.3,
    )  # fmt: skip
    assert {"commit", "date", "hardware"} <= said["provenance"].keys()
    cv2.imwrite("x.png", np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8))
    scores = []
    for model in (weights, "graph"):
        name = Path(model).name
        assert run("detect", "x.png", "--model", model, "--save", "score", "--out", f"by-{name}")[0] == 0
        scores.append(cv2.imread(f"by-{name}/score/x.tif", cv2.IMREAD_UNCHANGED))
    assert scores[0].std() > 1e-3
    np.testing.assert_allclose(scores[1], scores[0], atol=check.MAX_FP32)


def test_input_and_range_are_those_of_the_options(run: Run, weights: Path) -> None:
    words = ("--input", "uint16", "--range", "7000", "11000", "--out", "graph")
    assert run("export", weights, *words)[0] == 0
    said = json.loads(Path("graph/export.json").read_text("utf-8"))
    assert (said["input"], said["low"], said["high"]) == ("uint16", 7000, 11000)


def test_a_folder_that_holds_something_is_refused_without_force(run: Run, weights: Path) -> None:
    Path("graph").mkdir()
    Path("graph/notes.txt").write_text("precious")
    status, _, err = run("export", weights, "--out", "graph")
    assert (status, "graph exists and is not empty" in err, "--force" in err) == (2, True, True)
    assert [path.name for path in Path("graph").iterdir()] == ["notes.txt"]
    assert run("export", weights, "--out", "graph", "--force")[0] == 0
    assert Path("graph/notes.txt").read_text() == "precious"
    assert Path("graph/ismallnet-s.onnx").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "nowhere is neither a folder nor a model; choose from ismallnet, "),
        (("top-hat",), "top-hat is no network with weights; ismallnet list has those that are"),
        (("ismallnet-unet",), "ismallnet train recipes/"),
        (("ismallnet-s", "--format", "tflite"), "choose from onnx, openvino, torch"),
        (
            ("ismallnet-s", "--precision", "int8"),
            "int8 is calibrated on train images; give a data set (--data",
        ),
        (("ismallnet-s", "--range", "5", "5"), "range is two values, the lower first; got 5 and 5"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    run: Run, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    status, _, err = run("export", *words)
    assert (status, said.replace("'", "") in err.replace("'", "")) == (2, True), err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("format", "absent", "extras"), [("onnx", "onnx", "export"), ("openvino", "openvino", "export,openvino")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    run: Run,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    format: str,
    absent: str,
    extras: str,
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == absent else find_spec(name, *rest)
    )
    status, _, err = run("export", weights, "--format", format)
    assert (status, err) == (2, f"error: {format} needs {absent}; pip install 'ismallnet[{extras}]'")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_leaves_nothing(
    run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ismallnet.export.write", full)
    status, _, err = run("export", weights, "--out", "graph")
    assert (status, "no room to write graph (No space left on device)" in err) == (2, True)
    assert not list(tmp_path.iterdir())
