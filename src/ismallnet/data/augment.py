"""Cutting a batch of training crops out of resident images, all on the device.

Every crop is one sampling grid in the pixel coordinates of its image: an affine map of the crop's pixel
offsets, reflected at the image's own border, read bilinearly with four gathers of 32-bit pixels. Crops that
are not resampled (flips and quarter turns only) come out of the same arithmetic exactly.

All randomness of a batch is drawn for the whole batch first (`draw`), so that devices that each make a part
of it (`cut`) agree with one device that makes it all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from ismallnet.config import Augment
    from ismallnet.data.loader import Pool


PATCH = 32
"""Side of the square around a target that is copied, in pixels; what is copied has to lie inside."""
_RING = 2
"""Pixels around its mask that are copied with a target: optics spread it that far."""
_STANDS_OUT = 1.5, 0.015
"""Least contrast of a copy: in standard deviations of its surroundings, and in units of the full range."""
_FILL = 33
"""Side of the square, in pixels, whose mean takes the place of a target where a background is added."""


class Batch(NamedTuple):
    """B crops of side S; every map is (B, 1, S, S) float32 in [0, 1]."""

    image: Tensor
    target: Tensor
    interior: Tensor
    boundary: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _PerCrop:
    """Tensors with one row a crop."""

    def __getitem__(self, wanted: slice | Tensor) -> Self:
        """The rows of some of the crops."""
        return type(self)(*(getattr(self, f.name)[wanted] for f in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Copies(_PerCrop):
    """Where B crops get the copy of a target, and from where it is."""

    index: Tensor
    """(B,) int64: which image it is from; -1: no copy."""
    centre: Tensor
    """(B, 2) float32: x, y of the patch's centre there."""
    matrix: Tensor
    """(B, 2, 2) float32: how the patch is turned."""
    corner: Tensor
    """(B, 2) int64: x, y of its first pixel in the crop."""
    gain: Tensor
    """(B,) float32: factor on its contrast."""


@dataclass(frozen=True, slots=True, eq=False)
class Clutter(_PerCrop):
    """The backgrounds that are added to B crops; read as the crops are, see `Plan`."""

    index: Tensor
    """(B,) int64: which image; -1: none."""
    centre: Tensor
    """(B, 2) float32."""
    matrix: Tensor
    """(B, 2, 2) float32."""
    strength: Tensor
    """(B,) float32: largest standard deviation of what is added, in those of the crop."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What was drawn for B crops."""

    index: Tensor
    """(B,) int64: which image."""
    centre: Tensor
    """(B, 2) float32: where the crop's centre lies in its image: x, y in pixels."""
    matrix: Tensor
    """(B, 2, 2) float32: from an offset in the crop to an offset in the image."""
    bounds: Tensor | None
    """(B, 2, 2) float32: first and last x, first and last y that are read; None: the whole image."""
    curve: Tensor
    """(B, 5) float32: grey level x -> ((x - c0) * c1) ** c2 * c3 + c4."""
    blur: Tensor
    """(B,) bool: which crops are blurred then."""
    noise: Tensor | None
    """(B, 1, S, S) float32, added last."""
    clutter: Clutter | None = None
    """Backgrounds of other images, added first."""
    copies: Copies | None = None
    """Targets of other images, put in before the grey levels are altered."""

    def part(self, wanted: slice) -> Plan:
        """The plan of some of the crops."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        chosen: dict[str, Any] = {k: None if v is None else v[wanted] for k, v in values.items()}
        return Plan(**chosen)


def draw(pool: Pool, index: Tensor, size: int, augment: Augment, generator: torch.Generator) -> Plan:
    """Draw a batch of crops.

    Args:
        pool: The images.
        index: (B,) int64: which of the run's images, one a crop.
        size: S: side of the crops in pixels.
        augment: What may happen to them.
        generator: On the pool's device; the plan is a pure function of its state.
    """
    if augment.mode == "paper":
        return _draw_paper(pool, index, size, generator)
    index = _forms(pool, index, augment, generator)
    warped, matrix = _matrices(pool.turns[index], augment, generator)
    centre = _centres(pool, index, size, matrix, augment.targets, generator)
    half = (size - 1) / 2
    on_grid = centre.floor() + half % 1  # an unresampled crop falls on whole pixels
    curve, blur, sigma = _curves(pool.grey[index], augment, generator)
    noise = None
    if augment.noise > 0:
        shape = (len(index), 1, size, size)
        noise = torch.randn(shape, generator=generator, device=centre.device) * sigma.view(-1, 1, 1, 1)
    return Plan(
        index=index,
        centre=torch.where(warped[:, None], centre, on_grid),
        matrix=matrix,
        bounds=None,
        curve=curve,
        blur=blur,
        noise=noise,
        clutter=_clutter(pool, len(index), size, augment, generator) if augment.clutter > 0 else None,
        copies=_copies(pool, len(index), size, augment, generator) if augment.paste > 0 else None,
    )


def cut(pool: Pool, plan: Plan, size: int, *, soft_mask: bool) -> Batch:
    """Make the crops of a plan.

    Args:
        pool: The images the plan was drawn for.
        plan: See `draw`.
        size: The side it was drawn for.
        soft_mask: Keep resampled masks in [0, 1]; else 1 where they reach one half, 0 elsewhere.
    """
    planes = _gather(pool, plan.index, plan.centre, plan.matrix, size, bounds=plan.bounds)
    if plan.clutter is not None:
        _add_clutter(planes[0], pool, plan.clutter)
    if plan.copies is not None:
        _paste(planes, pool, plan.copies)
    planes[1:, plan.curve[:, 3] == 0] = 0  # a blank crop shows no target
    image, target, interior, boundary = planes.unsqueeze(2)
    target = target if soft_mask else (target >= 0.5).float()
    return Batch(_altered(image, plan), target, interior, boundary)


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def _log_uniform(largest: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Between 1 / largest and largest."""
    return _uniform(-math.log(largest), math.log(largest), shape, generator).exp()


def _chance(probability: float, count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device) < probability


def _forms(pool: Pool, index: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """One of the forms of each of the run's images."""
    if pool.forms.shape[1] == 1 or not augment.symmetry:
        return index
    form = torch.randint(pool.forms.shape[1], (len(index),), generator=generator, device=index.device)
    return pool.forms[index, form]


def _symmetries(matrix: Tensor, turns: Tensor, generator: torch.Generator) -> Tensor:
    """Each of (B, 2, 2) maps after one of the eight flips and quarter turns, where (B,) `turns` allows it."""
    count = len(matrix)
    signs = 1 - 2 * _chance(0.5, 2 * count, generator).view(-1, 1, 2).float()
    swapped = _chance(0.5, count, generator)[:, None, None]
    turned = torch.where(swapped, matrix.flip(2), matrix) * signs
    return torch.where(turns[:, None, None], turned, matrix)


def _matrices(turns: Tensor, augment: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which crops are resampled, (B,) bool, and the maps from crop to image, (B, 2, 2)."""
    count = len(turns)
    warped = _chance(augment.warp, count, generator)
    angle = _uniform(-augment.rotation, augment.rotation, (count,), generator).deg2rad() * (warped & turns)
    scale = _log_uniform(augment.scale, (count,), generator)
    aspect = _log_uniform(math.sqrt(augment.aspect), (count,), generator)
    steps = torch.stack([1 / (scale * aspect), aspect / scale], dim=1)
    steps = torch.where(warped[:, None], steps, 1.0)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
    matrix = rotation * steps[:, None, :]
    return warped, _symmetries(matrix, turns, generator) if augment.symmetry else matrix


def _centres(
    pool: Pool, index: Tensor, size: int, matrix: Tensor, probability: float, generator: torch.Generator
) -> Tensor:
    """(B, 2): crop centres, inside the image as far as the crop fits; some chosen to show a random target."""
    count = len(index)
    last = (pool.size[index] - 1).float()
    half = (size - 1) / 2
    reach = matrix.abs().sum(2) * half
    low, high = torch.minimum(reach, last / 2), torch.maximum(last - reach, last / 2)
    anywhere = low + _uniform(0, 1, (count, 2), generator) * (high - low)
    place = _uniform(-half, half, (count, 2), generator)
    wanted = _chance(probability, count, generator) & (pool.count[index] > 0)
    pick = _uniform(0, 1, (count,), generator)
    if len(pool.centres) == 0:
        return anywhere
    which = pool.first[index] + (pick * pool.count[index]).long()
    target = pool.centres[which.clamp(max=len(pool.centres) - 1)]
    free = target - (matrix @ place[:, :, None]).squeeze(2)
    inside = free.clamp(low, high)
    seen = torch.linalg.solve(matrix, (target - inside)[:, :, None]).squeeze(2).abs().amax(1) <= half
    around = torch.where(seen[:, None], inside, free)  # a turned crop may have to cross the border to see it
    return torch.where(wanted[:, None], around, anywhere)


def _curves(grey: Tensor, augment: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The grey-level curves, (B, 5); which crops to blur, (B,); standard deviations of the noise, (B,)."""
    count = len(grey)
    altered = _chance(augment.intensity, count, generator)
    mean, low, high = grey.unbind(1)
    stretched = altered & _chance(augment.stretch, count, generator)
    share = (2 * _uniform(0, 1, (2, count), generator)).clamp(max=1) * stretched  # half of them to the full
    black, white = share[0] * low, 1 - share[1] * (1 - high)
    factor = 1 / (white - black).clamp(min=0.05)
    gamma = torch.where(altered, _log_uniform(augment.gamma, (count,), generator), 1.0)
    blank = _chance(augment.blank, count, generator)
    gain = torch.where(altered, _log_uniform(augment.gain, (count,), generator), 1.0) * ~blank
    offset = _uniform(-augment.offset, augment.offset, (count,), generator) * altered
    inverted = altered & _chance(augment.invert, count, generator)
    blur = altered & _chance(augment.blur, count, generator)
    sigma = _uniform(0, augment.noise, (count,), generator) * (altered | blank)
    level = ((mean - black) * factor).clamp(0, 1) ** gamma  # where the image's mean has gone
    sign = torch.where(inverted, -1.0, 1.0)
    shift = torch.where(inverted, 1 - level, level) + offset - sign * gain * level
    return torch.stack([black, factor, gamma, sign * gain, shift], dim=1), blur, sigma


def _clutter(pool: Pool, count: int, size: int, augment: Augment, generator: torch.Generator) -> Clutter:
    """Draw an image, a place anywhere in it, a turn and a strength a crop."""
    device = pool.size.device
    index = torch.randint(len(pool), (count,), generator=generator, device=device)
    index = _forms(pool, index, augment, generator)
    matrix = torch.eye(2, device=device).expand(count, 2, 2)
    matrix = _symmetries(matrix, pool.turns[index], generator) if augment.symmetry else matrix
    centre = _centres(pool, index, size, matrix, 0, generator)
    strength = _uniform(0, augment.clutter_strength, (count,), generator)
    wanted = _chance(augment.clutter, count, generator)
    return Clutter(torch.where(wanted, index, -1), centre.floor() + (size - 1) / 2 % 1, matrix, strength)


def _add_clutter(image: Tensor, pool: Pool, clutter: Clutter) -> None:
    """Add backgrounds, their targets painted over, to (B, S, S) grey levels in place."""
    crops = (clutter.index >= 0).nonzero().flatten()
    if len(crops) == 0:
        return
    clutter = clutter[crops]
    size = image.shape[-1]
    other, mask = _gather(pool, clutter.index, clutter.centre, clutter.matrix, size)[:2]
    kept = 1 - F.max_pool2d(mask, 2 * _RING + 1, 1, _RING)
    around, weight = (_box_mean(plane, _FILL) for plane in (other * kept, kept))
    background = torch.lerp(around / weight.clamp(min=1e-6), other, kept)
    added = background - background.mean((1, 2), keepdim=True)
    # never amplified: that would add the other image's noise
    spread, its_spread = (plane.std((1, 2)) for plane in (image[crops], added))
    factor = (clutter.strength * spread / its_spread.clamp(min=1e-6)).clamp(max=1)
    image[crops] = (image[crops] + added * factor[:, None, None]).clamp_(0, 1)


def _box_mean(planes: Tensor, side: int) -> Tensor:
    """Of (B, S, S): the mean over a square, 0 beyond the border."""
    rows = F.avg_pool2d(planes[:, None], (side, 1), 1, (side // 2, 0))
    return F.avg_pool2d(rows, (1, side), 1, (0, side // 2))[:, 0]


def _copies(pool: Pool, count: int, size: int, augment: Augment, generator: torch.Generator) -> Copies | None:
    """Draw a target, a turn, a place and a contrast a crop; None where nothing can be copied."""
    if pool.targets == 0 or size < PATCH:
        return None
    device = pool.centres.device
    which = torch.randint(pool.targets, (count,), generator=generator, device=device)
    # an image without targets begins where the next one does: the last that begins there has them
    index = torch.searchsorted(pool.first[: len(pool)], which, right=True) - 1
    number = which - pool.first[index]
    index = _forms(pool, index, augment, generator)
    there = pool.count[index] > 0  # masks that were moved may have met, or left the image
    which = pool.first[index] + torch.minimum(number, pool.count[index] - 1) * there
    matrix = torch.eye(2, device=device).expand(count, 2, 2)
    matrix = _symmetries(matrix, pool.turns[index], generator) if augment.symmetry else matrix
    corner = torch.randint(size - PATCH + 1, (count, 2), generator=generator, device=device)
    gain = _log_uniform(augment.gain, (count,), generator)
    centre = pool.centres[which.clamp(max=len(pool.centres) - 1)].floor() + 0.5  # of an even number of pixels
    reach = torch.minimum(centre, pool.size[index] - 1 - centre).amin(1)
    whole = reach >= (PATCH - 1) / 2  # beyond the border there is a mirror image
    wanted = _chance(augment.paste, count, generator) & whole & there
    return Copies(torch.where(wanted, index, -1), centre, matrix, corner, gain)


def _paste(planes: Tensor, pool: Pool, copies: Copies) -> None:
    """Add targets to (4, B, S, S) crops in place: their difference to their surroundings, and their masks.

    A copy is left out where its target does not fit the patch, would touch one that is there, or would not
    stand out, as on white.
    """
    crops = (copies.index >= 0).nonzero().flatten()
    if len(crops) == 0:
        return
    copies = copies[crops]
    patch = _gather(pool, copies.index, copies.centre, copies.matrix, PATCH)
    mask, near, added = _lifted(patch)
    steps = torch.arange(PATCH, device=crops.device)
    rows = (copies.corner[:, 1, None] + steps)[:, :, None]
    columns = (copies.corner[:, 0, None] + steps)[:, None, :]
    here = crops[:, None, None], rows, columns
    old = planes[0][here]
    new = (old + added * copies.gain[:, None, None]).clamp(0, 1)

    inner = F.pad(torch.ones(PATCH - 2, PATCH - 2, device=crops.device), (1, 1, 1, 1))
    fits = (near * (1 - inner)).amax((1, 2)) == 0
    free = (planes[1][here] * near).amax((1, 2)) == 0
    contrast = ((new - old) * mask).sum((1, 2)).abs() / mask.sum((1, 2)).clamp(min=1)
    spread, level = _STANDS_OUT
    seen = contrast >= torch.clamp(spread * old.std((1, 2)), min=level)
    chosen = (fits & free & seen)[:, None, None]
    planes[0][here] = torch.where(chosen, new, old)
    for plane, copied in zip(planes[1:], patch[1:], strict=True):
        plane[here] = torch.where(chosen, torch.maximum(plane[here], copied), plane[here])


def _lifted(patch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of (4, B, P, P): masks, the pixels that are copied, and by how much they differ from a ring around."""
    mask = patch[1]
    near, ring = (F.max_pool2d(mask, 2 * reach + 1, 1, reach) for reach in (_RING, 2 * _RING + 1))
    ring = ring - near
    surroundings = (patch[0] * ring).sum((1, 2)) / ring.sum((1, 2)).clamp(min=1)
    soft = F.avg_pool2d(near[:, None], 3, 1, 1)[:, 0]
    return mask, near, (patch[0] - surroundings[:, None, None]) * soft


def _draw_paper(pool: Pool, index: Tensor, size: int, generator: torch.Generator) -> Plan:
    """As the official code: up to an eighth of each dimension cut off, half mirrored, scaled to a square."""
    count = len(index)
    full = pool.size[index].float()
    removed = (_uniform(0, 1, (count, 2), generator) * (full / 8).floor()).floor()
    low = (_uniform(0, 1, (count, 2), generator) * removed).floor()
    kept = full - removed
    mirror = 1 - 2 * _chance(0.5, count, generator).float()
    steps = kept / size * torch.stack([mirror, torch.ones_like(mirror)], dim=1)
    plain = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0], device=full.device)
    return Plan(
        index=index,
        centre=low + (kept - 1) / 2,
        matrix=torch.diag_embed(steps),
        bounds=torch.stack([low, low + kept - 1], dim=2),
        curve=plain.expand(count, -1),
        blur=torch.zeros_like(index, dtype=torch.bool),
        noise=None,
    )


def _gather(
    pool: Pool, index: Tensor, centre: Tensor, matrix: Tensor, size: int, *, bounds: Tensor | None = None
) -> Tensor:
    """(4, B, S, S) float32 in [0, 1]: grey level, mask, interior, boundary, read bilinearly; see `Plan`."""
    offset = torch.arange(size, device=centre.device, dtype=torch.float32) - (size - 1) / 2
    sides = pool.size[index]
    wholes, fractions = [], []
    for axis in (0, 1):
        along = matrix[:, axis, 0, None] * offset
        across = matrix[:, axis, 1, None] * offset + centre[:, axis, None]
        place = along[:, None, :] + across[:, :, None]
        if bounds is not None:
            low, high = bounds[:, axis, :, None, None].unbind(1)
            place = place.clamp(low, high)
        place = _reflected(place, (sides[:, axis, None, None] - 1).float())
        wholes.append(place.floor())
        fractions.append(place - wholes[-1])
    width = sides[:, 0, None, None]
    begin = pool.start[index, None, None] + wholes[1].long() * width + wholes[0].long()
    # where a fraction is 0, as on the last row and column, the next pixel is read and weighs nothing
    upper = torch.lerp(_planes(pool, begin), _planes(pool, begin + 1), fractions[0])
    begin = begin + width
    lower = torch.lerp(_planes(pool, begin), _planes(pool, begin + 1), fractions[0])
    return torch.lerp(upper, lower, fractions[1]).div_(255)


def _planes(pool: Pool, place: Tensor) -> Tensor:
    """(4, B, S, S) float32, 0-255: the four bytes of the pixels at (B, S, S) places of the pool."""
    words = pool.pixels.index_select(0, place.flatten()).view(place.shape)
    return torch.stack([(words >> shift & 255).float() for shift in (0, 8, 16, 24)])


def _reflected(place: Tensor, last: Tensor) -> Tensor:
    """Coordinates mirrored into [0, last] at the first and the last pixel, as often as it takes."""
    period = last.clamp(min=1)
    for _ in range(int((place.abs() / (2 * period)).amax()) + 1):
        place = period - (period - place.abs()).abs()
    return place.clamp(max=last)


def _altered(image: Tensor, plan: Plan) -> Tensor:
    """(B, 1, S, S): the grey levels after curve, blur and noise, clipped to [0, 1]."""
    black, factor, gamma, gain, shift = (c.view(-1, 1, 1, 1) for c in plan.curve.unbind(1))
    image = ((image - black) * factor).clamp_(0, 1).pow_(gamma).mul_(gain).add_(shift)
    blurred = plan.blur.nonzero().flatten()
    if len(blurred):
        kernel = torch.tensor([0.25, 0.5, 0.25], device=image.device)
        padded = F.pad(image[blurred], (1, 1, 1, 1), mode="reflect")
        image[blurred] = F.conv2d(padded, torch.outer(kernel, kernel)[None, None])
    if plan.noise is not None:
        image = image + plan.noise
    return image.clamp_(0, 1)
