"""What a detector's errors are: by hand on a small scene, and against the evaluator on random masks."""

from __future__ import annotations

import base64
import csv
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from ismallnet import metrics
from ismallnet.benchmark.errors import KINDS, Error, Survey, compare, find_errors, survey, worst_first
from ismallnet.benchmark.gallery import COLUMNS, blocks, write_errors
from ismallnet.cli import main
from ismallnet.data import Dataset
from ismallnet.detector import Detector
from ismallnet.metrics.counts import count_image
from ismallnet.rules import Fixed
from ismallnet.types import Sample
from tiny import write_images

STANDARD = metrics.PROTOCOLS["standard"]
SHAPE = (40, 60)


def scene(id: str = "a") -> Sample:
    """Three targets; the image is the score that the identity makes of it, in steps of 1/255.

    The target of 9 px at (11, 11) is found one column to the right: 3 false and 3 missed px. That of 4 px at
    (9.5, 29.5) is missed, its highest score 0.4. That of 1 px at (50, 5) is in a blob of 35 px whose centre
    is 3 px off, not closer: missed without a missed pixel, and a false alarm with 34 false px. A spot of 2 px
    is the other false alarm. TP 6 + 1, FP 3 + 34 + 2, FN 3 + 4: the union is 53.
    """
    truth, score = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.float32)
    truth[10:13, 10:13] = truth[29:31, 9:11] = truth[5, 50] = True
    score[10:13, 11:14] = 0.8
    score[29, 9] = 0.4
    score[3:8, 44:51] = 0.6
    score[30, 40:42] = 0.6, 1.0
    return Sample(id, np.rint(255 * score).astype(np.uint8), truth)


def identity(name: str = "identity", threshold: float = 0.5) -> Detector:
    return Detector(lambda image: image, name=name, rule=Fixed(threshold))


def dataset(*samples: Sample, split: str = "train") -> Dataset:
    by_id = {sample.id: sample for sample in samples}
    return Dataset("toy", Path(), split, tuple(by_id), by_id.__getitem__)


def errors_of(sample: Sample, threshold: float = 0.5) -> tuple[Error, ...]:
    score = sample.image / np.float32(255)
    return find_errors(sample, score, score > threshold)


# --- whose a wrong pixel is ---------------------------------------------------------------------------


def test_every_wrong_pixel_belongs_to_one_error() -> None:
    found = {(e.kind, e.x, e.y): (e.size, e.fp, e.fn) for e in errors_of(scene())}
    assert found == {
        ("false alarm", 47.0, 5.0): (35, 34, 0),
        ("false alarm", 40.5, 30.0): (2, 2, 0),
        ("miss", 50.0, 5.0): (1, 0, 0),
        ("miss", 9.5, 29.5): (4, 0, 4),
        ("shape", 11.0, 11.0): (9, 3, 3),
    }


def test_costs_are_those_of_a_hand() -> None:
    """A repaired false alarm leaves the union; repaired missed pixels are true positives."""
    costs = {cost.kind: cost for cost in survey(identity(), dataset(scene())).costs}
    assert {kind: (cost.errors, cost.fp, cost.fn) for kind, cost in costs.items()} == {
        "false alarm": (2, 36, 0), "miss": (2, 0, 4), "shape": (1, 3, 3),
    }  # fmt: skip
    assert [costs[kind].share for kind in KINDS] == pytest.approx([36 / 53, 4 / 53, 6 / 53])
    assert [costs[kind].iou for kind in KINDS] == pytest.approx([7 / 17, 11 / 53, 10 / 50])


MASKS = arrays.arrays(bool, (9, 11), elements=st.integers(0, 3).map(lambda n: n == 0))


@given(truths=st.lists(MASKS, min_size=1, max_size=3), masks=st.lists(MASKS, min_size=3, max_size=3))
def test_kinds_add_up_to_what_the_evaluator_counts(truths: list[np.ndarray], masks: list[np.ndarray]) -> None:
    samples, errors, counts = [], [], []
    for number, truth in enumerate(truths):
        sample = Sample(str(number), np.where(masks[number], 255, 0).astype(np.uint8), truth)
        samples.append(sample)
        errors += errors_of(sample)
        counts.append(count_image(masks[number], truth, protocol=STANDARD))
    of = {kind: [error for error in errors if error.kind == kind] for kind in KINDS}
    assert sum(e.fp for e in errors) == sum(c.fp for c in counts)
    assert sum(e.fn for e in errors) == sum(c.fn for c in counts)
    assert len(of["false alarm"]) == sum(c.false_components for c in counts)
    assert len(of["miss"]) == sum(c.targets - c.matched for c in counts)
    assert all(e.fp + e.fn > 0 for e in of["shape"])
    found = survey(identity(), dataset(*samples))
    if any(c.tp + c.fp + c.fn for c in counts):
        iou = found.report.rates.overall["iou"].value
        assert sum(cost.share for cost in found.costs) == pytest.approx(1 - iou)
        assert all(cost.iou >= iou - 1e-12 for cost in found.costs)


@given(truth=MASKS, mask=MASKS)
def test_without_a_kind_iou_is_that_of_the_repaired_mask(truth: np.ndarray, mask: np.ndarray) -> None:
    """Repaired pixel by pixel: false alarms and missed targets by SciPy's labels, the rest is shape."""
    assume((truth | mask).any())
    sample = Sample("a", np.where(mask, 255, 0).astype(np.uint8), truth)
    found = survey(identity(), dataset(sample))
    wrong = truth ^ mask
    bad = {}
    for kind, parts in (("false alarm", mask), ("miss", truth)):
        labels, _ = ndimage.label(parts, np.ones((3, 3)))
        bad[kind] = wrong & np.isin(labels, [e.number + 1 for e in found.errors if e.kind == kind])
    bad["shape"] = wrong & ~bad["false alarm"] & ~bad["miss"]
    for cost in found.costs:
        repaired = mask ^ bad[cost.kind]
        union = (repaired | truth).sum()
        expected = (repaired & truth).sum() / union if union else math.nan
        assert cost.iou == pytest.approx(expected, nan_ok=True)


# --- what is said of an error ------------------------------------------------------------------------


def test_contrast_of_a_target_is_the_evaluators_and_peaks_are_the_scores() -> None:
    noise = np.random.default_rng(1).normal(0, 8, SHAPE)
    one = scene()
    one = one._replace(image=np.clip(one.image * 0.5 + 40 + noise, 0, 255).astype(np.uint8))
    score = scene().image / np.float32(255)
    found = {(e.kind, e.size): e for e in find_errors(one, score, score > 0.5)}
    details = count_image(score > 0.5, one.mask, protocol=STANDARD, image=one.image).details
    assert details is not None
    by_size = dict(zip(details.area, details.scr, strict=True))
    for kind, size in (("miss", 4), ("miss", 1), ("shape", 9)):
        assert found[kind, size].scr == by_size[size]
    assert [round(found["miss", size].peak, 1) for size in (4, 1)] == [0.4, 0.6]
    assert found["shape", 9].peak == pytest.approx(0.8)
    assert found["false alarm", 2].peak == 1


def test_worst_come_first_false_alarms_by_pixels_and_score_misses_by_size_and_contrast() -> None:
    """A blob of 35 px with score 0.6 is worse than two pixels with 1.6 together."""
    found = worst_first(errors_of(scene()))
    assert [(e.kind, e.size) for e in found[:2]] == [("false alarm", 35), ("false alarm", 2)]
    assert [e.badness for e in found[:2]] == pytest.approx([35 * 0.6, 1.6])
    for e in found:
        if e.kind == "miss":
            assert e.badness == pytest.approx(e.size * e.scr)
    flat = Sample("b", np.zeros(SHAPE, np.uint8), scene().mask)
    assert [(e.size, e.badness) for e in worst_first(errors_of(flat))] == [(9, 9), (4, 4), (1, 1)]


def test_errors_are_new_stay_or_are_gone() -> None:
    """Before, the spot was 1 px to the left and the target of 9 px missed; a spot elsewhere is gone."""
    before = scene()
    image = before.image.copy()
    image[10:13, 11:14] = image[30, 41] = image[3:8, 44:51] = 0
    image[30, 39] = image[20, 20] = 255
    marked, gone = compare(errors_of(scene()), errors_of(before._replace(image=image)))
    assert {(e.kind, e.size, e.change) for e in marked} == {
        ("false alarm", 35, "new"), ("false alarm", 2, "stays"), ("shape", 9, "new"),
        ("miss", 1, "stays"), ("miss", 4, "stays"),
    }  # fmt: skip
    assert {(e.kind, e.size, e.change) for e in gone} == {("false alarm", 1, "gone"), ("miss", 9, "gone")}


def test_errors_of_other_images_are_not_compared() -> None:
    marked, gone = compare(errors_of(scene("a")), errors_of(scene("b")))
    assert {e.change for e in marked} == {"new"}
    assert len(gone) == len(marked)


# --- the pages ---------------------------------------------------------------------------------------


def written(tmp_path: Path, images: Dataset, *, before: Survey | None = None, top: int = 30) -> Path:
    out = tmp_path / "out"
    write_errors(survey(identity(), images, log=tmp_path), images, out, before=before, top=top)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_table_of_errors_adds_up_to_the_pixels_of_the_report(tmp_path: Path) -> None:
    images = dataset(scene("a"), scene("b"))
    found = rows(written(tmp_path, images, top=1) / "errors.csv")
    assert tuple(found[0]) == COLUMNS
    report = survey(identity(), images).report
    assert sum(int(row["fp"]) for row in found) == sum(count.fp for count in report.counts) == 2 * 39
    assert sum(int(row["fn"]) for row in found) == sum(count.fn for count in report.counts) == 2 * 7
    assert [row["place"] for row in found if row["kind"] == "miss"] == ["1", "2", "3", "4"]


def test_errors_are_counted_by_size_and_contrast_and_none_is_lost() -> None:
    by_size, by_contrast = blocks(survey(identity(), dataset(scene())))[1:]
    assert [row[1:] for row in by_size.rows] == [
        ["3", "2", "1"], ["0", "0", "0"], ["0", "0", "1"], ["0", "0", "0"], ["3", "2", "2"],
    ]  # fmt: skip
    assert by_contrast.rows[-1][1:] == ["3", "2", "2"]
    bins = np.array([row[1:] for row in by_contrast.rows[:-1]], int)
    assert bins.sum(axis=0).tolist() == [3, 2, 2]


def test_page_needs_no_other_file_and_has_the_worst_of_each_kind(tmp_path: Path) -> None:
    out = written(tmp_path, dataset(scene("a"), scene("b")), top=1)
    page = (out / "errors.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', page)
    assert sources == ["data:image/png;base64,"] * 3
    for text in re.findall(r'base64,([^"]+)"', page):
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] == 3 * 240  # image, mask and truth, score
    assert "1. a at x 47.0, y 5.0: 35 px" in page
    assert "Worst false alarms: 1 of 4" in page
    assert "<table>" in page


def test_picture_outlines_truth_in_green_and_mask_in_red(tmp_path: Path) -> None:
    """A false alarm at the edge of a small image, which the picture shows whole."""
    image, truth = np.zeros((24, 24), np.uint8), np.zeros((24, 24), bool)
    image[20:24, 20:24], truth[2:6, 2:6] = 255, True
    page = (written(tmp_path, dataset(Sample("a", image, truth))) / "errors.html").read_text()
    text = re.findall(r'base64,([^"]+)"', page)[0]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (24 + 240, 3 * 240, 3)  # under a line of captions
    middle = picture[24:, 240:480]
    assert tuple(middle[20, 20]) == (80, 230, 80)
    assert tuple(middle[239, 239]) == tuple(middle[200, 200]) == (60, 60, 255)
    assert tuple(middle[220, 220]) == (255, 255, 255)


def test_page_of_a_test_list_says_that_it_must_not_choose_and_the_look_is_logged(tmp_path: Path) -> None:
    for split, warned in (("train", False), ("test", True)):
        out = written(tmp_path / split, dataset(scene(), split=split))
        for name in ("errors.html", "errors.md"):
            text = (out / name).read_text(encoding="utf-8")
            assert ("must not choose a network, a recipe, a checkpoint or a threshold" in text) == warned
        assert (tmp_path / split / "test_evaluations.csv").exists() == warned
    (row,) = rows(tmp_path / "test" / "test_evaluations.csv")
    assert (row["purpose"], row["detector"], row["n"]) == ("benchmark errors", "identity", "1")


def test_comparison_has_both_figures_and_counts_what_changed(tmp_path: Path) -> None:
    images = dataset(scene())
    before = survey(identity("other", 0.7), images)  # without the blob
    out = written(tmp_path, images, before=before)
    found = [(row["change"], row["kind"]) for row in rows(out / "errors.csv")]
    assert found.count(("new", "false alarm")) == 1
    assert found.count(("gone", "false alarm")) == 0
    assert found.count(("stays", "miss")) == 2
    changes = next(b for b in blocks(survey(identity(), images), before) if b.title == "Changes")
    assert changes.rows[0] == ["false alarms", "1", "1", "0"]
    text = (out / "errors.md").read_text(encoding="utf-8")
    assert "Before: other" in text
    assert "before: false alarms" in text


def test_command_judges_a_validation_fold_and_opens_no_test_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path / "data")
    for name in (root / "test.txt").read_text().split():
        (root / "images" / f"{name}.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    words = ["benchmark", "errors", "top-hat", "--data", "folder", "--root", str(root), "--compare", "lcm"]
    assert main([*words, "--top", "2"]) == 0
    assert sorted(path.name for path in Path("errors").iterdir()) == [
        "errors.csv",
        "errors.html",
        "errors.md",
    ]
    assert "train fold 0 of 5" in Path("errors/errors.md").read_text()
    assert not Path("results").exists()
    assert main(words) == 2
    assert "errors exists and is not empty" in " ".join(capsys.readouterr().err.split())
    for split in ("fold:9", "fold:x", "part:0"):
        assert main([*words, "--split", split, "--out", "other"]) == 2
    assert "or fold:N with N from 0; got 'part:0'" in " ".join(capsys.readouterr().err.split())
    assert not Path("other").exists()
