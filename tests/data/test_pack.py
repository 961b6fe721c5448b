from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet.data import Dataset, load, load_all
from ismallnet.data.pack import load_packed, pack
from ismallnet.types import Sample

LISTS = {"50_50/train": ["b", "a"], "50_50/test": ["c"], "idx_427/trainval": ["c", "a"]}


def assert_same(one: Dataset, other: Dataset) -> None:
    assert (one.name, one.split, one.ids) == (other.name, other.split, other.ids)
    assert one.split_sha256 == other.split_sha256
    for a, b in zip(one, other, strict=True):
        assert a.id == b.id
        assert (a.image.dtype, a.mask.dtype) == (b.image.dtype, b.mask.dtype)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.mask, b.mask)


@pytest.fixture
def nuaa(make) -> Path:
    return make(["a", "b", "c"], folder="NUAA-SIRST", suffix="_pixels0", lists=LISTS)


@pytest.fixture
def packed(nuaa: Path, make, tmp_path: Path) -> Path:
    assert nuaa.parent == tmp_path
    make(["a", "d"], folder="NUDT-SIRST", lists={"50_50/train": ["a"], "50_50/test": ["d"]})
    return pack(load_all(tmp_path), tmp_path / "new" / "both.zip")


@pytest.mark.parametrize("name", ["NUAA-SIRST", "NUDT-SIRST"])
@pytest.mark.parametrize("split", ["train", "test", "all", "50_50/train"])
def test_a_packed_split_is_the_folders_split_bit_for_bit(
    packed: Path, tmp_path: Path, name: str, split: str
) -> None:
    assert_same(load(name, packed, split), load(name, tmp_path, split))


def test_every_list_of_the_folder_is_packed(packed: Path, tmp_path: Path) -> None:
    assert_same(load("nuaa", packed, "idx_427/trainval"), load("nuaa", tmp_path, "idx_427/trainval"))
    assert set(load_packed(packed)["NUAA-SIRST"]) == {*LISTS, "all"}


def test_a_folder_without_lists_is_every_image_packed_too(make, tmp_path: Path) -> None:
    root = make(["b", "a"])
    path = pack(load_all(root), tmp_path / "mine.zip")
    for split in ("train", "test", "all"):
        assert_same(load("folder", path, split), load("folder", root, split))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3), (17, 1), (16, 16), (2, 16384)])
def test_any_size_survives(tmp_path: Path, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, shape).astype(np.uint8), rng.random(shape) < 0.3
    data = Dataset("folder", tmp_path, "train", ("x", "y"), lambda id: Sample(id, image, mask))
    for sample in load("folder", pack([data], tmp_path / "p.zip"), "train"):
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.mask, mask)


def test_a_pack_of_a_train_list_holds_no_test_image(nuaa: Path, tmp_path: Path) -> None:
    path = pack([load("nuaa", nuaa, "train")], tmp_path / "p.zip")
    assert load("nuaa", path, "all").ids == ("a", "b")
    with pytest.raises(
        FileNotFoundError, match=r"p\.zip: NUAA-SIRST has no split 'test'; choose from train, all"
    ):
        load("nuaa", path, "test")


def test_a_data_set_that_is_not_in_the_pack_is_named(packed: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no IRSTD-1k, only NUAA-SIRST, NUDT-SIRST"):
        load("irstd-1k", packed, "train")


def test_the_file_is_a_zip_of_pictures_and_json_without_pickle(packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        index = json.loads(archive.read("index.json"))
    assert {Path(name).suffix for name in names} == {".webp", ".xz", ".json"}
    assert index["datasets"]["NUAA-SIRST"]["lists"]["50_50/train"] == ["b", "a"]


def test_the_same_data_gives_the_same_bytes(nuaa: Path, tmp_path: Path) -> None:
    paths = [pack(load_all(nuaa), tmp_path / name) for name in ("1.zip", "2.zip")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_an_existing_file_is_replaced_only_when_asked(packed: Path, nuaa: Path) -> None:
    before = packed.read_bytes()
    with pytest.raises(FileExistsError, match="force"):
        pack(load_all(nuaa), packed)
    assert packed.read_bytes() == before
    pack(load_all(nuaa), packed, force=True)
    assert list(load_packed(packed)) == ["NUAA-SIRST"]


def test_a_failed_pack_leaves_nothing_behind(nuaa: Path, tmp_path: Path) -> None:
    splits = load_all(nuaa)
    (nuaa / "images" / "b.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"b\.png"):
        pack(splits, tmp_path / "p.zip")
    assert not list(tmp_path.glob("p.zip*"))


def test_nothing_to_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data set to pack"):
        pack([], tmp_path / "p.zip")


@pytest.mark.parametrize("damage", ["text", "cut", "bit", "other zip"])
def test_a_damaged_pack_is_refused(packed: Path, damage: str) -> None:
    data = bytearray(packed.read_bytes())
    if damage == "cut":
        packed.write_bytes(data[: len(data) // 2])
    elif damage == "bit":
        data[300] ^= 1
        packed.write_bytes(data)
    elif damage == "text":
        packed.write_text("hello")
    else:
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a", "b")
    with pytest.raises(ValueError, match="is no data pack or a damaged one"):
        load("nuaa", packed, "train")


def test_a_changed_list_is_noticed_by_its_sha256(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(tmp_path / "changed.zip", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b'["b","a"]', b'["b","c"]') if name == "index.json" else data)
    with pytest.raises(ValueError, match="50_50/train do not have the recorded SHA-256"):
        load("nuaa", tmp_path / "changed.zip", "train")


def test_a_packed_data_set_goes_to_other_processes(packed: Path) -> None:
    data = load("nuaa", packed, "train")
    assert_same(pickle.loads(pickle.dumps(data)), data)


def test_progress_counts_every_image_once(nuaa: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pack(load_all(nuaa), tmp_path / "p.zip", advance=lambda *step: seen.append(step[:2]))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_webp_of_this_opencv_is_lossless_for_every_grey_level() -> None:
    image = np.random.default_rng(0).permutation(np.arange(4096) % 256).reshape(64, 64).astype(np.uint8)
    _, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), image)


@pytest.mark.slow
def test_both_public_data_sets_fit_in_32_mb_and_come_back_bit_for_bit(
    data_root: Path, tmp_path: Path
) -> None:
    path = pack(load_all(data_root), tmp_path / "both.zip")
    assert path.stat().st_size < 32e6
    for name in ("NUAA-SIRST", "NUDT-SIRST"):
        assert_same(load(name, path, "all"), load(name, data_root, "all"))
