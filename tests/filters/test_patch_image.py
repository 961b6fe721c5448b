"""IPI. The literals were measured with an independent implementation of the authors' released code, by full
singular value decompositions; the images are of NUAA-SIRST, read as 8-bit grey.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import plain_lowrank
import pytest
from numpy.typing import NDArray
from plain_lowrank import cloud, toy

from ismallnet.filters.patch_image import LambdaRule, ipi, ipi_decompose

Array = NDArray[np.float64]
SLOW = pytest.mark.slow


def above(response: Array, k: float = 3) -> int:
    return int((response > response.mean() + k * response.std(ddof=1)).sum())


# --- checked values -----------------------------------------------------------------------------------


def test_toy_image_with_lambda_of_the_image_gives_the_checked_values() -> None:
    split, response = ipi_decompose(toy()), ipi(toy())
    assert abs(split.iterations - 86) <= 2
    assert split.rank == (12,)
    assert split.support == pytest.approx(2780, abs=20)
    assert split.end == "tolerance"
    assert response[64, 64] == pytest.approx(0.71333, abs=1e-5)
    assert response[32, 96] == pytest.approx(0.26691, abs=1e-5)
    assert response[90, 20] == 0
    assert response.mean() == pytest.approx(0.00071, abs=1e-6)
    assert response.std(ddof=1) == pytest.approx(0.015233, abs=1e-6)
    assert above(response) == 46


def test_toy_image_with_lambda_of_the_smaller_side_gives_the_checked_values() -> None:
    split = ipi_decompose(toy(), lambda_rule="min")
    assert abs(split.iterations - 41) <= 2
    assert (split.rank, split.support, split.end) == ((21,), 1421, "truncation")
    assert split.target[64, 64] == pytest.approx(0.69581, abs=1e-5)
    assert split.target[32, 96] == pytest.approx(0.24948, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "iterations", "rank", "support"),
    [
        ("Misc_338", 24, 125, 2181),
        ("Misc_422", 17, 103, 14949),
        ("Misc_321", 14, 98, 10624),
        pytest.param("Misc_379", 54, 134, 8866, marks=SLOW),
        pytest.param("Misc_73", 35, 192, 9550, marks=SLOW),
        pytest.param("Misc_162", 54, 133, 4910, marks=SLOW),
        pytest.param("Misc_372", 44, 113, 2855, marks=SLOW),
        pytest.param("Misc_185", 28, 163, 2992, marks=SLOW),
    ],
)
def test_real_images_give_the_checked_iterations_rank_and_support(
    data_root: Path, name: str, iterations: int, rank: int, support: int
) -> None:
    split = ipi_decompose(real(data_root, name))
    assert abs(split.iterations - iterations) <= 2
    near = 0 if split.iterations == iterations else 0.2  # an iteration more or less is a few per cent
    assert split.rank[0] == pytest.approx(rank, rel=near)
    assert split.support == pytest.approx(support, rel=near, abs=3)


def real(root: Path, name: str) -> Array:
    path = root / "NUAA-SIRST" / "images" / f"{name}.png"
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.float64)


# --- the plain solver ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (toy(), "image"),
        (toy(), "min"),
        (toy(), "patch"),
        (cloud(128, seed=2), "image"),
        (cloud(96), "image"),
    ],
)
def test_parts_are_those_of_full_decompositions(image: Array, rule: LambdaRule) -> None:
    fast, plain = ipi_decompose(image, lambda_rule=rule), plain_lowrank.ipi(image, lambda_rule=rule)
    assert abs(fast.iterations - plain.iterations) <= 2
    iterations = min(fast.iterations, plain.iterations)
    fast = ipi_decompose(image, lambda_rule=rule, iterations=iterations)
    plain = plain_lowrank.ipi(image, lambda_rule=rule, iterations=iterations)
    assert np.abs(fast.target - plain.target).max() < 1e-6
    assert np.abs(fast.background - plain.background).max() < 1e-6
    assert (fast.rank, fast.support) == (plain.rank, plain.support)


def test_parts_of_a_real_image_are_those_of_full_decompositions(data_root: Path) -> None:
    image = real(data_root, "Misc_321")
    fast, plain = ipi_decompose(image), plain_lowrank.ipi(image)
    assert fast.iterations == plain.iterations
    assert np.abs(fast.target - plain.target).max() < 1e-6
    assert np.abs(fast.background - plain.background).max() < 1e-6


def test_more_patches_than_pixels_of_a_patch_give_the_same_parts() -> None:
    """Then the Gram matrix is that of the pixels; this image is stopped by the rank."""
    fast, plain = (solve(toy(64), patch=8, step=4) for solve in (ipi_decompose, plain_lowrank.ipi))
    assert fast[2:] == plain[2:]
    assert fast.end == "rank"
    assert np.abs(fast.target - plain.target).max() < 1e-6


@pytest.mark.parametrize(
    ("image", "patch", "step", "rule"),
    [
        (toy(160), 50, 10, "image"),  # of rank two to the end, followed in all 74 iterations with a target
        (toy(96), 20, 4, "min"),  # followed in all 100 iterations
        (toy(128), 16, 5, "image"),  # of rank twelve, followed in 39 iterations of 82
        (cloud(128), 16, 5, "image"),  # never
    ],
)
def test_following_the_singular_vectors_changes_nothing(
    image: Array, patch: int, step: int, rule: LambdaRule
) -> None:
    options: Any = {"patch": patch, "step": step, "lambda_rule": rule}
    fast, plain = ipi_decompose(image, **options), plain_lowrank.ipi(image, **options)
    assert fast[2:] == plain[2:]
    assert np.abs(fast.target - plain.target).max() < 1e-8
    assert np.abs(fast.background - plain.background).max() < 1e-8


# --- properties ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "offset"), [(0.25, 0), (1, 100), (257, -3)])
def test_response_does_not_depend_on_a_positive_factor_and_a_constant(factor: float, offset: float) -> None:
    assert np.abs(ipi(factor * toy() + offset) - ipi(toy())).max() < 1e-8


def test_turned_over_image_gives_the_response_turned_over() -> None:
    image = cloud(128, seed=2)[:, :110]
    assert np.abs(ipi(image.T) - ipi(image).T).max() < 1e-8


def test_dark_target_is_negative_and_no_response() -> None:
    assert ipi_decompose(255 - toy()).target[64, 64] < -0.5
    assert not ipi(255 - toy()).any()


def test_target_and_background_add_up_to_the_scaled_image() -> None:
    image = toy()[:120, :120]  # patches cover 0 to 119
    split = ipi_decompose(image)
    scaled = (image - image.min()) / (image.max() - image.min())
    assert np.abs(split.target + split.background - scaled).mean() < 1e-3


def test_strip_at_the_right_and_bottom_is_0() -> None:
    split = ipi_decompose(toy()[:127, :])
    assert not split.target[120:].any()
    assert not split.target[:, 120:].any()
    assert not split.background[120:].any()
    assert split.background[:120, :120].all()


def test_integers_in_any_layout_give_the_same_response_and_are_left_alone() -> None:
    image = np.asfortranarray(np.rint(toy()).astype(np.uint8))
    copy = image.copy()
    assert (ipi(image) == ipi(np.ascontiguousarray(image, np.float64))).all()
    assert (image == copy).all()


# --- degenerate cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 80.0])
def test_constant_image_has_no_target(level: float) -> None:
    split = ipi_decompose(np.full((70, 90), level))
    assert not split.target.any()
    assert (split.iterations, split.end) == (0, "constant")


def test_image_of_like_patches_is_background_throughout() -> None:
    """A pattern of period 10: every patch is the same, and D has rank one."""
    image = np.tile(np.random.default_rng(0).uniform(0, 255, (10, 10)), (9, 9))
    split = ipi_decompose(image)
    assert not split.target.any()
    assert np.allclose(split.background, (image - image.min()) / (image.max() - image.min()))
    assert (split.rank, split.end) == ((1,), "constant")


def test_ramp_is_background_throughout() -> None:
    """Rank one in the first iteration, two from then on: the rule of the rank stops it in the 13th."""
    split = ipi_decompose(np.add.outer(np.arange(128.0), 0.5 * np.arange(128.0)))
    assert (split.iterations, split.rank, split.end) == (13, (2,), "rank")
    assert not split.target.any()


def test_iterations_are_counted_and_limited() -> None:
    split = ipi_decompose(toy(), iterations=3)
    assert (split.iterations, split.end) == (3, "iterations")


def test_four_patches_are_enough() -> None:
    assert ipi(cloud(60)).shape == (60, 60)
    assert ipi(cloud(80)[:50]).shape == (50, 80)


@pytest.mark.parametrize(("shape", "count"), [((49, 200), 0), ((59, 59), 1), ((50, 79), 3), ((1, 1), 0)])
def test_fewer_than_four_patches_are_refused_with_the_size_to_mirror_to(
    shape: tuple[int, int], count: int
) -> None:
    with pytest.raises(ValueError, match=rf"{shape[0]}×{shape[1]} px has {count}; mirror it .* 60×60 px"):
        ipi(np.ones(shape))


@pytest.mark.parametrize("image", [np.ones((60, 60, 3)), np.ones((0, 60)), np.full((60, 60), np.nan)])
def test_what_is_no_grey_image_is_refused(image: Array) -> None:
    with pytest.raises(ValueError, match="a filter takes"):
        ipi(image)


def test_unknown_rule_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown lambda rule 'paper'; choose from image, patch, min"):
        ipi(toy(), lambda_rule="paper")  # type: ignore[arg-type]
