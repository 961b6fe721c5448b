"""A detector is a function from an image to a score map, and the rule that decides on it.

Networks and filters share it, so that inference, evaluation and benchmarks know one thing. Around the
function a `Detector` pads what is too small for it, cuts what is too large into tiles (`ismallnet.tiles`),
resizes where a protocol asks for it, applies the threshold and measures the targets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import expit, logit

from ismallnet.catalogue import find_weights, list_weights
from ismallnet.maps import Function, Maps, framed, joined, one_by_one, resize
from ismallnet.media import Image
from ismallnet.rules import Fixed, Rule, Statistical
from ismallnet.runtimes import eager, placed
from ismallnet.targets import find
from ismallnet.tiles import Tiling, batches, walk
from ismallnet.types import Detection
from ismallnet.views import averaged, confirmed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from ismallnet.runtimes import Artefact, Run, RuntimeName

BATCH_PX = {"cpu": 2**18, "accelerator": 2**22}
"""Pixels that a network is given at once, in tiles or images of one size: one tile on a CPU, 16 elsewhere."""
CALIBRATION = "calibration.json"
"""The file in a folder that ``ismallnet calibrate`` writes."""
_LEAST = np.float32(1e-7)


class Detector:
    """Finds small targets in grey images with any function from an image to a score map.

    Args:
        function: From (H, W) float32 in [0, 1] to a response of the same size, or to `Maps`.
        name: What reports call it.
        rule: Decides on the score.
        logits: The function returns logits: a sigmoid makes them scores, after any resizing.
        minimum: Least height and width that the function takes. Smaller images are mirrored at their edges,
            as often as it takes, and the maps cropped back.
        batch_px: Where not 0, the function takes stacks, (B, H, W), too, and answers with maps of that shape;
            it is given this many pixels at once, or one image.

    Attributes:
        name: As given.
        rule: As given; may be replaced.
        tiling: How images are cut into tiles, and from which size on; None: never. May be replaced.
        views: Test-time augmentation: how many flips and quarter turns of an image the response is the mean
            of, 1 (the image as it is), 2, 4 or 8 (`ismallnet.views`); so many times as slow. May be replaced.
        confirm: Whether a target has to be seen in the image enlarged or shrunk 1.25 times as well, for fewer
            false alarms of a network (`ismallnet.views`); the time of two more views. May be replaced.
        weights_sha256: Of the weights that `load` read (`checkpoint.weights_sha256`); None for any other
            detector.
        folder: The model folder that `load` read; None for any other detector.
        runtime: What runs a network: `torch`, `onnxruntime` or `openvino`; None for any other function.
        precision: In which arithmetic: `fp32`, `bf16`, `fp16` or `int8`; None likewise.
    """

    def __init__(
        self,
        function: Function,
        *,
        name: str,
        rule: Rule,
        logits: bool = False,
        minimum: int = 1,
        batch_px: int = 0,
    ) -> None:
        self.name, self.rule = name, rule
        self.tiling: Tiling | None = Tiling()
        self.views, self.confirm = 1, False
        self.weights_sha256: str | None = None
        self.folder: Path | None = None
        self.runtime: RuntimeName | None = None
        self.precision: str | None = None
        self._respond = framed(function if batch_px else one_by_one(function), name=name, minimum=minimum)
        self._logits, self._batch_px = logits, batch_px

    def __repr__(self) -> str:
        return f"Detector({self.name!r}, rule={self.rule})"

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        name: str,
        rule: Rule | None = None,
        device: str = "auto",
        precision: Literal["float32", "bf16"] = "float32",
    ) -> Detector:
        """Make a detector of a network.

        Args:
            model: As `ismallnet.models.create_model` makes them: (B, 1, H, W) in [0, 1] to `Logits`, with the
                attribute `minimum`. Moved to the device here, put into evaluation mode at every call.
            name: What reports call it.
            rule: `Fixed(0.5)` where None.
            device: As torch names it, or `auto`: an accelerator if there is one, else the CPU.
            precision: `bf16` runs the network under autocast; the logits are float32 either way.

        Raises:
            ValueError: A device that torch does not know, or that is not here.
        """
        device = placed(model, device)
        function = eager(model, device, bf16=precision == "bf16")
        minimum = int(getattr(model, "minimum", 1))
        batch_px = BATCH_PX["cpu" if device == "cpu" else "accelerator"]
        rule = rule or Fixed()
        detector = cls(function, name=name, rule=rule, logits=True, minimum=minimum, batch_px=batch_px)
        detector.runtime, detector.precision = "torch", "bf16" if precision == "bf16" else "fp32"
        return detector

    @classmethod
    def from_artefact(
        cls, artefact: Artefact, runtime: RuntimeName, run: Run, *, name: str, bf16: bool = False
    ) -> Detector:
        """Make a detector of an exported network, opened by `ismallnet.runtimes.open_artefact`.

        Its scores become logits again, so that they are resized as those of networks are.
        0 and 1 become 1e-7 and 1 - 1e-7.
        """

        def function(stack: NDArray[np.float32]) -> NDArray[np.float32]:
            score = run(artefact.encode(stack)[:, None])[:, 0]
            return logit(score.clip(_LEAST, 1 - _LEAST))

        detector = cls(
            function,
            name=name,
            rule=Fixed(artefact.threshold),
            logits=True,
            minimum=artefact.minimum,
            batch_px=BATCH_PX["cpu"],
        )
        detector.runtime, detector.precision = runtime, "bf16" if bf16 else artefact.precision
        detector.weights_sha256 = artefact.weights_sha256
        return detector

    @classmethod
    def from_filter(cls, name: str, *, rule: Rule | None = None, **parameters: Any) -> Detector:
        """Make a detector of a classical filter.

        Args:
            name: One of `ismallnet.filters.list_filters()`.
            rule: Where None, `Statistical` with the bundled k of the filter, which was chosen on train lists
                (`ismallnet.filters.bundled_k`) and holds for the default parameters alone.
            **parameters: Of the filter's function. They become part of the detector's name.

        Raises:
            ValueError: No such filter or parameter, or parameters without a rule.
        """
        from ismallnet.filters import bundled_k, create_filter, find_filter

        function, minimum = create_filter(name, **parameters), find_filter(name).minimum
        if parameters and rule is None:
            raise ValueError(
                f"the bundled k of {name} is for its default parameters; give rule=Statistical(k)"
            )
        rule = Statistical(bundled_k(name)) if rule is None else rule
        inside = ", ".join(f"{key}={value}" for key, value in parameters.items())
        return cls(function, name=f"{name} ({inside})" if inside else name, rule=rule, minimum=minimum)

    def __call__(self, image: Image | NDArray[np.float32]) -> Detection:
        """Find the targets of an image, given as `read_image` returns it or as (H, W) float32 in [0, 1].

        Raises:
            ValueError: Another shape, another type, or values outside [0, 1].
        """
        return self._decide(self._maps(image, None))

    def many(self, images: Iterable[Image | NDArray[np.float32]]) -> Iterator[Detection]:
        """Find the targets of images, as one by one; consecutive ones of one size go through together.

        Raises:
            ValueError: As for one image.
        """
        checked = (_checked(image.pixels if isinstance(image, Image) else image) for image in images)
        for stack in batches(checked, max(self._batch_px, 1)):
            if self._is_cut(stack[0].shape):
                yield from map(self, stack)
            else:
                yield from map(self._decide, self._finished(stack).apart())

    def bands(
        self, read: Callable[[int, int], NDArray[np.float32]], shape: tuple[int, int]
    ) -> Iterator[Maps]:
        """Map an image that is read by rows to its maps in bands of rows, from top to bottom.

        Args:
            read: From y0 and y1 to the rows y0 to y1 of the image, (y1 - y0, W) float32 in [0, 1].
            shape: (H, W) of the image, which is cut as `tiling` says, or as by default where that is None.

        Yields:
            Scores, (h, W), of some rows each: as many as a tile is high at most.
        """
        kinds: list[str] = []
        tiling = self.tiling or Tiling()

        def function(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            maps = {k: v for k, v in self._finished(tiles)._asdict().items() if v is not None}
            kinds[:] = maps
            return np.stack(list(maps.values()), axis=1)

        for band in walk(read, function, shape, tiling, batch_px=max(self._batch_px, 1)):
            yield Maps(**dict(zip(kinds, band, strict=True)))

    def score(
        self, image: Image | NDArray[np.float32], *, input_size: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """Map an image to its score, (H, W) float32.

        Args:
            image: (H, W) float32 in [0, 1].
            input_size: (height, width) to which the image is resized before, and from which the response
                (of a network: the logits, before the sigmoid) is resized back; bilinearly, as torch does with
                `align_corners=False`, without antialiasing.

        Raises:
            ValueError: Another shape, another type, or values outside [0, 1].
        """
        return self._maps(image, input_size).target

    def _decide(self, maps: Maps) -> Detection:
        score, interior, boundary = maps
        mask = self.rule.apply(score)
        return Detection(score, mask, find(mask, score), self.rule.threshold(score), interior, boundary)

    def _maps(self, image: Image | NDArray[np.float32], input_size: tuple[int, int] | None) -> Maps:
        """Return the maps of an image, in one piece or in tiles."""
        pixels = _checked(image.pixels if isinstance(image, Image) else image)
        if input_size is not None:
            responses = self._answer(resize(pixels, input_size)[None])
            return responses.each(lambda x: self._score(resize(x[0], pixels.shape)))
        if not self._is_cut(pixels.shape):
            return self._finished(pixels[None]).each(lambda x: x[0])
        return joined(self.bands(lambda y0, y1: pixels[y0:y1], pixels.shape), np.concatenate)

    def _finished(self, stack: NDArray[np.float32]) -> Maps:
        """Return the scores of images of one size, (B, H, W) all."""
        return self._answer(stack).each(self._score)

    def _answer(self, stack: NDArray[np.float32]) -> Maps:
        """Return the responses to images of one size, (B, H, W) all."""
        own = averaged(self._respond, self._score, self.views)
        return (confirmed(self._respond, own) if self.confirm else own)(stack)

    def _score(self, response: NDArray[np.float32]) -> NDArray[np.float32]:
        return expit(response) if self._logits else response

    def _is_cut(self, shape: tuple[int, ...]) -> bool:
        return self.tiling is not None and math.prod(shape) > self.tiling.above


def list_detectors() -> list[str]:
    """Return the names that `load` takes: those with weights (`ismallnet.catalogue`), then filters."""
    from ismallnet.filters import list_filters

    return [*list_weights(), *list_filters()]


def load(
    name_or_folder: str | Path,
    *,
    device: str = "auto",
    threshold: float | None = None,
    k: float | None = None,
    calibration: str | Path | None = None,
    runtime: RuntimeName | Literal["auto"] | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    images: int = 1,
) -> Detector:
    """Load a detector: a classical filter, a trained network, or an exported one.

    Args:
        name_or_folder: A name of `list_detectors()`; or a model folder (`config.json` and
            `model.safetensors`, or shards of it, as on the Hugging Face hub); or a run's folder, of which the
            weights that were best on validation are taken, else the last; or what ``ismallnet export`` wrote,
            its folder or the graph in it. A name goes before a folder of that name (`./ismallnet-s` is the
            folder).
        device: Of a network, as torch names it, or `auto`: an accelerator if there is one, else the CPU.
            Filters run on the CPU.
        threshold: Of a network: the score above which a pixel is target; 0.5 where None.
        k: Of a filter: a pixel is target above mean + k standard deviations of the image's own response; the
            bundled k, which was chosen on train lists, where None.
        calibration: File or folder that ``ismallnet calibrate`` wrote for this detector: its threshold or k.
        runtime: What runs a network. None: PyTorch runs weights, and what is fastest an exported network.
            `onnxruntime`, `openvino`: a graph of the weights, on the CPU, made once and kept
            (`ismallnet.export.cache`); it has no interior and boundary maps. `auto`: what is soonest done of
            PyTorch and the runtimes that gave its scores on this machine.
        precision: `bf16` is faster where the processor has it; by torch and openvino only.
        images: How many are to be scored, as far as is known; for `auto`.

    Raises:
        NoWeightsError: The model is known but has no weights here; the text has the command that trains it.
        FileNotFoundError: Neither a known name nor a folder with weights; or no calibration there.
        PluginError: A filter or a network from outside that is broken or, the weights being here, missing.
        ValueError: Two of threshold, k and calibration, or one that is not for this detector; a threshold
            outside [0, 1], weights of another model, or a device that is not here; names of plugins clash.
    """
    from ismallnet.filters import FILTERS, list_filters

    if sum(given is not None for given in (threshold, k, calibration)) > 1:
        raise ValueError("threshold, k and calibration exclude each other; give one of them")
    name = str(name_or_folder)
    filters = list_filters()
    if name in filters:
        if name not in FILTERS:
            from ismallnet.models import list_models

            list_models()  # an error where a filter from outside has the name of a network of ours
        if threshold is not None:
            raise ValueError(
                f"{name} is a filter, and its response has no scale: give k (--k), the number of standard "
                "deviations above the mean of an image's response, instead of a threshold"
            )
        if k is not None and not math.isfinite(k):
            raise ValueError(f"k is a finite number of standard deviations, such as 8; got {k}")
        if runtime not in (None, "auto") or precision != "fp32":
            raise ValueError(f"{name} is a filter; runtime and precision are for networks, leave them out")
        detector = Detector.from_filter(name, rule=None if k is None else Statistical(k))
    elif k is not None:
        raise ValueError(
            f"k is for the filters ({', '.join(filters)}); {name} is none: give a threshold (--threshold)"
        )
    else:
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold} is outside [0, 1], the range of a network's score")
        detector = _load_network(name_or_folder, device, runtime, precision == "bf16", images)
        if threshold is not None:
            detector.rule = Fixed(threshold)
    if calibration is not None:
        detector.rule = _calibrated_rule(Path(calibration), detector)
    return detector


def _load_network(
    name_or_folder: str | Path, device: str, runtime: str | None, bf16: bool, images: int
) -> Detector:
    from ismallnet.checkpoint import load_model, weights_sha256
    from ismallnet.runtimes import device_of, has_bf16, is_artefact, name_of, open_artefact

    path, on_cpu = Path(name_or_folder), device in ("auto", "cpu")
    chosen = name_of(runtime)
    exported = is_artefact(path)
    if not on_cpu and (exported or chosen not in (None, "torch")):
        raise ValueError(f"graphs run on the CPU here; got device {device!r}: leave it out, or choose torch")
    if exported:
        artefact, used, run = open_artefact(path, runtime=chosen, bf16=bf16, images=images)
        return Detector.from_artefact(artefact, used, run, name=f"{artefact.model} ({path})", bf16=bf16)
    folder = find_weights(name_or_folder)
    named = folder.name if folder == list_weights().get(folder.name) else None
    if runtime not in (None, "torch") and on_cpu:
        from ismallnet.export.cache import graph_of

        if graph := graph_of(folder, runtime=chosen, bf16=bf16, images=images):
            artefact, used, run = open_artefact(graph[0], runtime=graph[1], bf16=bf16)
            name = named or f"{artefact.model} ({folder})"
            detector = Detector.from_artefact(artefact, used, run, name=name, bf16=bf16)
            detector.folder = folder
            return detector
    device = device_of(device)
    if bf16 and device == "cpu" and not has_bf16(device):
        raise ValueError("this processor only emulates bfloat16, many times slower; leave --precision out")
    model, saved = load_model(folder)
    detector = Detector.from_model(
        model,
        name=named or f"{saved.name} ({folder})",
        device=device,
        precision="bf16" if bf16 else "float32",
    )
    detector.folder, detector.weights_sha256 = folder, weights_sha256(folder)
    return detector


def _calibrated_rule(path: Path, detector: Detector) -> Rule:
    """Return the rule that a calibration chose, if it is this detector's, by weights or else by name."""
    path = path / CALIBRATION if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no calibration at {path}; make one with ismallnet calibrate")
    try:
        content = json.loads(path.read_text("utf-8"))
        name, weights, value = str(content["detector"]), content["weights_sha256"], float(content["value"])
        rule: Rule = {"k": Statistical, "threshold": Fixed}[content["variable"]](value)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file that ismallnet calibrate wrote ({error!r})") from error
    if weights != detector.weights_sha256 or (weights is None and name != detector.name):
        of, own = (
            f"(weights {sha[:8]})" if sha else "(no weights)" for sha in (weights, detector.weights_sha256)
        )
        raise ValueError(
            f"{path} is for {name} {of}, not for {detector.name} {own}; run ismallnet calibrate for that one"
        )
    return rule


def _checked(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the pixels as float32 if they are a grey image in [0, 1]."""
    pixels = np.asarray(pixels)
    advice = "ismallnet.normalise(array) makes an image of any array"
    if pixels.ndim != 2 or pixels.size == 0 or pixels.dtype.kind != "f":
        raise ValueError(f"an image is (H, W) float in [0, 1]; got {pixels.dtype} {pixels.shape}; {advice}")
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN fails too
        raise ValueError(f"an image is in [0, 1]; got {pixels.min()} to {pixels.max()}; {advice}")
    return pixels.astype(np.float32, copy=False)
