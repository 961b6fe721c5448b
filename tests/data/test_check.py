from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet.data.check import CheckReport, CheckRow, check

LISTS = {"50_50/train": ["a", "b"], "50_50/test": ["c"]}


@pytest.fixture
def nudt(make) -> Path:
    return make(["a", "b", "c"], folder="NUDT-SIRST", lists=LISTS)


def row(report: CheckReport, what: str) -> CheckRow:
    return next(row for row in report.rows if row.what == what)


def test_a_sound_data_set_has_no_problem_and_no_note(nudt: Path) -> None:
    report = check(nudt)
    assert report.ok
    assert {r.level for r in report.rows} == {"ok"}
    assert row(report, "images").count == row(report, "masks").count == 3
    assert row(report, "images").detail == "24x32 (rows x columns)"
    assert row(report, "masks").detail == "3 targets, area 9 to 9, median 9 pixels"
    assert row(report, "list 50_50/train").count == 2


def break_image(root: Path) -> None:
    (root / "images" / "a.png").write_bytes(b"broken")


def break_mask(root: Path) -> None:
    path = root / "masks" / "b.png"
    path.write_bytes(path.read_bytes()[:60])


def grow_mask(root: Path) -> None:
    cv2.imwrite(str(root / "masks" / "b.png"), np.full((25, 32), 255, np.uint8))


def double_image(root: Path) -> None:
    (root / "images" / "a.jpg").write_bytes((root / "images" / "a.png").read_bytes())


def lose_image(root: Path) -> None:
    (root / "images" / "c.png").unlink()


def lose_mask(root: Path) -> None:
    (root / "masks" / "c.png").unlink()


def lose_list(root: Path) -> None:
    (root / "50_50" / "test.txt").unlink()


def repeat_id(root: Path) -> None:
    (root / "50_50" / "train.txt").write_text("a\nb\na\n")


def leak_id(root: Path) -> None:
    (root / "50_50" / "test.txt").write_text("c\nb\n")


def leak_image(root: Path) -> None:
    (root / "images" / "c.png").write_bytes((root / "images" / "b.png").read_bytes())


@pytest.mark.parametrize(
    ("damage", "what", "text"),
    [
        (break_image, "files that cannot be read", "a.png"),
        (break_mask, "files that cannot be read", "b.png"),
        (grow_mask, "masks of another size than their image", "b (image 24x32, mask 25x32)"),
        (double_image, "ids with two files", "a"),
        (lose_image, "listed ids without image or mask", "50_50/test c"),
        (lose_mask, "listed ids without image or mask", "50_50/test c"),
        (lose_list, "missing lists", "50_50/test.txt"),
        (repeat_id, "ids more than once in a list", "50_50/train a"),
        (leak_id, "ids in lists that must be apart", "b in 50_50/train and 50_50/test"),
        (leak_image, "identical images in lists that must be apart", "b and c in 50_50/train and 50_50/test"),
    ],
)
def test_what_makes_results_wrong_is_a_problem(nudt: Path, damage, what: str, text: str) -> None:
    damage(nudt)
    report = check(nudt)
    assert not report.ok
    found = row(report, what)
    assert (found.level, found.count) == ("problem", 1)
    assert text in found.detail
    assert [r.what for r in report.rows if r.level == "problem"] == [what]


def empty_mask(root: Path) -> None:
    cv2.imwrite(str(root / "masks" / "a.png"), np.zeros((24, 32), np.uint8))


def soften_mask(root: Path) -> None:
    mask = cv2.imread(str(root / "masks" / "a.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(root / "masks" / "a.png"), cv2.GaussianBlur(mask, (3, 3), 0))


def add_image(root: Path) -> None:
    cv2.imwrite(str(root / "images" / "z.png"), np.arange(768, dtype=np.uint8).reshape(24, 32))


def add_mask(root: Path) -> None:
    cv2.imwrite(str(root / "masks" / "z.png"), np.zeros((24, 32), np.uint8))


def copy_darker(root: Path) -> None:
    image = cv2.imread(str(root / "images" / "a.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(root / "images" / "c.png"), image // 2)


def mix_lists(root: Path) -> None:
    (root / "other").mkdir()
    (root / "other" / "test.txt").write_text("a\n")


@pytest.mark.parametrize(
    ("change", "what", "text"),
    [
        (empty_mask, "masks without a target", "a"),
        (soften_mask, "masks that are not binary", "a; target above half"),
        (add_image, "images without a mask", "z"),
        (add_mask, "masks without an image", "z.png"),
        (copy_darker, "near-duplicates in lists that must be apart", "a and c in 50_50/train and 50_50/test"),
        (mix_lists, "lists of different folders that share ids", "50_50/train and other/test (1 ids)"),
    ],
)
def test_what_has_a_documented_treatment_is_a_note(nudt: Path, change, what: str, text: str) -> None:
    change(nudt)
    report = check(nudt)
    assert report.ok
    assert (row(report, what).level, row(report, what).count) == ("note", 1)
    assert row(report, what).detail.startswith(text)


def test_the_known_mismatch_of_nuaa_is_a_note(make, write) -> None:
    root = make(["Misc_111", "b"], folder="NUAA-SIRST", suffix="_pixels0")
    for name, id in (("train", "b"), ("test", "Misc_111")):
        (root / "50_50").mkdir(exist_ok=True)
        (root / "50_50" / f"{name}.txt").write_text(id)
    write(root / "masks" / "Misc_111_pixels0.png", np.full((40, 50), 255, np.uint8))
    report = check(root)
    assert report.ok
    known = row(report, "masks resized to their image, as documented")
    assert (known.level, known.detail) == ("note", "Misc_111 (image 24x32, mask 40x50)")


def test_all_data_sets_below_a_folder_are_checked(nudt: Path, make) -> None:
    make(["x", "y"], folder="IRSTD-1k", images="IRSTD1k_Img", masks="IRSTD1k_Label")
    report = check(nudt.parent)
    assert list(dict.fromkeys(r.dataset for r in report.rows)) == ["NUDT-SIRST", "IRSTD-1k"]
    assert [r.dataset for r in report.rows if r.level == "problem"] == ["IRSTD-1k"]  # it has no lists
    assert check(nudt.parent, "nudt").ok


def test_a_folder_needs_no_lists(make) -> None:
    assert check(make(["a", "b"])).ok


def test_no_readable_image_is_a_problem(make) -> None:
    root = make(["a"])
    (root / "images" / "a.png").unlink()
    assert not check(root).ok


def test_progress_counts_every_image(nudt: Path) -> None:
    seen: list[tuple[int, int]] = []
    check(nudt, advance=lambda *step: seen.append(step[:2]))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_public_data_sets_have_no_problem(data_root: Path) -> None:
    report = check(data_root)
    assert report.ok
    counts = {(r.dataset, r.what): r.count for r in report.rows if r.level == "note"}
    assert counts[("NUAA-SIRST", "masks resized to their image, as documented")] == 1
    assert counts[("NUAA-SIRST", "lists of different folders that share ids")] == 5
    assert counts[("NUDT-SIRST", "near-duplicates in lists that must be apart")] == 48
