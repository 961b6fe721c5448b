"""Synthetic infrared scenes with exact masks: for demonstrations, documents and tests, never for training.

A scene is clutter (random fields with a 1/f spectrum, shaped into clouds, a sea or terrain), blurred by the
optics, plus sensor noise, plus targets whose amplitudes are solved for, so that each has the local
signal-to-clutter ratio asked for: |mean over the target - mean over its ring| / standard deviation over the
ring, the ring being the bounding box grown by 20 pixels without any target's pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np

from ismallnet.data.clutter import CLUTTER, Clutter
from ismallnet.publish import room
from ismallnet.targets import RING_PX, ring
from ismallnet.types import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float64]

Kind = Literal["point", "spot", "extended"]

MASK_LEVEL = 0.25
"""A pixel is a target's where the target's profile reaches this part of its peak."""
OPTICS = 0.7
"""Standard deviation in pixels of the optics' Gaussian blur."""
MARGIN = 8
"""Least distance in pixels of a target's centre from the border."""
APART = 24
"""Least distance in pixels between the centres of two targets."""
PLACES = 200
"""Random places that are tried for a target."""
SIGMAS: dict[Kind, tuple[tuple[float, float], tuple[float, float]]] = {
    "point": ((0.0, 0.0), (0.0, 0.0)),
    "spot": ((0.7, 1.5), (0.7, 1.5)),
    "extended": ((2.0, 3.5), (0.7, 1.2)),
}
"""Range of the standard deviations, before the optics, along and across a target, in pixels."""
ROUNDS, PRECISION = 100, 1e-7
"""Most rounds of solving for the amplitudes, and the change at which they are good enough."""
LOW, HIGH = 7000, 11000
"""The counts of a 14-bit sensor that 0 and 1 become in a 16-bit file."""


@dataclass(frozen=True, slots=True)
class PlacedTarget:
    """A target as it was drawn."""

    kind: Kind
    x: float
    y: float
    """Centre, sub-pixel."""
    along: float
    across: float
    """Standard deviations of the Gaussian profile in pixels, optics included."""
    angle: float
    """Direction of the longer axis, radians from the x axis towards y."""
    amplitude: float
    """Height of the profile above the clutter, of an intensity range of 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A synthetic infrared image with its truth."""

    image: NDArray[np.float32]
    """(H, W) in [0, 1]."""
    mask: NDArray[np.bool_]
    """(H, W)."""
    targets: tuple[PlacedTarget, ...]
    clutter: Clutter
    seed: int
    scr: float
    """Local signal-to-clutter ratio of every target, in `image`."""

    def to_uint8(self) -> NDArray[np.uint8]:
        """Round to 8 bits, 0 and 1 becoming 0 and 255."""
        return np.rint(self.image * 255).astype(np.uint8)

    def to_uint16(self, low: int = LOW, high: int = HIGH) -> NDArray[np.uint16]:
        """Round to 16 bits, 0 and 1 becoming `low` and `high` (0 to 65535)."""
        return np.asarray(np.rint(low + self.image * float(high - low)), np.uint16)

    def sample(self, id: str) -> Sample:
        """The scene as a data set gives it, in 8 bits."""
        return Sample(id, self.to_uint8(), self.mask)


@dataclass(frozen=True, slots=True)
class Record:
    """The parameters of a scene that was written."""

    id: str
    clutter: Clutter
    seed: int
    scr: float
    bit_depth: int
    range: tuple[int, int]
    """The file's values of the intensities 0 and 1."""
    targets: tuple[PlacedTarget, ...]


def scene(
    seed: int,
    *,
    height: int = 256,
    width: int = 320,
    clutter: Clutter = "cloud",
    targets: Sequence[Kind] = ("spot",),
    scr: float = 6.0,
    noise: float = 0.004,
) -> Scene:
    """Make a scene; the same arguments give the same scene.

    Args:
        seed: Seed of the random generator.
        height: Rows, at least 64.
        width: Columns, at least 64.
        clutter: What the background looks like.
        targets: One kind a target: a "point" is as wide as the optics' blur, a "spot" round, "extended"
            elongated. All are brighter than their surroundings.
        scr: Local signal-to-clutter ratio of each, above 0.
        noise: Standard deviation of the sensor's noise, of an intensity range of 1.

    Raises:
        ValueError: a size, kind or number out of range, or targets that find no room.
    """
    if height < 64 or width < 64:
        raise ValueError(f"a scene has at least 64x64 pixels, got {height}x{width}")
    if clutter not in CLUTTER:
        raise ValueError(f"unknown clutter {clutter!r}; choose from {', '.join(CLUTTER)}")
    unknown = [kind for kind in targets if kind not in SIGMAS]
    if unknown:
        raise ValueError(f"unknown target {unknown[0]!r}; choose from {', '.join(SIGMAS)}")
    if scr <= 0 or noise <= 0:
        raise ValueError(f"scr and noise are above 0, got {scr} and {noise}")
    rng = np.random.default_rng(seed)
    background = cv2.GaussianBlur(CLUTTER[clutter](rng, height, width), (0, 0), OPTICS)
    background = background + _sensor_noise(rng, height, width, noise)
    placed = _place(rng, background, targets)
    profiles = [_profile(target, height, width) for target in placed]
    footprints = [profile >= MASK_LEVEL * profile.max() for profile in profiles]
    amplitudes = _solve_amplitudes(background, profiles, footprints, scr)
    image = background + sum((a * p for a, p in zip(amplitudes, profiles, strict=True)), np.zeros(()))
    low, high = (
        min(image.min(), 0.0),
        max(image.max(), 1.0),
    )  # a linear map keeps the ratio; clipping would not
    mask = np.any(footprints, axis=0) if footprints else np.zeros((height, width), np.bool_)
    drawn = tuple(
        replace(t, amplitude=float(a / (high - low))) for t, a in zip(placed, amplitudes, strict=True)
    )
    return Scene(((image - low) / (high - low)).astype(np.float32), mask, drawn, clutter, seed, scr)


def write_scenes(
    out: str | Path,
    count: int,
    *,
    seed: int = 0,
    height: int = 256,
    width: int = 320,
    clutter: Sequence[Clutter] = get_args(Clutter),
    scr: tuple[float, float] = (4.0, 10.0),
    bit_depth: Literal[8, 16] = 8,
    suffix: Literal[".png", ".tiff"] = ".png",
    force: bool = False,
    advance: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Write scenes as a generic data set folder: ``images/``, ``masks/``, ``scenes.json`` (all parameters).

    Args:
        out: The folder.
        count: Number of scenes; kinds of clutter take turns, each scene has one to three targets.
        seed: Seed of the first scene; the others follow.
        height: Rows.
        width: Columns.
        clutter: Kinds of clutter.
        scr: Range that each scene's signal-to-clutter ratio is drawn from.
        bit_depth: Of the images. In 16 bits the scenes lie between the counts `LOW` and `HIGH`.
        suffix: Of the images; masks are PNG, 0 and 255.
        force: Write into a folder that is not empty.
        advance: Called with (scenes done, scenes in all, id of the scene).

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder is not empty.
        OSError: it cannot be written, as on a full disk; nothing of the scenes is left.
        ValueError: no scene asked for, a range that does not ascend; otherwise as `scene`.
    """
    if count < 1 or not 0 < scr[0] <= scr[1]:
        raise ValueError(
            f"got {count} scenes, scr {scr[0]:g} to {scr[1]:g}; ask for 1 or more, 0 < low <= high"
        )
    out = Path(out)
    if out.is_dir() and any(out.iterdir()) and not force:
        raise FileExistsError(f"{out} is not empty; choose another folder or allow writing into it (force)")
    with _made_or_left(out) as fresh:
        records = []
        for number in range(count):
            kind = clutter[number % len(clutter)]
            rng = np.random.default_rng((seed + number, 1))
            kinds = tuple(rng.choice(get_args(Kind), int(rng.integers(1, 4))).tolist())
            ratio = round(float(rng.uniform(*scr)), 2)
            made = scene(seed + number, height=height, width=width, clutter=kind, targets=kinds, scr=ratio)
            id = f"{kind}_{number:04d}"
            records.append(write_scene(fresh, id, made, bit_depth=bit_depth, suffix=suffix))
            if advance is not None:
                advance(number + 1, count, id)
        write_records(fresh, records)
        for path in [path for path in fresh.rglob("*") if path.is_file()]:
            place = out / path.relative_to(fresh)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    return out


@contextmanager
def _made_or_left(out: Path) -> Iterator[Path]:
    """Give a folder within ``out`` to write to; after an error all is as it was."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with room(out), TemporaryDirectory(dir=out, prefix=".unfinished-") as scratch:
            yield Path(scratch)
    except BaseException:
        if new:
            out.rmdir()
        raise


def write_scene(
    out: Path,
    id: str,
    made: Scene,
    *,
    bit_depth: Literal[8, 16] = 8,
    suffix: Literal[".png", ".tiff"] = ".png",
) -> Record:
    """Write one scene to ``images/`` and its mask, as PNG of 0 and 255, to ``masks/`` of a folder.

    Raises:
        OSError: a file cannot be written.
    """
    image = made.to_uint8() if bit_depth == 8 else made.to_uint16()
    record = Record(
        id,
        made.clutter,
        made.seed,
        made.scr,
        bit_depth,
        (0, 255) if bit_depth == 8 else (LOW, HIGH),
        made.targets,
    )
    for path, array in (
        (out / "images" / f"{id}{suffix}", image),
        (out / "masks" / f"{id}.png", made.mask.astype(np.uint8) * 255),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        done, data = cv2.imencode(path.suffix, array)
        if not done:
            raise OSError(f"{path} cannot be encoded")
        path.write_bytes(data.tobytes())  # cv2.imwrite hides a full disk
    return record


def write_records(out: Path, records: Sequence[Record]) -> None:
    """Write ``scenes.json``: the parameters of the scenes of a folder."""
    text = json.dumps({"scenes": [asdict(record) for record in records]}, indent=1)
    (out / "scenes.json").write_text(text + "\n", encoding="utf-8")


def _sensor_noise(rng: np.random.Generator, height: int, width: int, noise: float) -> Field:
    """White noise, and a fixed pattern of columns a quarter as strong, as uncooled focal planes have."""
    white = rng.standard_normal((height, width))
    columns = rng.standard_normal(width)
    return np.asarray((white + columns / 4) * (noise / np.hypot(1, 1 / 4)))


def _place(rng: np.random.Generator, background: Field, kinds: Sequence[Kind]) -> list[PlacedTarget]:
    """Put each target on the calmest of a few random places that are free."""
    height, width = background.shape
    window = (2 * RING_PX + 1, 2 * RING_PX + 1)
    mean = cv2.blur(background, window)
    variance = cv2.blur(background**2, window) - mean**2
    placed: list[PlacedTarget] = []
    for kind in kinds:
        xs = rng.uniform(MARGIN, width - 1 - MARGIN, PLACES).round(2)
        ys = rng.uniform(MARGIN, height - 1 - MARGIN, PLACES).round(2)
        free = [
            (float(x), float(y))
            for x, y in zip(xs, ys, strict=True)
            if all(np.hypot(x - other.x, y - other.y) >= APART for other in placed)
        ]
        if not free:
            raise ValueError(f"no room for {len(kinds)} targets in {height}x{width} pixels; ask for fewer")
        x, y = min(free[:8], key=lambda place: variance[round(place[1]), round(place[0])])
        along, across = (float(np.hypot(rng.uniform(*bounds), OPTICS)) for bounds in SIGMAS[kind])
        placed.append(
            PlacedTarget(
                kind, x, y, max(along, across), min(along, across), float(rng.uniform(0, np.pi)), 1.0
            )
        )
    return placed


def _profile(target: PlacedTarget, height: int, width: int) -> Field:
    """The Gaussian of a target over the pixels' areas (5x5 points each): 1 at the peak, 0 from 6 sigma on."""
    reach = int(np.ceil(6 * target.along))
    top, left = max(round(target.y) - reach, 0), max(round(target.x) - reach, 0)
    rows = min(round(target.y) + reach + 1, height) - top
    columns = min(round(target.x) + reach + 1, width) - left
    points = (np.arange(5) - 2) / 5
    y = (top + np.arange(rows)[:, None] + points).ravel()[:, None] - target.y
    x = (left + np.arange(columns)[:, None] + points).ravel()[None] - target.x
    cos, sin = np.cos(target.angle), np.sin(target.angle)
    fine = np.exp(
        -(((x * cos + y * sin) / target.along) ** 2 + ((y * cos - x * sin) / target.across) ** 2) / 2
    )
    profile = np.zeros((height, width))
    profile[top : top + rows, left : left + columns] = fine.reshape(rows, 5, columns, 5).mean(axis=(1, 3))
    return profile


def _solve_amplitudes(
    background: Field, profiles: list[Field], footprints: list[NDArray[np.bool_]], scr: float
) -> list[float]:
    """The heights at which every target has the ratio asked for, tails and neighbours included.

    A target's own tail lifts the ring's mean and deviation a little: a fixed point, found in a few rounds.
    """
    amplitudes = [0.0] * len(profiles)
    rings = [_ring(footprint, footprints) for footprint in footprints]
    image = background.copy()
    for _ in range(ROUNDS):
        largest = 0.0
        for n, (profile, footprint, where) in enumerate(zip(profiles, footprints, rings, strict=True)):
            around = image[where]
            missing = around.mean() + scr * around.std() - image[footprint].mean()
            step = float(missing / profile[footprint].mean())
            image += step * profile
            amplitudes[n] += step
            largest = max(largest, abs(step))
        if largest < PRECISION:
            break
    return amplitudes


def _ring(footprint: NDArray[np.bool_], footprints: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """The pixels around a target that belong to no target."""
    ys, xs = np.nonzero(footprint)
    around = np.zeros_like(footprint)
    window, free = ring((ys.min(), xs.min(), ys.max() + 1, xs.max() + 1), np.any(footprints, axis=0))
    around[window] = free
    return around
