"""Pictures: sizes, colours and places that a reader can check by eye."""

from __future__ import annotations

import numpy as np
import pytest

from ismallnet.draw import COLOURS, overlay, panel, stretch
from ismallnet.targets import find
from ismallnet.types import Target


def target(x0: int, y0: int, x1: int, y1: int) -> Target:
    return Target(x0, y0, x1, y1, (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2, (x1 - x0) * (y1 - y0), 0.9, 0.8)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == colour).all(2)


@pytest.mark.parametrize(
    ("size", "factor"), [((16, 16), 48), ((256, 200), 3), ((512, 640), 2), ((900, 1200), 1)]
)
def test_small_pictures_are_enlarged_by_a_whole_factor(size: tuple[int, int], factor: int) -> None:
    image = np.random.default_rng(0).random(size)
    picture = overlay(image, ())
    assert picture.shape == (size[0] * factor, size[1] * factor, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[::factor, ::factor, 0], stretch(image))


def test_a_box_surrounds_its_target_and_leaves_it_uncovered() -> None:
    image = np.zeros((64, 64))
    image[30:33, 40:42] = 1
    picture = overlay(image, find(image > 0), text=False)
    red = has(picture, COLOURS["detected"])
    ys, xs = np.nonzero(red)
    factor = 12
    assert xs.min() < 40 * factor
    assert xs.max() >= 42 * factor
    assert ys.min() < 30 * factor
    assert ys.max() >= 33 * factor
    assert not red[30 * factor : 33 * factor, 40 * factor : 42 * factor].any()


def test_the_kinds_have_their_colours() -> None:
    targets = [target(5, 5, 7, 7), target(20, 20, 22, 22), target(40, 40, 44, 44)]
    picture = overlay(np.zeros((64, 64)), targets, kinds=["detected", "false", "missed"])
    for kind, each in zip(("detected", "false", "missed"), targets, strict=True):
        around = picture[(each.y0 - 3) * 12 : (each.y1 + 3) * 12, (each.x0 - 3) * 12 : (each.x1 + 3) * 12]
        present = {other for other, colour in COLOURS.items() if has(around, colour).any()}
        assert present == {kind}


def test_every_target_has_a_text_in_the_picture_even_in_the_corners() -> None:
    for corner in (target(0, 0, 2, 2), target(62, 0, 64, 2), target(0, 62, 2, 64), target(62, 62, 64, 64)):
        plain = overlay(np.full((64, 64), 0.5), [corner], text=False)
        text = overlay(np.full((64, 64), 0.5), [corner])
        changed = (plain != text).any(2)
        assert changed.sum() > 300  # the text's black ground
        assert changed.shape == (768, 768)


def test_a_text_covers_no_other_target_where_there_is_room() -> None:
    above, below = target(30, 30, 33, 32), target(31, 35, 34, 37)  # the usual place of the lower one's text
    picture = overlay(np.full((64, 64), 0.5), [above, below])
    bare = overlay(np.full((64, 64), 0.5), [above, below], text=False)
    for each in (above, below):
        inside = np.s_[each.y0 * 12 : each.y1 * 12, each.x0 * 12 : each.x1 * 12]
        np.testing.assert_array_equal(picture[inside], bare[inside])


def test_one_kind_a_target_is_asked_for() -> None:
    with pytest.raises(ValueError, match="1 kinds for 2 targets"):
        overlay(np.zeros((9, 9)), [target(1, 1, 2, 2)] * 2, kinds=["false"])


def test_stretch_uses_the_whole_grey_scale() -> None:
    image = np.linspace(0.40, 0.45, 10000).reshape(100, 100)
    assert (stretch(image).min(), stretch(image).max()) == (0, 255)
    assert abs(float(np.median(stretch(image))) - 127.5) <= 1


def test_stretch_shows_a_single_bright_pixel_on_a_constant_ground() -> None:
    image = np.full((100, 100), 0.2)
    image[50, 50] = 0.3
    assert (stretch(image)[50, 50], stretch(image)[0, 0]) == (255, 0)


def test_stretch_makes_a_constant_image_mid_grey() -> None:
    assert (stretch(np.full((4, 5), 0.7)) == 128).all()


def test_a_panel_sets_grey_and_colour_pictures_side_by_side() -> None:
    grey = np.full((50, 60), 90, np.uint8)
    red = np.full((50, 60, 3), (0, 0, 200), np.uint8)
    picture = panel([grey, red], ["left", "right"])
    assert picture.shape[1:] == (120, 3)
    assert (picture[-50:, :60] == 90).all()
    assert (picture[-50:, 60:] == (0, 0, 200)).all()
    assert picture[:-50].any()  # the captions


def test_a_panel_breaks_into_rows_and_enlarges_small_pictures() -> None:
    large, small = np.full((90, 80), 50, np.uint8), np.full((30, 20), 200, np.uint8)
    picture = panel([large, small, large], ["a", "b", "c"], columns=2)
    head = (picture.shape[0] - 2 * 90) // 2
    assert picture.shape == (2 * (90 + head), 160, 3)
    assert (picture[head : head + 90, 80:] == 200).all(2).sum() == 90 * 60  # 30 × 20, three times
    assert not picture[90 + head :, 80:].any()


def test_a_long_caption_is_made_to_fit() -> None:
    picture = panel([np.zeros((40, 100), np.uint8)], ["a caption far longer than the picture is wide"])
    assert picture.any()
    assert not picture[:, 98:].any()


@pytest.mark.parametrize(("captions", "columns"), [(["a", "b"], None), ([], None), (["a"], 0)])
def test_a_wrong_panel_is_refused(captions: list[str], columns: int | None) -> None:
    with pytest.raises(ValueError, match="one caption a picture"):
        panel([np.zeros((4, 4), np.uint8)], captions, columns=columns)
    with pytest.raises(ValueError, match="at least one picture"):
        panel([], [])


def test_as_is_keeps_size_and_grey_levels() -> None:
    image = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    picture = overlay(image, (), as_is=True)
    np.testing.assert_array_equal(picture, np.arange(256).reshape(16, 16, 1).repeat(3, 2))
