"""What runs networks: a function from images to scores, of PyTorch's modules or of an exported graph.

An artefact is a folder. It holds a graph (one file, or two of OpenVINO) and `export.json`, which says what
goes in, of which weights it is, and how far each runtime's score was from PyTorch's when it was written. All
graphs but PyTorch's own are opened without PyTorch, in a fraction of the time of its import.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ismallnet.maps import Maps

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    Run = Callable[[NDArray[Any]], NDArray[np.float32]]
    """From images (B, 1, H, W), in the type and the range that the artefact takes, to scores (B, 1, H, W)."""

RuntimeName = Literal["torch", "onnxruntime", "openvino"]
Input = Literal["uint8", "uint16", "float32"]
Precision = Literal["fp32", "fp16", "int8", "bf16"]
SIDECAR = "export.json"
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
"""The formats, and the suffix of the graph's file."""
MANY = 100
"""From so many images on, the runtime that is fastest by the image is worth its longer start."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """What `export.json` says."""

    model: str
    file: str
    """The graph, beside `export.json`."""
    format: str
    """A key of `SUFFIXES`."""
    input: Input
    low: float
    high: float
    """The values of the input that are 0 and 1 to the network; what is beyond is clipped."""
    minimum: int
    """Least height and width that the graph takes."""
    multiple: int
    """Height and width are mirrored to a multiple of this inside the graph, and the score is cropped back."""
    precision: Precision
    """Of weights and arithmetic in the file."""
    threshold: float
    """A pixel is target where its score is above."""
    weights_sha256: str
    differences: Mapping[str, Any] = field(default_factory=dict)
    """By runtime, how far its score is from that of PyTorch in float32."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Commit, date, hardware, versions."""

    def to_json(self) -> str:
        """Return the text of `export.json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    def encode(self, pixels: NDArray[np.float32]) -> NDArray[Any]:
        """Return pixels in [0, 1] as the graph takes them; whole numbers are rounded, which loses bits."""
        values = pixels * np.float32(self.high - self.low) + np.float32(self.low)
        return values if self.input == "float32" else np.rint(values).astype(self.input)


class Row(NamedTuple):
    """What is known of a runtime."""

    formats: tuple[str, ...]
    """The formats that it reads."""
    package: str
    extra: str
    """What of ismallnet to install for it."""
    open: Callable[[Path, bool], Run]
    """Opens a graph; True asks for bf16."""


def is_artefact(path: Path) -> bool:
    """Whether a path is an exported network: its folder, or the graph in it. A model folder is none."""
    if (path / "config.json").is_file():
        return False
    return (path / SIDECAR).is_file() or (path.is_file() and path.suffix in SUFFIXES.values())


def read_artefact(path: Path) -> tuple[Path, Artefact]:
    """Return the folder of an exported network, given it or the graph in it, and what it says.

    Raises:
        FileNotFoundError: No `export.json` there, or no graph.
        ValueError: It is none that `ismallnet export` wrote, or of another graph.
    """
    folder = path if path.is_dir() else path.parent
    sidecar = folder / SIDECAR
    if not sidecar.is_file():
        raise FileNotFoundError(
            f"no {SIDECAR} beside {path}, which ismallnet export writes; keep them together"
        )
    try:
        artefact = Artefact(**json.loads(sidecar.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{sidecar} is none that this version of ismallnet export wrote: {error}") from error
    if path.is_file() and path.name != artefact.file:
        raise ValueError(f"{sidecar} is of {artefact.file}, not of {path.name}; give that one")
    if not (folder / artefact.file).is_file():
        raise FileNotFoundError(
            f"no {artefact.file} in {folder}, of which {SIDECAR} there speaks; export again"
        )
    return folder, artefact


def open_artefact(
    path: Path, *, runtime: RuntimeName | None = None, bf16: bool = False, images: int = 1
) -> tuple[Artefact, RuntimeName, Run]:
    """Open an exported network.

    Args:
        path: Its folder, or the graph in it.
        runtime: What runs it; None: the installed one that suits the number of images best.
        bf16: Compute in bfloat16; OpenVINO only, on a processor that has it.
        images: How many are to be scored, as far as is known.

    Returns:
        What it says, the runtime's name, and the function.

    Raises:
        FileNotFoundError: Part of it is missing.
        ImportError: A runtime that is not installed, or none that reads the format.
        ValueError: It is damaged, the runtime does not read its format, or has no bfloat16 here.
    """
    folder, artefact = read_artefact(path)
    able = [name for name in by_speed(images) if artefact.format in RUNTIMES[name].formats]
    if runtime is None:
        if bf16:
            able = [name for name in able if name == "openvino"]
        installed = [name for name in able if is_installed(name)]
        runtime = installed[0] if installed else (able or ["openvino"])[0]
    if artefact.format not in RUNTIMES[runtime].formats:
        readers = ", ".join(able)
        raise ValueError(
            f"{runtime} does not read {artefact.file}, a graph of the format {artefact.format}; "
            f"choose {readers}"
        )
    if bf16 and runtime != "openvino":
        raise ValueError(f"bf16 of an exported network is for openvino; {runtime} has none")
    if not is_installed(runtime):
        row = RUNTIMES[runtime]
        raise ImportError(
            f"{artefact.file} is run by {row.package}; pip install 'ismallnet[{row.extra}]' has it"
        )
    try:
        return artefact, runtime, RUNTIMES[runtime].open(folder / artefact.file, bf16)
    except (ValueError, ImportError):
        raise
    except Exception as error:  # each has its own for a damaged file
        raise ValueError(f"{folder / artefact.file} cannot be opened by {runtime}: {error}") from error


def name_of(text: str | None) -> RuntimeName | None:
    """Return the runtime of a name; None for None and for `auto`.

    Raises:
        ValueError: There is none.
    """
    if text in (None, "auto"):
        return None
    for name in RUNTIMES:
        if text == name:
            return name
    raise ValueError(f"unknown runtime {text!r}; choose from auto, {', '.join(RUNTIMES)}")


def by_speed(images: int = MANY) -> list[RuntimeName]:
    """Return the runtimes, the one that is soonest done with so many images first."""
    return ["openvino", "onnxruntime", "torch"] if images >= MANY else ["onnxruntime", "openvino", "torch"]


def is_installed(runtime: RuntimeName) -> bool:
    """Whether the package of a runtime can be imported."""
    return find_spec(RUNTIMES[runtime].package) is not None


def device_of(device: str) -> str:
    """Return the device that `auto` is: an accelerator if there is one, else the CPU; any other as it is."""
    import torch

    if device != "auto":
        return device
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None else accelerator.type


def has_bf16(device: str) -> bool:
    """Whether PyTorch's device is known to compute in bfloat16 rather than emulate it, which is slow."""
    import torch

    kind = device.partition(":")[0]
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch has no types there
    if kind != "cpu" or not onednn:
        return False
    able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in every version
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is Arm's


def placed(model: nn.Module, device: str) -> str:
    """Move a network to a device, the memory format included; the name of the device."""
    import torch

    device = device_of(device)
    try:
        model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"cannot run on device {device!r} ({why}); choose auto or cpu") from error
    return device


def eager(model: nn.Module, device: str, *, bf16: bool) -> Callable[[NDArray[np.float32]], Maps]:
    """Wrap a network as a function from images of one size, (B, H, W), to their logits."""
    import torch

    def plain(logits: Tensor) -> NDArray[np.float32]:
        return np.asarray(logits[:, 0].float().cpu().numpy(), np.float32)

    @torch.inference_mode()
    def function(stack: NDArray[np.float32]) -> Maps:
        if model.training:
            model.eval()
        image = torch.from_numpy(np.ascontiguousarray(stack))[:, None].to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            logits = model(image.contiguous(memory_format=torch.channels_last))
        interior, boundary = (None if x is None else plain(x) for x in (logits.interior, logits.boundary))
        return Maps(plain(logits.target), interior, boundary)

    return function


def _threads() -> int:
    """Return how many threads OMP_NUM_THREADS allows, as PyTorch reads it; 0 leaves it to the runtime."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() else 0


def _onnxruntime(file: Path, bf16: bool) -> Run:  # noqa: ARG001
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other processes have work too
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["score"], {"image": images})[0], np.float32)


def _openvino(file: Path, bf16: bool) -> Run:
    from ismallnet.openvino_cpu import open_graph

    return open_graph(file, bf16=bf16, threads=_threads())


def _torch(file: Path, bf16: bool) -> Run:  # noqa: ARG001
    import torch

    # the guards are of strides that a side of one feature, or one that needs no mirroring, would change
    module = torch.export.load(file).module(check_guards=False)

    @torch.inference_mode()
    def run(images: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(module(torch.from_numpy(np.ascontiguousarray(images))).numpy(), np.float32)

    return run


RUNTIMES: dict[RuntimeName, Row] = {
    "openvino": Row(("openvino", "onnx"), "openvino", "openvino", _openvino),
    "onnxruntime": Row(("onnx",), "onnxruntime", "export", _onnxruntime),
    "torch": Row(("torch",), "torch", "", _torch),
}
