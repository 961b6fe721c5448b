from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet import media
from ismallnet.data import Dataset, load
from ismallnet.data.dataset import binarise, read_grey, read_mask
from ismallnet.targets import label

# Misc_111 of NUAA-SIRST, at its published sizes (systems.md, section 0)
IMAGE_111, MASK_111 = (220, 325), (400, 592)


@pytest.fixture
def three(make) -> Dataset:
    return load("folder", make(["a", "b", "c"]), "all")


def test_a_sample_is_a_uint8_image_and_a_bool_mask_of_one_size(three: Dataset) -> None:
    for sample in three:
        assert sample.image.dtype == np.uint8
        assert sample.mask.dtype == np.bool_
        assert sample.image.shape == sample.mask.shape == (24, 32)


def test_iterating_and_indexing_give_the_samples_in_the_order_of_the_list(make) -> None:
    data = load("folder", make(["a", "b", "c"], lists={"train": ["c", "a", "b"]}), "train")
    assert [s.id for s in data] == ["c", "a", "b"] == [data[i].id for i in range(len(data))]
    with pytest.raises(IndexError):
        data[3]


def test_a_subset_keeps_the_order_asked_for_and_has_its_own_sha256(three: Dataset) -> None:
    part = three.subset(["c", "a"], split="some")
    assert (part.ids, part.split, part.name) == (("c", "a"), "some", three.name)
    assert part.split_sha256 != three.split_sha256
    assert part.split_sha256 == three.subset(["a", "c"]).split_sha256
    with pytest.raises(ValueError, match="no image 'x'"):
        three.subset(["a", "x"])


def test_a_data_set_goes_to_other_processes(three: Dataset) -> None:
    copy = pickle.loads(pickle.dumps(three))
    assert copy == three
    np.testing.assert_array_equal(copy[1].image, three[1].image)


@pytest.mark.parametrize(
    ("split", "holds"),
    [
        ("train", False),
        ("idx_427/trainval", False),
        ("train fold 0 of 5", False),
        ("test", True),
        ("50_50/test", True),
        ("idx_427/trainvaltest", True),
        ("all", True),
    ],
)
def test_a_split_with_test_images_is_known_by_its_name(three: Dataset, split: str, holds: bool) -> None:
    assert three.subset(three.ids, split=split).holds_test_images is holds


def test_colour_becomes_grey_by_bt601(tmp_path: Path, write) -> None:
    write(tmp_path / "a.png", np.full((2, 2, 3), (10, 100, 200), np.uint8))  # B, G, R
    assert (read_grey(tmp_path / "a.png") == 120).all()  # .114 * 10 + .587 * 100 + .299 * 200 = 119.64


def test_alpha_is_dropped(tmp_path: Path, write) -> None:
    write(tmp_path / "a.png", np.full((2, 2, 4), (80, 80, 80, 3), np.uint8))
    assert (read_grey(tmp_path / "a.png") == 80).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_images_are_scaled_as_detect_scales_them(tmp_path: Path, write, suffix: str) -> None:
    levels = (7000 + 40 * np.add.outer(np.arange(40), np.arange(50))).astype(np.uint16)
    levels[20, 20:23] += 900
    write(tmp_path / f"a{suffix}", levels)
    grey, image = read_grey(tmp_path / f"a{suffix}"), media.read_image(tmp_path / f"a{suffix}")
    assert (grey.dtype, image.rule) == (np.uint8, "percentile")
    assert np.abs(grey / 255 - image.pixels).max() <= 0.5 / 255 + 1e-6
    assert (grey[0, 0], grey[-1, -1]) == (0, 255)


def test_a_scene_times_257_in_16_bits_is_the_same_sample(tmp_path: Path, write) -> None:
    levels = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (64, 64)), (0, 0), 3).astype(np.uint8)
    levels = cv2.normalize(levels, None, 0, 250, cv2.NORM_MINMAX)
    write(tmp_path / "a.png", levels.astype(np.uint16) * 257)
    write(tmp_path / "b.png", levels.astype(np.uint16) * 16)
    np.testing.assert_array_equal(read_grey(tmp_path / "a.png"), read_grey(tmp_path / "b.png"))


def test_a_one_bit_mask_is_read_as_target(tmp_path: Path) -> None:
    mask = np.zeros((8, 16), np.uint8)
    mask[2:4, 5:8] = 255
    cv2.imwrite(str(tmp_path / "a.png"), mask, [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert (tmp_path / "a.png").read_bytes()[24] == 1  # bit depth in the header of the PNG
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask > 0)


@pytest.mark.parametrize("top", [1, 2, 38, 128, 255, 65535])
def test_a_two_level_mask_is_the_same_whatever_its_level(top: int) -> None:
    mask = np.array([[0, 0, 1], [0, 1, 1]])
    np.testing.assert_array_equal(binarise((mask * top).astype(np.uint16)), mask > 0)


def test_of_an_anti_aliased_edge_the_half_nearer_to_the_target_is_kept() -> None:
    levels = np.array([[0, 3, 60, 127, 128, 200, 255, 190, 100, 0]], np.uint8)
    np.testing.assert_array_equal(binarise(levels), [[0, 0, 0, 0, 1, 1, 1, 1, 0, 0]])


def test_a_drawn_ellipse_keeps_its_area_after_anti_aliasing() -> None:
    # The same shape, drawn with smooth edges as the 85 non-binary masks of IRSTD-1k are, and exactly.
    y, x = np.mgrid[:640, :640] / 10
    fine = ((x - 32.3) / 9) ** 2 + ((y - 31.8) / 5) ** 2 <= 1
    smooth = np.rint(fine.reshape(64, 10, 64, 10).mean(axis=(1, 3)) * 255)
    assert binarise(smooth).sum() == pytest.approx(np.pi * 9 * 5, rel=0.03)
    assert (smooth > 0).sum() > 1.15 * np.pi * 9 * 5


def test_an_empty_mask_is_empty() -> None:
    assert not binarise(np.zeros((3, 4), np.uint8)).any()


def test_the_known_mismatch_is_resized_nearest_to_the_image(make, write) -> None:
    root = make(["Misc_111"], folder="NUAA-SIRST", suffix="_pixels0", lists={"50_50/test": ["Misc_111"]})
    big = np.zeros(MASK_111, np.uint8)
    big[100:120, 200:230] = 255
    write(root / "images" / "Misc_111.png", np.zeros(IMAGE_111, np.uint8))
    write(root / "masks" / "Misc_111_pixels0.png", big)
    mask = load("nuaa", root, "test")[0].mask
    assert mask.shape == IMAGE_111
    rows = np.floor(np.arange(220) * 400 / 220).astype(int)  # nearest: the pixel that holds the corner
    columns = np.floor(np.arange(325) * 592 / 325).astype(int)
    np.testing.assert_array_equal(mask, big[np.ix_(rows, columns)] > 0)


def test_any_other_mismatch_is_an_error(make, write) -> None:
    root = make(["Misc_111"])
    write(root / "masks" / "Misc_111.png", np.ones((25, 32), np.uint8))
    with pytest.raises(ValueError, match=r"masks/Misc_111\.png is 25x32 and its image 24x32"):
        load("folder", root, "all")[0]


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_an_unreadable_file_is_named(make, content: bytes | str) -> None:
    root = make(["a"])
    path = root / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:200] if content == "half" else content)
    with pytest.raises(ValueError, match=r"images/a\.png"):
        load("folder", root, "all")[0]


def test_a_stack_of_pages_is_refused(make) -> None:
    root = make(["a"])
    pages = [np.zeros((24, 32), np.uint8)] * 2
    (root / "images" / "a.png").unlink()
    cv2.imwritemulti(str(root / "images" / "a.tiff"), pages)
    with pytest.raises(ValueError, match="has 2 pages"):
        load("folder", root, "all")[0]


@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("NUAA-SIRST", "train", 213),
        ("NUAA-SIRST", "test", 214),
        ("NUAA-SIRST", "all", 427),
        ("NUAA-SIRST", "idx_427/trainval", 341),
        ("NUAA-SIRST", "idx_427/test", 86),
        ("NUDT-SIRST", "train", 663),
        ("NUDT-SIRST", "test", 664),
        ("NUDT-SIRST", "all", 1327),
    ],
)
def test_the_public_lists_have_their_published_lengths(
    data_root: Path, name: str, split: str, count: int
) -> None:
    assert len(load(name, data_root, split)) == count


def test_44_of_the_86_test_images_of_idx_427_are_in_the_50_50_train_list(data_root: Path) -> None:
    test = load("nuaa", data_root, "idx_427/test").ids
    assert len(set(test) & set(load("nuaa", data_root, "train").ids)) == 44


def test_the_nuaa_masks_hold_533_targets_and_none_is_empty(data_root: Path) -> None:
    masks = [read_mask(path) for path in sorted((data_root / "NUAA-SIRST" / "masks").glob("*.png"))]
    counts = [label(mask)[0] for mask in masks]
    assert (len(masks), sum(counts), min(counts)) == (427, 533, 1)


def test_the_nuaa_samples_have_their_published_sizes(data_root: Path) -> None:
    shapes = {s.id: (s.image.shape, s.mask.shape) for s in load("nuaa", data_root, "all")}
    assert shapes["Misc_111"] == (IMAGE_111, IMAGE_111)
    assert len({image for image, _ in shapes.values()}) == 381
    assert all(image == mask for image, mask in shapes.values())


def test_no_public_mask_is_empty(data_root: Path) -> None:
    for name in ("nuaa", "nudt"):
        assert all(sample.mask.any() for sample in load(name, data_root, "all"))
