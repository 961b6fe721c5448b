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
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from ismallnet.config import Augment
    from ismallnet.data.loader import Pool


class Batch(NamedTuple):
    """B crops of side S; every map is (B, 1, S, S) float32 in [0, 1]."""

    image: Tensor
    target: Tensor
    interior: Tensor
    boundary: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What was drawn for B crops."""

    index: Tensor
    """(B,) int64: which image."""
    centre: Tensor
    """(B, 2) float32: where the crop's centre lies in its image: x, y in pixels."""
    matrix: Tensor
    """(B, 2, 2) float32: from an offset in the crop to an offset in the image."""
    low: Tensor
    high: Tensor
    """(B, 2) float32: coordinates are clamped to this range; infinite: reflected at the image's border."""
    curve: Tensor
    """(B, 6) float32: grey level x -> ((x - c0) * c1) ** c2 * c3 + c4, then c5 of the way to its 3×3 blur."""
    noise: Tensor | None
    """(B, 1, S, S) float32, added last."""

    def part(self, wanted: slice) -> Plan:
        """The plan of some of the crops."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        chosen: dict[str, Any] = {k: None if v is None else v[wanted] for k, v in values.items()}
        return Plan(**chosen)


def draw(pool: Pool, index: Tensor, size: int, augment: Augment, generator: torch.Generator) -> Plan:
    """Draw a batch of crops.

    Args:
        pool: The images.
        index: (B,) int64: which images, one a crop.
        size: S: side of the crops in pixels.
        augment: What may happen to them.
        generator: On the pool's device; the plan is a pure function of its state.
    """
    if augment.mode == "paper":
        return _draw_paper(pool, index, size, generator)
    warped, matrix = _matrices(len(index), augment, generator)
    centre = _centres(pool, index, size, matrix, augment.targets, generator)
    half = (size - 1) / 2
    on_grid = centre.floor() + half % 1  # an unresampled crop falls on whole pixels
    curve, sigma = _curves(pool.grey[index], augment, generator)
    noise = None
    if augment.noise > 0:
        shape = (len(index), 1, size, size)
        noise = torch.randn(shape, generator=generator, device=centre.device) * sigma.view(-1, 1, 1, 1)
    return Plan(
        index=index,
        centre=torch.where(warped[:, None], centre, on_grid),
        matrix=matrix,
        low=torch.full_like(centre, -math.inf),
        high=torch.full_like(centre, math.inf),
        curve=curve,
        noise=noise,
    )


def cut(pool: Pool, plan: Plan, size: int, *, soft_mask: bool) -> Batch:
    """Make the crops of a plan.

    Args:
        pool: The images the plan was drawn for.
        plan: See `draw`.
        size: The side it was drawn for.
        soft_mask: Keep resampled masks in [0, 1]; else 1 where they reach one half, 0 elsewhere.
    """
    planes = _gather(pool, plan, size)
    image = _altered(planes[:, :1], plan)
    planes[plan.curve[:, 3] == 0, 1:] = 0  # a blank crop shows no target
    target = planes[:, 1:2] if soft_mask else (planes[:, 1:2] >= 0.5).float()
    return Batch(image, target, planes[:, 2:3], planes[:, 3:4])


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def _log_uniform(largest: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Between 1 / largest and largest."""
    return _uniform(-math.log(largest), math.log(largest), shape, generator).exp()


def _chance(probability: float, count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device) < probability


def _matrices(count: int, augment: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which crops are resampled, (B,) bool, and the maps from crop to image, (B, 2, 2)."""
    warped = _chance(augment.warp, count, generator)
    angle = _uniform(-augment.rotation, augment.rotation, (count,), generator).deg2rad() * warped
    scale = _log_uniform(augment.scale, (count,), generator)
    aspect = _log_uniform(math.sqrt(augment.aspect), (count,), generator)
    steps = torch.stack([1 / (scale * aspect), aspect / scale], dim=1)
    steps = torch.where(warped[:, None], steps, 1.0)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
    matrix = rotation * steps[:, None, :]
    if augment.symmetry:
        signs = 1 - 2 * _chance(0.5, 2 * count, generator).view(-1, 1, 2).float()
        swapped = _chance(0.5, count, generator)[:, None, None]
        matrix = torch.where(swapped, matrix.flip(2), matrix) * signs
    return warped, matrix


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


def _curves(grey: Tensor, augment: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The grey-level curves, (B, 6), and the standard deviations of the noise, (B,)."""
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
    blur = (altered & _chance(augment.blur, count, generator)).float()
    sigma = _uniform(0, augment.noise, (count,), generator) * (altered | blank)
    level = ((mean - black) * factor).clamp(0, 1) ** gamma  # where the image's mean has gone
    sign = torch.where(inverted, -1.0, 1.0)
    shift = torch.where(inverted, 1 - level, level) + offset - sign * gain * level
    return torch.stack([black, factor, gamma, sign * gain, shift, blur], dim=1), sigma


def _draw_paper(pool: Pool, index: Tensor, size: int, generator: torch.Generator) -> Plan:
    """As the official code: up to an eighth of each dimension cut off, half mirrored, scaled to a square."""
    count = len(index)
    full = pool.size[index].float()
    removed = (_uniform(0, 1, (count, 2), generator) * (full / 8).floor()).floor()
    low = (_uniform(0, 1, (count, 2), generator) * removed).floor()
    kept = full - removed
    mirror = 1 - 2 * _chance(0.5, count, generator).float()
    steps = kept / size * torch.stack([mirror, torch.ones_like(mirror)], dim=1)
    plain = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 0.0], device=full.device)
    return Plan(
        index=index,
        centre=low + (kept - 1) / 2,
        matrix=torch.diag_embed(steps),
        low=low,
        high=low + kept - 1,
        curve=plain.expand(count, -1),
        noise=None,
    )


def _gather(pool: Pool, plan: Plan, size: int) -> Tensor:
    """(B, 4, S, S) float32 in [0, 1]: grey level, mask, interior, boundary, read bilinearly."""
    offset = torch.arange(size, device=plan.centre.device, dtype=torch.float32) - (size - 1) / 2
    limits = pool.size[plan.index]
    corners, weights = [], []
    for axis in (0, 1):
        along, across = plan.matrix[:, axis, 0], plan.matrix[:, axis, 1]
        place = plan.centre[:, axis, None, None] + along[:, None, None] * offset
        place = place + across[:, None, None] * offset[:, None]
        place = torch.clamp(place, plan.low[:, axis, None, None], plan.high[:, axis, None, None])
        whole = place.floor()
        fraction = place - whole
        first = whole.int()
        length = limits[:, axis, None, None].int()
        corners.append((_reflected(first, length), _reflected(first + 1, length)))
        weights.append((1 - fraction, fraction))
    start, width = pool.start[plan.index, None, None], limits[:, 0, None, None]
    total = torch.zeros((len(plan.index), size, size, 4), device=plan.centre.device)
    for row, row_weight in zip(corners[1], weights[1], strict=True):
        begin = start + row * width
        for column, column_weight in zip(corners[0], weights[0], strict=True):
            words = pool.pixels[begin + column]
            total.addcmul_(words.view(torch.uint8).view(total.shape), (row_weight * column_weight)[..., None])
    return total.permute(0, 3, 1, 2).contiguous() / 255


def _reflected(place: Tensor, length: Tensor) -> Tensor:
    """Whole coordinates mirrored at the first and the last pixel into [0, length)."""
    last = (length - 1).clamp(min=1)
    place = last - (place.abs() % (2 * last) - last).abs()
    return torch.minimum(place, length - 1)


def _altered(image: Tensor, plan: Plan) -> Tensor:
    """(B, 1, S, S): the grey levels after curve, blur and noise, clipped to [0, 1]."""
    black, factor, gamma, gain, shift, blur = (c.view(-1, 1, 1, 1) for c in plan.curve.unbind(1))
    image = ((image - black) * factor).clamp_(0, 1).pow_(gamma).mul_(gain).add_(shift)
    if bool((plan.curve[:, 5] > 0).any()):
        kernel = torch.tensor([0.25, 0.5, 0.25], device=image.device)
        smooth = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), torch.outer(kernel, kernel)[None, None])
        image = torch.lerp(image, smooth, blur)
    if plan.noise is not None:
        image = image + plan.noise
    return image.clamp_(0, 1)
