from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ismallnet.config import Augment, MaskOffset
from ismallnet.data import augment
from ismallnet.data.augment import Batch, Plan
from ismallnet.data.loader import Pool
from ismallnet.types import Sample

STILL = Augment(targets=0, symmetry=False, warp=0, intensity=0, noise=0, blank=0)
"""Nothing but a crop at a random place."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def pool_of(pixels: np.ndarray, mask: np.ndarray | None = None) -> Pool:
    mask = np.zeros(pixels.shape, np.bool_) if mask is None else mask
    return Pool.of([Sample("a", pixels, mask)], recipe="target")


def crops(
    pool: Pool, count: int, size: int, settings: Augment, *, soft: bool = False, seed: int = 0
) -> Batch:
    plan = augment.draw(pool, torch.zeros(count, dtype=torch.int64), size, settings, generator(seed))
    return augment.cut(pool, plan, size, soft_mask=soft)


def places(pixels: np.ndarray, crop: np.ndarray) -> list[tuple[int, int]]:
    """Where in an image a crop is found pixel for pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, crop.shape)
    return [tuple(place) for place in np.argwhere((windows == crop).all((2, 3)))]


def levels(batch: Batch) -> np.ndarray:
    return np.rint(batch.image[:, 0].numpy() * 255).astype(np.uint8)


@pytest.mark.parametrize("size", [16, 17])
def test_a_still_crop_is_a_window_of_the_image_exactly(size: int) -> None:
    pixels = image(40, 56)
    batch = crops(pool_of(pixels), 20, size, STILL)
    found = [places(pixels, crop) for crop in levels(batch)]
    assert all(len(place) == 1 for place in found)
    assert len({place[0] for place in found}) > 15
    exact = batch.image[:, 0] * 255
    torch.testing.assert_close(exact, exact.round(), rtol=0, atol=1e-4)


def test_symmetries_are_all_eight() -> None:
    pixels = image(16, 16)
    batch = crops(pool_of(pixels), 80, 16, Augment(**{**as_dict(STILL), "symmetry": True}))
    turned = [np.rot90(side, k) for side in (pixels, pixels.T) for k in range(4)]
    seen = {
        next(i for i, other in enumerate(turned) if np.array_equal(crop, other)) for crop in levels(batch)
    }
    assert seen == set(range(8))


ASIDE = MaskOffset(least=10, most=36, dx=-0.5, dy=-0.5)


def aside(*, side: int = 16) -> Sample:
    """A target of 6 x 6 pixels whose mask, 5 x 5, leaves out its last row and column."""
    pixels, mask = image(side, side) // 4, np.zeros((side, side), np.bool_)
    pixels[5:11, 4:10] += 100
    mask[5:10, 4:9] = True
    return Sample("aside", pixels, mask)


def test_masks_beside_their_targets_stay_on_their_side_in_turned_images() -> None:
    sample = aside()
    pool = Pool.of(
        [sample, Sample("b", image(16, 16, seed=1), sample.mask)], recipe="target", offsets=[ASIDE, None]
    )
    assert len(pool) == 2
    plan = augment.draw(
        pool, torch.zeros(80, dtype=torch.int64), 16, replace(STILL, symmetry=True), generator()
    )
    batch = augment.cut(pool, plan, 16, soft_mask=False)
    crops_ = levels(batch)
    assert len({crop.tobytes() for crop in crops_}) == 8
    for crop, mask in zip(crops_, batch.target[:, 0].numpy(), strict=True):
        (y0, x0), (y1, x1) = np.argwhere(crop >= 100).min(0), np.argwhere(crop >= 100).max(0)
        assert np.array_equal(np.argwhere(mask).min(0), (y0, x0))
        assert np.array_equal(np.argwhere(mask).max(0), (y1 - 1, x1 - 1))


def test_images_whose_masks_have_an_orientation_are_not_rotated() -> None:
    pool = Pool.of([aside(), aside()], recipe="target", offsets=[ASIDE, None])
    warped = replace(STILL, symmetry=True, warp=1, aspect=1, scale=1)
    matrix = augment.draw(pool, torch.arange(2).repeat(20), 16, warped, generator()).matrix
    assert torch.equal(matrix[::2], torch.eye(2).expand(20, 2, 2))
    assert not torch.equal(matrix[1::2], torch.eye(2).expand(20, 2, 2))


def test_without_symmetry_only_the_image_itself_is_drawn() -> None:
    pool = Pool.of([aside()], recipe="target", offsets=[ASIDE])
    batch = crops(pool, 20, 16, STILL)
    assert (levels(batch) == aside().image).all()


def test_every_image_needs_its_word_on_the_offset_of_its_masks() -> None:
    with pytest.raises(ValueError, match="got 2 offsets for 1 images"):
        Pool.of([aside()], recipe="target", offsets=[ASIDE, None])


def as_dict(settings: Augment) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_beyond_its_border_an_image_is_mirrored_as_numpy_does() -> None:
    pixels = image(18, 20)
    (crop,) = levels(crops(pool_of(pixels), 1, 64, STILL))
    padded = np.pad(pixels, 64, mode="reflect")
    assert places(padded, crop)


@pytest.mark.parametrize("settings", [STILL, Augment()])
def test_masks_and_labels_stay_with_their_pixels(settings: Augment) -> None:
    # an image that is its own mask: whatever the geometry, grey level and mask go together
    mask = np.zeros((64, 80), np.bool_)
    mask[10:30, 20:50] = True
    geometry = Augment(**{**as_dict(settings), "intensity": 0.0, "noise": 0.0, "blank": 0.0})
    batch = crops(pool_of(mask.astype(np.uint8) * 255, mask), 30, 32, geometry)
    assert torch.equal(batch.target, (batch.image >= 0.5).float())
    assert 0.02 < batch.target.mean() < 0.98
    # the target recipe has no label outside the mask, so only resampling may smear one across its border
    far = torch.nn.functional.max_pool2d(batch.target, 5, 1, 2) == 0
    assert batch.interior[far].max() == 0
    assert batch.boundary[far].max() == 0


def test_target_crops_contain_their_target() -> None:
    for place in ((0, 0), (2, 90), (50, 50), (99, 99)):
        mask = np.zeros((100, 100), np.bool_)
        mask[place] = True
        pool = pool_of(image(100, 100), mask)
        index = torch.zeros(200, dtype=torch.int64)
        plan = augment.draw(pool, index, 32, Augment(targets=1), generator())
        target = torch.tensor([place[1], place[0]], dtype=torch.float32)
        offset = torch.linalg.solve(plan.matrix, (target - plan.centre)[:, :, None]).squeeze(2)
        assert offset.abs().max() <= 31 / 2 + 1  # whole-pixel crops are moved by up to a pixel


def test_a_target_may_lie_anywhere_in_its_crop() -> None:
    mask = np.zeros((200, 200), np.bool_)
    mask[100, 100] = True
    still = Augment(**{**as_dict(STILL), "targets": 1.0})
    batch = crops(pool_of(image(200, 200), mask), 500, 32, still)
    where = batch.target[:, 0].nonzero()[:, 1:].float()
    assert len(where) == 500
    assert where.mean(0) == pytest.approx(15.5, abs=1.5)
    assert where.std(0) == pytest.approx(32 / 12**0.5, rel=0.1)


def test_without_targets_crops_come_from_anywhere() -> None:
    assert crops(pool_of(image(50, 50)), 4, 16, Augment(targets=1)).target.max() == 0


def test_warps_stay_within_their_limits() -> None:
    settings = Augment(warp=1, scale=1.5, aspect=1.2, rotation=180, symmetry=False)
    pool = pool_of(image(100, 100))
    plan = augment.draw(pool, torch.zeros(2000, dtype=torch.int64), 32, settings, generator())
    axes = torch.linalg.svdvals(plan.matrix)  # source pixels a crop pixel, along both axes
    magnification = axes.prod(1).rsqrt()
    ratio = axes[:, 0] / axes[:, 1]
    assert magnification.min() == pytest.approx(1 / 1.5, rel=0.02)
    assert magnification.max() == pytest.approx(1.5, rel=0.02)
    assert ratio.max() == pytest.approx(1.2, rel=0.01)


@pytest.mark.parametrize(("paste", "clutter"), [(0, 0), (0.5, 0), (0, 0.5)])
def test_a_part_of_a_batch_is_the_same_made_alone(paste: float, clutter: float) -> None:
    pool = pool_for_copies(image(80, 80) // 16 + 100, donor=target_at(20, 31))
    settings = Augment(paste=paste, clutter=clutter, blank=0)
    plan = augment.draw(pool, torch.arange(8) % 2 + DONOR, 48, settings, generator())
    whole = augment.cut(pool, plan, 48, soft_mask=False)
    parts = [augment.cut(pool, plan.part(slice(i, i + 4)), 48, soft_mask=False) for i in (0, 4)]
    if paste:
        plain = augment.cut(pool, replace(plan, copies=None), 48, soft_mask=False)
        assert whole.target.sum() > plain.target.sum()
    for name in Batch._fields:
        both = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(both, getattr(whole, name), rtol=0, atol=1e-7)


def test_a_batch_is_a_function_of_its_seed() -> None:
    pool = pool_of(image(60, 70))
    first, again, other = (crops(pool, 4, 32, Augment(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)


@pytest.mark.parametrize("seed", range(3))
def test_everything_stays_in_the_unit_range(seed: int) -> None:
    batch = crops(pool_of(image(60, 70, seed=seed)), 64, 32, Augment(intensity=1, invert=0.5), seed=seed)
    for plane in batch:
        assert plane.shape == (64, 1, 32, 32)
        assert plane.min() >= 0
        assert plane.max() <= 1


def test_a_full_stretch_is_what_the_reader_of_16_bit_images_does() -> None:
    pixels = (image(64, 64) // 4 + 60).astype(np.uint8)
    low, high = np.percentile(pixels, (0.1, 99.9))
    only = {"intensity": 1.0, "stretch": 1.0, "gamma": 1.0, "gain": 1.0, "offset": 0.0, "blur": 0.0}
    batch = crops(pool_of(pixels), 40, 64, Augment(**{**as_dict(STILL), **only}))
    wanted = torch.from_numpy(np.clip((pixels - low) / (high - low), 0, 1)).float()
    errors = (batch.image[:, 0] - wanted).abs().amax((1, 2))
    assert 5 < (errors < 1e-4).sum() < 20  # both ends in full: a quarter of the crops


def test_gain_turns_about_the_mean_of_the_image() -> None:
    pixels = (image(64, 64) // 8 + 100).astype(np.uint8)
    only = {"intensity": 1.0, "stretch": 0.0, "gamma": 1.0, "gain": 2.0, "offset": 0.0, "blur": 0.0}
    batch = crops(pool_of(pixels), 40, 64, Augment(**{**as_dict(STILL), **only}))
    assert batch.image.mean((1, 2, 3)) == pytest.approx(pixels.mean() / 255, abs=1e-4)
    spread = batch.image.std((1, 2, 3)) / (pixels.std() / 255)
    assert spread.min() == pytest.approx(0.5, rel=0.1)
    assert spread.max() == pytest.approx(2.0, rel=0.1)


def test_a_blank_crop_is_flat_but_for_noise_and_has_no_target() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[10:30, 10:30] = True
    settings = Augment(**{**as_dict(STILL), "targets": 1.0, "blank": 1.0, "noise": 0.05})
    batch = crops(pool_of(image(40, 40), mask), 10, 32, settings)
    assert batch.image.std((1, 2, 3)).max() < 0.06
    for plane in (batch.target, batch.interior, batch.boundary):
        assert plane.max() == 0


def test_blur_is_the_binomial_of_opencv() -> None:
    pixels = image(48, 48)
    only = {"intensity": 1.0, "stretch": 0.0, "gamma": 1.0, "gain": 1.0, "offset": 0.0, "blur": 1.0}
    batch = crops(pool_of(pixels), 1, 48, Augment(**{**as_dict(STILL), **only}))
    smooth = cv2.GaussianBlur(pixels.astype(np.float32) / 255, (3, 3), 0, borderType=cv2.BORDER_REFLECT_101)
    # OpenCV's 3×3 default is [1 2 1] / 4; the crop is the whole image
    np.testing.assert_allclose(batch.image[0, 0].numpy(), smooth, atol=1e-5)


PASTE = replace(STILL, paste=1, gain=1)
DONOR, HOST = 1, 2
"""Of the images of `pool_for_copies`."""


def target_at(y: int, x: int, *, height: int = 3, width: int = 2) -> Sample:
    """A target 70 levels above its background of 50, one of its corners 90, so that it has no symmetry."""
    pixels, mask = np.full((64, 72), 50, np.uint8), np.zeros((64, 72), np.bool_)
    mask[y : y + height, x : x + width] = True
    pixels[mask] = 120
    pixels[y, x] = 140
    return Sample("donor", pixels, mask)


def pool_for_copies(host: int | np.ndarray, *, donor: Sample, there: np.ndarray | None = None) -> Pool:
    """Images without targets come first and last, so that the numbers of targets and images differ."""
    empty = Sample("empty", np.full((40, 40), 7, np.uint8), np.zeros((40, 40), np.bool_))
    mask = np.zeros((80, 80), np.bool_) if there is None else there
    pixels = np.broadcast_to(host, (80, 80)).astype(np.uint8)
    return Pool.of([empty, donor, Sample("host", pixels, mask), empty], recipe="target")


def pasted(pool: Pool, settings: Augment = PASTE, *, size: int = 48) -> tuple[Plan, Batch]:
    """50 crops of the host; every copy that is tried is one of the donor's target."""
    plan = augment.draw(pool, torch.full((50,), HOST), size, settings, generator())
    assert plan.copies is not None
    count = len(plan.index)
    index = torch.where(plan.copies.index >= 0, DONOR, -1)
    centre = (pool.centres[0].floor() + 0.5).expand(count, 2)
    plan = replace(plan, copies=replace(plan.copies, index=index, centre=centre))
    return plan, augment.cut(pool, plan, size, soft_mask=False)


def test_a_copy_is_its_target_above_the_new_background() -> None:
    pool = pool_for_copies(100, donor=target_at(20, 31))
    drawn = augment.draw(pool, torch.full((50,), HOST), 48, PASTE, generator())
    assert drawn.copies is not None
    assert (drawn.copies.index == DONOR).all()
    _, batch = pasted(pool)
    assert set(np.unique(levels(batch))) == {100, 170, 190}
    assert torch.equal(batch.target[:, 0] > 0, torch.from_numpy(levels(batch) > 100))
    assert (batch.target.sum((1, 2, 3)) == 6).all()
    assert torch.equal(((batch.interior + batch.boundary) > 0).float(), batch.target)
    where = {tuple(np.argwhere(one)[0]) for one in batch.target[:, 0].numpy()}
    assert len(where) > 25


def test_copies_of_masks_beside_their_targets_stay_on_their_side() -> None:
    """The mask of the target, 5 x 5 of 6 x 6 pixels, is at the top left of what is added, however turned."""
    donor = aside(side=64)
    donor.image[:] = 30
    donor.image[25:31, 25:31] = 130
    donor.mask[:] = False
    donor.mask[25:30, 25:30] = True
    host = Sample("host", np.full((80, 80), 60, np.uint8), np.zeros((80, 80), np.bool_))
    pool = Pool.of([host, donor], recipe="target", offsets=[None, ASIDE])
    assert pool.targets == 1
    assert len(pool.centres) == 8
    plan = augment.draw(
        pool, torch.zeros(60, dtype=torch.int64), 48, replace(PASTE, symmetry=True), generator()
    )
    assert plan.copies is not None
    assert len(set(plan.copies.index[plan.copies.index >= 0].tolist())) == 8
    batch = augment.cut(pool, plan, 48, soft_mask=False)
    seen = 0
    for crop, mask in zip(levels(batch), batch.target[:, 0].numpy(), strict=True):
        if mask.any():
            seen += 1
            bright = np.argwhere(crop > 120)
            assert np.array_equal(np.argwhere(mask).min(0), bright.min(0))
            assert np.array_equal(np.argwhere(mask).max(0), bright.max(0) - 1)
    assert seen > 30


def test_copies_are_turned_all_eight_ways_with_their_masks() -> None:
    pool = pool_for_copies(100, donor=target_at(20, 31))
    for symmetry, ways in ((False, 1), (True, 8)):
        _, batch = pasted(pool, replace(PASTE, symmetry=symmetry))
        above = levels(batch) - np.uint8(100)
        seen = {str(found[found.any(1)][:, found.any(0)].tolist()) for found in above}
        assert len(seen) == ways
        assert torch.equal(batch.target[:, 0] > 0, torch.from_numpy(levels(batch) > 100))


def test_copies_vary_in_contrast_and_come_as_often_as_is_said() -> None:
    pool = pool_for_copies(100, donor=target_at(20, 31))
    _, batch = pasted(pool, replace(PASTE, gain=2))
    gains = (batch.image.amax((1, 2, 3)) * 255 - 100) / 90
    assert 0.5 <= gains.min() < 0.7
    assert 1.5 < gains.max() <= (255 - 100) / 90
    _, batch = pasted(pool, replace(PASTE, paste=0.5))
    assert 15 < (batch.target.sum((1, 2, 3)) > 0).sum() < 35


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(255, id="white"),
        pytest.param(252, id="nearly white"),
        pytest.param(image(80, 80), id="noise"),
    ],
)
def test_no_copy_where_it_would_not_stand_out(host: int | np.ndarray) -> None:
    _, batch = pasted(pool_for_copies(host, donor=target_at(20, 31)))
    assert batch.target.sum() == 0


def test_a_copy_beside_a_target_leaves_it_as_it_is() -> None:
    there = np.zeros((80, 80), np.bool_)
    there[38:42, 38:42] = True  # in the middle: in every crop
    pool = pool_for_copies(np.where(there, 240, 100), donor=target_at(20, 31), there=there)
    plan, batch = pasted(pool)
    before = augment.cut(pool, replace(plan, copies=None), 48, soft_mask=False)
    own = before.target > 0
    assert torch.equal(own.sum((1, 2, 3)), torch.full((50,), 16))
    for now, then in zip(batch, before, strict=True):
        assert torch.equal(now[own], then[own])
    added = batch.target.sum((1, 2, 3)) - 16
    assert set(added.tolist()) == {0, 6}
    assert (added == 6).sum() > 25


def test_no_copy_touches_a_target() -> None:
    there = np.zeros((80, 80), np.bool_)
    there[::6, ::6] = True  # nowhere is room for a copy with what surrounds it
    pool = pool_for_copies(100, donor=target_at(20, 31), there=there)
    plan, batch = pasted(pool)
    before = augment.cut(pool, replace(plan, copies=None), 48, soft_mask=False)
    for now, then in zip(batch, before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize(("height", "copied"), [(26, True), (29, False)])
def test_targets_larger_than_the_patch_are_not_copied(height: int, copied: bool) -> None:
    _, batch = pasted(pool_for_copies(100, donor=target_at(18, 31, height=height, width=4)))
    assert (batch.target.sum() > 0) == copied


def test_targets_at_the_border_are_not_copied() -> None:
    for y, x, copied in ((20, 31, True), (1, 31, False), (20, 60, False)):
        pool = pool_for_copies(100, donor=target_at(y, x))
        plan = augment.draw(pool, torch.full((50,), HOST), 48, PASTE, generator())
        assert plan.copies is not None
        assert (plan.copies.index == DONOR).any() == copied


def test_without_a_target_or_in_crops_below_the_patch_nothing_is_copied() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[20, 20] = True
    assert augment.draw(pool_of(image(40, 40)), torch.zeros(2).long(), 40, PASTE, generator()).copies is None
    small = augment.draw(pool_of(image(40, 40), mask), torch.zeros(2).long(), 31, PASTE, generator())
    assert small.copies is None


def test_the_paper_mode_scales_a_box_as_opencv_does() -> None:
    mask = np.zeros((64, 96), np.bool_)
    mask[20:26, 40:45] = True
    pixels = image(64, 96)
    pool = pool_of(pixels, mask)
    plan = augment.draw(pool, torch.zeros(12, dtype=torch.int64), 80, Augment(mode="paper"), generator())
    batch = augment.cut(pool, plan, 80, soft_mask=True)
    mirrored = 0
    for number in range(12):
        x0, x1, y0, y1 = box(plan, number)
        assert 64 - (y1 - y0) < 64 / 8
        assert 96 - (x1 - x0) < 96 / 8
        for plane, made in ((pixels / 255, batch.image), (mask, batch.target)):
            wanted = cv2.resize(plane[y0:y1, x0:x1].astype(np.float32), (80, 80))
            if plan.matrix[number, 0, 0] < 0:
                wanted, mirrored = wanted[:, ::-1], mirrored + 1
            np.testing.assert_allclose(made[number, 0].numpy(), wanted, atol=1e-4)
    assert 0 < mirrored < 24
    assert ((batch.target > 0) & (batch.target < 1)).any()


def box(plan: Plan, number: int) -> tuple[int, int, int, int]:
    assert plan.bounds is not None
    (x0, x1), (y0, y1) = plan.bounds[number].int().tolist()
    return x0, x1 + 1, y0, y1 + 1


ADDED = replace(STILL, clutter=1)


def pool_for_clutter(other: Sample, host: np.ndarray) -> Pool:
    return Pool.of([other, Sample("host", host, np.zeros(host.shape, np.bool_))], recipe="target")


def with_clutter(pool: Pool, *, strength: float = 1, settings: Augment = ADDED, size: int = 48) -> Batch:
    """50 crops of the host, the second image, each with the first one's background, all equally strong."""
    plan = augment.draw(pool, torch.full((50,), 1), size, settings, generator())
    assert plan.clutter is not None
    index = torch.where(plan.clutter.index >= 0, 0, -1)
    clutter = replace(plan.clutter, index=index, strength=torch.full((50,), float(strength)))
    return augment.cut(pool, replace(plan, clutter=clutter), size, soft_mask=False)


def still(height: int, width: int, *, low: int, high: int) -> np.ndarray:
    """Two halves of two levels: a standard deviation of half their distance."""
    pixels = np.full((height, width), low, np.uint8)
    pixels[:, width // 2 :] = high
    return pixels


def test_added_clutter_is_the_other_image_about_its_mean() -> None:
    """Other and host fill the crop, so that there is one place; both have a deviation of 20 levels."""
    other = Sample("other", still(48, 48, low=80, high=120), np.zeros((48, 48), np.bool_))
    host = still(48, 48, low=100, high=140).T
    got = levels(with_clutter(pool_for_clutter(other, host)))
    np.testing.assert_array_equal(got, np.broadcast_to(host - 20 + (other.image - 80), got.shape))


@pytest.mark.parametrize(
    ("contrast", "strength", "factor"),
    [
        pytest.param(40, 0.5, 0.5, id="as strong as the host: halved"),
        pytest.param(80, 0.5, 0.25, id="twice as strong: a quarter"),
        pytest.param(8, 0.5, 1, id="weaker than allowed: never amplified"),
    ],
)
def test_clutter_is_as_strong_as_its_share_of_the_hosts_deviation(
    contrast: int, strength: float, factor: float
) -> None:
    other = Sample("other", still(48, 48, low=100, high=100 + contrast), np.zeros((48, 48), np.bool_))
    host = still(48, 48, low=100, high=140).T
    batch = with_clutter(pool_for_clutter(other, host), strength=strength)
    added = batch.image[:, 0] * 255 - torch.from_numpy(np.ascontiguousarray(host))
    expected = (torch.from_numpy(other.image).float() - 100 - contrast / 2) * factor
    torch.testing.assert_close(added, expected.expand_as(added), atol=1e-3, rtol=0)


def test_clutter_brings_no_target_along() -> None:
    donor = target_at(20, 31, height=9, width=8)
    pool = pool_for_clutter(donor, image(80, 80) // 16 + 100)
    batch = with_clutter(pool)
    plain = with_clutter(pool, strength=0)
    for now, then in zip(batch, plain, strict=True):
        torch.testing.assert_close(now, then, atol=1e-5, rtol=0)
    assert batch.target.sum() == 0


def test_clutter_over_a_target_leaves_its_labels() -> None:
    mask = np.zeros((64, 72), np.bool_)
    mask[20:23, 31:33] = True
    other = Sample("other", image(64, 72), np.zeros((64, 72), np.bool_))
    samples = [other, Sample("host", np.where(mask, 200, image(64, 72, seed=1) // 4).astype(np.uint8), mask)]
    pool = Pool.of(samples, recipe="target")
    now, then = with_clutter(pool), with_clutter(pool, strength=0)
    assert not torch.equal(now.image, then.image)
    assert then.target.sum() > 0
    for after, before in zip(now[1:], then[1:], strict=True):
        assert torch.equal(after, before)


def test_clutter_comes_as_often_as_is_said_and_from_every_image() -> None:
    pool = pool_for_copies(image(80, 80), donor=target_at(20, 31))
    settings = replace(STILL, clutter=0.5, clutter_strength=0.3)
    drawn = augment.draw(pool, torch.full((400,), HOST), 48, settings, generator()).clutter
    assert drawn is not None
    assert 160 < (drawn.index >= 0).sum() < 240
    assert set(drawn.index.tolist()) == {-1, 0, 1, 2, 3}
    assert drawn.strength.min() >= 0
    assert 0.28 < drawn.strength.max() <= 0.3


def test_a_flat_background_neither_adds_nor_takes() -> None:
    flat = Sample("flat", np.full((60, 60), 90, np.uint8), np.ones((60, 60), np.bool_))
    host = image(60, 60)
    batch = with_clutter(pool_for_clutter(flat, host))
    assert torch.isfinite(batch.image).all()
    assert all(places(host, crop) for crop in levels(batch))
