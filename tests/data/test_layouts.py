from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ismallnet.data import load, load_all
from ismallnet.data.layouts import LAYOUTS, find_layout, identify, ids_sha256

FIFTY = {"50_50/train": ["a", "b"], "50_50/test": ["c"]}
PUBLIC = [
    ("NUAA-SIRST", "images", "masks", "_pixels0", FIFTY),
    ("NUDT-SIRST", "images", "masks", "", FIFTY),
    ("IRSTD-1k", "IRSTD1k_Img", "IRSTD1k_Label", "", {"trainval": ["a", "b"], "test": ["c"]}),
]


@pytest.mark.parametrize(("name", "images", "masks", "suffix", "lists"), PUBLIC)
def test_each_public_layout_loads_from_its_folder_and_from_the_folder_above(
    make, name, images, masks, suffix, lists
) -> None:
    root = make(["a", "b", "c"], folder=name, images=images, masks=masks, suffix=suffix, lists=lists)
    for at in (root, root.parent, str(root)):
        assert load(name, at, "train").ids == ("a", "b")
        assert load(name.lower(), at, "test").ids == ("c",)
    sample = load(name, root, "test")[0]
    assert sample.id == "c"
    assert sample.mask.sum() == 9
    assert sample.mask[4:7, 2:5].all()


@pytest.mark.parametrize(("name", "images", "masks", "suffix", "lists"), PUBLIC)
def test_a_public_layout_is_recognised_without_being_named(make, name, images, masks, suffix, lists) -> None:
    options = {"images": images, "masks": masks, "suffix": suffix, "lists": lists}
    assert [row.name for row, _ in identify(make(["a", "b", "c"], folder="renamed", **options))] == [name]
    above = make(["a", "b", "c"], folder=name, **options).parent
    assert [(row.name, at) for row, at in identify(above)] == [(name, above / name)]


@pytest.mark.parametrize(
    ("alias", "name"), [("nuaa", "NUAA-SIRST"), ("NUDT", "NUDT-SIRST"), ("Irstd-1K", "IRSTD-1k")]
)
def test_names_go_in_any_case_and_by_alias(alias: str, name: str) -> None:
    assert find_layout(alias).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown data set 'sirst2'; choose from NUAA-SIRST, NUDT-SIRST"):
        load("sirst2", ".", "train")


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "folder"])
def test_not_found_says_what_where_and_who_publishes_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError) as error:
        load(name, tmp_path, "train")
    row = LAYOUTS[name]
    for text in (
        name,
        str(tmp_path / name / row.images),
        str(tmp_path / row.images),
        "https://github.com/",
        row.published,
    ):
        assert text in str(error.value)


def test_no_data_set_at_all_is_an_error_that_lists_the_places(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"NUAA-SIRST/images/.*IRSTD-1k/IRSTD1k_Img/ and images/"):
        load_all(tmp_path)


def test_a_list_is_found_by_its_path_below_the_data_set(make) -> None:
    lists = {**FIFTY, "idx_427/trainval": ["c", "a"]}
    root = make(["a", "b", "c"], folder="NUAA-SIRST", suffix="_pixels0", lists=lists)
    assert load("nuaa", root, "idx_427/trainval").ids == ("c", "a")


def test_a_missing_list_names_those_that_exist(make) -> None:
    root = make(["a", "b", "c"], folder="NUDT-SIRST", lists=FIFTY)
    with pytest.raises(
        FileNotFoundError, match=r"no split 'val': .*val\.txt; choose from train, test, all, 50_50/test"
    ):
        load("nudt", root, "val")


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_listed_id_without_a_file_is_named(make, kind: str) -> None:
    root = make(["a", "b", "c"], folder="NUDT-SIRST", lists=FIFTY)
    (root / kind / "b.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"1 of the 2 ids .*train\.txt have no {kind[:-1]} in .*{kind}/.*: b\."
    ):
        load("nudt", root, "train")


def test_the_masks_of_another_data_set_are_not_taken(make) -> None:
    root = make(["a", "b", "c"], folder="NUDT-SIRST", lists=FIFTY)
    with pytest.raises(FileNotFoundError, match=r"2 of the 2 ids .* no mask .*<id>_pixels0\.\*"):
        load("nuaa", root, "train")


def test_an_id_twice_in_a_list_is_refused(make) -> None:
    root = make(["a", "b"], lists={"train": ["a", "b", "a"]})
    with pytest.raises(ValueError, match=r"train\.txt names a more than once"):
        load("folder", root, "train")


def test_an_empty_list_is_refused(make) -> None:
    root = make(["a"], lists={"train": []})
    with pytest.raises(ValueError, match="names no image"):
        load("folder", root, "train")


def test_two_files_for_one_id_are_refused(make, write) -> None:
    root = make(["a", "b"])
    write(root / "images" / "a.bmp", load("folder", root, "all")[0].image)
    with pytest.raises(ValueError, match=r"two files in .* for a;"):
        load("folder", root, "train")


@pytest.mark.parametrize("suffix", ["", "_pixels0", "_mask", "-gt"])
def test_a_folder_takes_masks_with_any_common_suffix(make, suffix: str) -> None:
    root = make(["1", "10", "1_b"], suffix=suffix)
    assert [int(s.mask.any(axis=0).argmax()) for s in load("folder", root, "all")] == [0, 1, 2]
    assert load("folder", root, "all").ids == ("1", "10", "1_b")


def test_a_folder_without_lists_is_every_image_under_any_split(make) -> None:
    root = make(["b", "a"])
    for split in ("train", "test", "all"):
        assert load("folder", root, split).ids == ("a", "b")


def test_a_folder_with_one_list_does_not_invent_the_other(make) -> None:
    root = make(["a", "b"], lists={"train": ["a"]})
    assert load("folder", root, "train").ids == ("a",)
    with pytest.raises(FileNotFoundError, match="no split 'test'"):
        load("folder", root, "test")


def test_a_list_may_name_files_and_have_blank_lines(make) -> None:
    root = make(["a", "b.c"])
    (root / "train.txt").write_bytes(b"\xef\xbb\xbfb.c.png\r\n\r\n  a\r\n")
    assert load("folder", root, "train").ids == ("b.c", "a")


def test_a_folder_mixes_file_types_and_ignores_other_files(make, write) -> None:
    root = make(["a", "b"])
    made = load("folder", root, "all")[0]
    write(root / "images" / "c.tif", made.image)
    write(root / "masks" / "c.bmp", made.mask.astype("uint8"))
    (root / "masks" / "a.xml").write_text("<a/>")
    (root / "images" / "readme.txt").write_text("x")
    assert load("folder", root, "all").ids == ("a", "b", "c")


def test_the_sha256_is_of_the_sorted_ids_joined_by_newlines() -> None:
    assert ids_sha256(["b", "a"]) == hashlib.sha256(b"a\nb").hexdigest()


def test_the_sha256_is_that_of_coreutils() -> None:
    # printf 'Misc_1\nMisc_10\nMisc_2' | sha256sum
    assert (
        ids_sha256(["Misc_2", "Misc_1", "Misc_10"])
        == "a2b1a32dc77ca504faae4cc826799b213d8a54b84d372d7101169e2a746c55ca"
    )
