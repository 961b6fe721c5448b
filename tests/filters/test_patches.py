"""Cutting an image into patches and joining them again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ismallnet.filters.patches import Grid

Array = NDArray[np.float64]


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    patch = draw(st.integers(1, 9))
    shape = draw(st.tuples(st.integers(patch, 24), st.integers(patch, 24)))
    return Grid.of(shape, patch=patch, step=draw(st.integers(1, patch)), flush=draw(st.booleans()))


def values_of(grid: Grid, patches: Array) -> dict[tuple[int, int], list[float]]:
    """What the patches say of a pixel, one after the other."""
    found: dict[tuple[int, int], list[float]] = {}
    corners = [(y, x) for y in grid.rows for x in grid.columns]
    for (y, x), patch in zip(corners, patches, strict=True):
        for (i, j), value in np.ndenumerate(patch):
            found.setdefault((y + i, x + j), []).append(float(value))
    return found


def test_patches_follow_each_other_row_after_row() -> None:
    image = np.arange(20.0).reshape(4, 5)
    patches = Grid.of((4, 5), patch=2, step=2, flush=False).cut(image)
    assert patches[:, 0, 0].tolist() == [0, 2, 10, 12]
    assert patches[3].tolist() == [[12, 13], [17, 18]]


def test_flush_patches_are_added_only_where_rows_are_left() -> None:
    assert Grid.of((40, 45), patch=30, step=10, flush=True).rows == (0, 10)
    assert Grid.of((40, 45), patch=30, step=10, flush=True).columns == (0, 10, 15)
    assert Grid.of((40, 45), patch=30, step=10, flush=False).columns == (0, 10)


def test_a_pixel_of_a_256_image_is_in_at_most_25_patches_of_ipi() -> None:
    coverage = Grid.of((256, 256), patch=50, step=10, flush=False).coverage()
    assert coverage.max() == 25
    assert coverage[0, 0] == 1
    assert not coverage[250:].any()
    assert not coverage[:, 250:].any()


def test_toy_image_has_121_patches_of_ript_with_the_flush_ones() -> None:
    assert len(Grid.of((128, 128), patch=30, step=10, flush=True)) == 121


@settings(deadline=None)
@given(grids(), st.integers(0, 9))
def test_mean_and_median_of_cut_patches_are_the_image_where_there_are_patches(grid: Grid, seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=grid.shape)
    patches, covered = grid.cut(image), grid.coverage() > 0
    assert np.allclose(grid.mean(patches), image * covered, atol=1e-14)
    assert (grid.median(patches) == image * covered).all()


@settings(deadline=None)
@given(grids())
def test_flush_grid_covers_every_pixel_and_another_all_but_a_strip(grid: Grid) -> None:
    step = np.diff(grid.rows)[0] if len(grid.rows) > 1 else grid.patch
    flush = Grid.of(grid.shape, patch=grid.patch, step=int(step), flush=True)
    assert flush.coverage().all()
    plain = Grid.of(grid.shape, patch=grid.patch, step=int(step), flush=False)
    left = (plain.coverage() == 0).all(axis=1)
    assert left.sum() == (grid.shape[0] - grid.patch) % step
    assert (np.flatnonzero(left) >= grid.shape[0] - left.sum()).all()


@settings(deadline=None)
@given(grids(), st.integers(0, 9))
def test_mean_and_median_of_any_patches_are_those_of_the_values_of_a_pixel(grid: Grid, seed: int) -> None:
    patches = np.random.default_rng(seed).normal(size=(len(grid), grid.patch, grid.patch))
    mean, median = grid.mean(patches), grid.median(patches)
    for pixel, values in values_of(grid, patches).items():
        assert mean[pixel] == pytest.approx(np.mean(values), abs=1e-14)
        assert median[pixel] == pytest.approx(np.median(values), abs=1e-15)


def test_image_lower_than_a_patch_has_none() -> None:
    assert len(Grid.of((9, 40), patch=10, step=5, flush=True)) == 0


@pytest.mark.parametrize(("patch", "step"), [(10, 0), (10, 11), (0, 1)])
def test_step_that_leaves_pixels_out_is_refused(patch: int, step: int) -> None:
    with pytest.raises(
        ValueError, match=f"got patches of {patch} px every {step} px; the step is at least 1"
    ):
        Grid.of((40, 40), patch=patch, step=step, flush=False)
