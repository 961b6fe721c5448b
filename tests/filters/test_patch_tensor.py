"""RIPT. The literals were measured with an independent implementation of the authors' released code, by full
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

from ismallnet.filters.patch_tensor import ript, ript_decompose

Array = NDArray[np.float64]
SLOW = pytest.mark.slow


def real(root: Path, name: str) -> Array:
    path = root / "NUAA-SIRST" / "images" / f"{name}.png"
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.float64)


# --- checked values -----------------------------------------------------------------------------------


def test_toy_image_gives_the_checked_values() -> None:
    split, response = ript_decompose(toy()), ript(toy())
    assert (split.iterations, split.support, split.end) == (2, 165, "support")
    assert response[64, 64] == pytest.approx(30.03249, abs=1e-5)
    assert response[32, 96] == pytest.approx(31.50034, abs=1e-5)
    assert response.max() == response[32, 96]
    assert response.std(ddof=1) == pytest.approx(0.647567, abs=1e-6)
    assert (response > response.mean() + 3 * response.std(ddof=1)).sum() == 18


def test_residual_of_the_toy_image_is_the_checked_one_when_it_stops() -> None:
    """.0018626: above it the tolerance stops in the second iteration, below it the support does."""
    assert ript_decompose(toy(), tolerance=0.00186260).end == "tolerance"
    assert ript_decompose(toy(), tolerance=0.00186259).end == "support"


@pytest.mark.parametrize(
    ("name", "iterations", "support", "largest"),
    [
        ("Misc_338", 4, 46, 9.2),
        ("Misc_162", 2, 72, 50.9),
        ("Misc_372", 3, 44, 31.2),
        pytest.param("Misc_379", 6, 95, 9.5, marks=SLOW),
        pytest.param("Misc_422", 13, 1070, 11.7, marks=SLOW),
        pytest.param("Misc_73", 5, 1075, 96.8, marks=SLOW),
        pytest.param("Misc_321", 9, 721, 10.6, marks=SLOW),
        pytest.param("Misc_185", 4, 241, 12.9, marks=SLOW),
    ],
)
def test_real_images_give_the_checked_iterations_support_and_maximum(
    data_root: Path, name: str, iterations: int, support: int, largest: float
) -> None:
    split = ript_decompose(real(data_root, name))
    assert (split.iterations, split.support) == (iterations, support)
    assert split.target.max() == pytest.approx(largest, abs=0.05)


@SLOW
def test_the_papers_sparsity_and_prior_leave_no_target_in_four_of_eight_images(data_root: Path) -> None:
    names = [f"Misc_{number}" for number in (338, 379, 422, 73, 321, 162, 372, 185)]
    empty = [name for name in names if not ript(real(data_root, name), sparsity=1, prior=10).any()]
    assert empty == ["Misc_338", "Misc_379", "Misc_162", "Misc_372"]


# --- the plain solver ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (toy(), {}),
        (toy(), {"stop": "tolerance"}),
        (toy(), {"prior": 0.0}),
        (cloud(128, seed=2), {}),
        (cloud(96), {"sparsity": 1.0}),
        (toy(64), {"patch": 8, "step": 2}),  # 841 patches of 64 pixels: the Gram matrix is that of the pixels
    ],
)
def test_parts_are_those_of_full_decompositions(image: Array, options: dict[str, Any]) -> None:
    fast, plain = (solve(image, **options) for solve in (ript_decompose, plain_lowrank.ript))
    assert fast[2:] == plain[2:]
    assert np.abs(fast.target - plain.target).max() < 1e-6
    assert np.abs(fast.background - plain.background).max() < 1e-6


@pytest.mark.parametrize("stop", ["support", "tolerance"])
def test_parts_of_a_real_image_are_those_of_full_decompositions(data_root: Path, stop: Any) -> None:
    image = real(data_root, "Misc_372")
    fast, plain = (solve(image, stop=stop) for solve in (ript_decompose, plain_lowrank.ript))
    assert fast[2:] == plain[2:]
    assert np.abs(fast.target - plain.target).max() < 1e-6


# --- properties ---------------------------------------------------------------------------------------


def test_without_the_rule_of_the_support_it_goes_on_and_finds_more_of_the_target() -> None:
    short, long = ript_decompose(toy()), ript_decompose(toy(), stop="tolerance")
    assert long.end == "tolerance"
    assert long.iterations > short.iterations
    assert long.target[64, 64] > short.target[64, 64] + 10


def test_turned_over_image_gives_the_response_turned_over() -> None:
    image = cloud(128, seed=2)[:, :103]
    assert np.abs(ript(image.T) - ript(image).T).max() < 1e-8


def test_target_in_the_last_corner_is_found() -> None:
    image = toy(127)  # 127 - 30 is no multiple of 10
    image[123:126, 123:126] += 80
    response = ript(image)
    assert response[123:126, 123:126].min() > 0


def test_target_and_background_add_up_to_the_image_once_converged() -> None:
    split = ript_decompose(toy(), stop="tolerance")
    assert np.abs(split.target + split.background - toy()).max() < 1e-2


def test_integers_in_any_layout_give_the_same_response_and_are_left_alone() -> None:
    image = np.asfortranarray(np.rint(toy()).astype(np.uint8))
    copy = image.copy()
    assert (ript(image) == ript(np.ascontiguousarray(image, np.float64))).all()
    assert (image == copy).all()


# --- degenerate cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 80.0])
def test_constant_image_has_no_target(level: float) -> None:
    split = ript_decompose(np.full((40, 50), level))
    assert not split.target.any()
    assert (split.background == level).all()
    assert (split.iterations, split.end) == (0, "constant")


def test_image_without_anything_sparse_has_no_target_after_two_iterations() -> None:
    split = ript_decompose(toy(), sparsity=1000)
    assert not split.target.any()
    assert (split.iterations, split.support, split.end) == (2, 0, "support")


def test_iterations_are_counted_and_limited() -> None:
    split = ript_decompose(toy(), iterations=1)
    assert (split.iterations, split.end) == (1, "iterations")


def test_one_patch_is_enough() -> None:
    assert ript(cloud(30)).shape == (30, 30)


@pytest.mark.parametrize("shape", [(29, 200), (30, 29), (1, 1)])
def test_image_smaller_than_a_patch_is_refused_with_the_least_size(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"at least 30×30 px, one patch; got {shape[0]}×{shape[1]} px"):
        ript(np.ones(shape))


@pytest.mark.parametrize("image", [np.ones((60, 60, 3)), np.ones((0, 60)), np.full((60, 60), np.nan)])
def test_what_is_no_grey_image_is_refused(image: Array) -> None:
    with pytest.raises(ValueError, match="a filter takes"):
        ript(image)


def test_unknown_stopping_rule_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown stopping rule 'rank'; choose from support, tolerance"):
        ript(toy(), stop="rank")  # type: ignore[arg-type]
