"""Detection over files: what is written, what is refused, what a bad file does."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ismallnet.checkpoint import save_model
from ismallnet.detect import COLUMNS, FILES, DetectReport, detect_files
from ismallnet.detector import Detector
from ismallnet.listing import find_images
from ismallnet.maps import Maps
from ismallnet.media import read_pages
from ismallnet.models import create_model
from ismallnet.rules import Fixed, Statistical
from peak import PEAK_KB, measures_memory
from videos import cut, damage_packet, scenes, write_stack, write_video

SPOTS = ((10, 12), (30, 40))
"""Top-left corners (y, x) of the two targets of `scene`, 2 × 3 pixels each."""


def scene(level: int = 80) -> np.ndarray:
    """A flat 8-bit scene with two targets, the first the brighter."""
    image = np.full((48, 64), level, np.uint8)
    for (y, x), value in zip(SPOTS, (250, 200), strict=True):
        image[y : y + 2, x : x + 3] = value
    return image


def identity(**options: Any) -> Detector:
    """A detector whose score is the image: a filter anyone can follow."""
    return Detector(lambda image: image, name="identity", rule=Fixed(0.6), **options)


def streams() -> Detector:
    return Detector(lambda x: Maps(x, x / 2, x / 4), name="streams", rule=Fixed(0.6))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images and something else."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("b.png", "a.bmp", "c.TIF"):
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix.lower(), scene())[1].tobytes())
    (folder / "notes.txt").write_text("no image")
    (folder / "._b.png").write_text("a resource fork")
    return folder


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# --- sources ---


def test_a_folder_stands_for_the_images_directly_inside_by_name(folder: Path) -> None:
    (folder / "deeper").mkdir()
    cv2.imwrite(str(folder / "deeper" / "d.png"), scene())
    assert [p.name for p in find_images([folder])] == ["a.bmp", "b.png", "c.TIF"]


def test_a_glob_stands_for_the_images_it_matches(folder: Path) -> None:
    (folder / "deeper").mkdir()
    cv2.imwrite(str(folder / "deeper" / "d.png"), scene())
    assert [p.name for p in find_images([f"{folder}/*"])] == ["a.bmp", "b.png", "c.TIF"]
    assert [p.name for p in find_images([f"{folder}/**/*.png"])] == ["b.png", "d.png"]


def test_a_file_is_taken_whatever_its_suffix_and_once(folder: Path) -> None:
    odd = folder / "frame.0001"
    odd.write_bytes((folder / "b.png").read_bytes())
    assert find_images([odd, folder / "b.png", odd, str(folder / "." / "b.png")]) == [odd, folder / "b.png"]


def test_a_file_with_a_bracket_in_its_name_is_no_glob(folder: Path) -> None:
    odd = folder / "x[1].png"
    odd.write_bytes((folder / "b.png").read_bytes())
    assert find_images([str(odd)]) == [odd]


@pytest.mark.parametrize("missing", ["nowhere.png", "nowhere*.png", "empty", "**/*.bmp"])
def test_a_source_without_images_is_named(tmp_path: Path, missing: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        find_images([tmp_path / missing])
    assert missing in str(error.value)


def test_no_source_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="nothing to detect"):
        find_images([])


# --- what is written ---


def test_everything_that_can_be_saved_is_where_the_table_says(folder: Path, tmp_path: Path) -> None:
    report = detect_files([folder], streams(), out=tmp_path / "out", save=tuple(FILES))
    assert report.out == tmp_path / "out"
    pictures = [f"{kind}/{name}.png" for kind in ("mask", "overlay") for name in "abc"]
    maps = [f"{kind}/{name}.tif" for kind in ("boundary", "interior", "score") for name in "abc"]
    tables = [".ismallnet-detect", "coco.json", *(f"detections.{s}" for s in ("csv", "json", "jsonl"))]
    assert tree(tmp_path / "out") == sorted([*pictures, *maps, *tables])


def test_only_what_is_asked_for_is_written(folder: Path, tmp_path: Path) -> None:
    detect_files([folder / "b.png"], identity(), out=tmp_path / "out", save=["mask"])
    assert tree(tmp_path / "out") == [".ismallnet-detect", "mask/b.png"]


def test_the_report_holds_the_targets(folder: Path, tmp_path: Path) -> None:
    report = detect_files([folder / "b.png"], identity(), out=tmp_path / "out")
    (result,) = report.frames
    assert (result.image, result.frame, result.height, result.width) == (str(folder / "b.png"), 0, 48, 64)
    assert (result.low, result.high, result.rule, result.dtype) == (0, 255, "8-bit", "uint8")
    assert [(t.y0, t.x0) for t in result.targets] == list(SPOTS)
    assert report.failed == []


def test_mask_and_score_are_those_of_the_detector(folder: Path, tmp_path: Path) -> None:
    detect_files([folder / "b.png"], identity(), out=tmp_path / "out", save=["mask", "score"])
    (mask,), (score,) = (read_pages(tmp_path / "out" / p) for p in ("mask/b.png", "score/b.tif"))
    np.testing.assert_array_equal(mask, np.where(scene() > 80, 255, 0))
    assert score.dtype == np.float32
    np.testing.assert_array_equal(score, (scene() / 255).astype(np.float32))


def test_the_csv_has_a_row_a_target(folder: Path, tmp_path: Path) -> None:
    detect_files([folder / "b.png"], identity(), out=tmp_path / "out", save=["csv"])
    with (tmp_path / "out" / "detections.csv").open(newline="", encoding="utf-8") as file:
        header, first, second = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert first == [
        str(folder / "b.png"), "0", "1", "12", "10", "15", "12", "13", "10.5", "6", "0.980392", "0.980392"
    ]  # fmt: skip
    assert second[2:5] == ["2", "40", "30"]


def test_the_json_holds_model_decision_version_range_and_targets(folder: Path, tmp_path: Path) -> None:
    deep = folder / "deep.png"
    deep.write_bytes(cv2.imencode(".png", scene().astype(np.uint16) * 16)[1].tobytes())
    detect_files([deep], identity(), out=tmp_path / "out", save=["json"], range=(0, 4080))
    content = json.loads((tmp_path / "out" / "detections.json").read_text(encoding="utf-8"))
    assert (content["model"], content["decision"], content["failed"]) == ("identity", "Fixed(value=0.6)", [])
    assert content["ismallnet"].count(".") == 2
    (image,) = content["images"]
    assert image["range"] == {"low": 0, "high": 4080, "rule": "given", "warning": ""}
    assert (image["dtype"], image["threshold"], image["height"], image["width"]) == ("uint16", 0.6, 48, 64)
    assert [(t["id"], t["x0"], t["y0"], t["area"]) for t in image["targets"]] == [
        (1, 12, 10, 6),
        (2, 40, 30, 6),
    ]


def test_the_coco_file_is_read_by_pycocotools(folder: Path, tmp_path: Path) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    detect_files([folder], identity(), out=tmp_path / "out", save=["coco"])
    coco = coco_module.COCO(str(tmp_path / "out" / "coco.json"))
    assert len(coco.getImgIds()) == 3
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert first["bbox"] == [12, 10, 3, 2]
    assert first["score"] == pytest.approx(250 / 255)
    assert second["area"] == 6


def test_an_image_without_targets_has_an_empty_entry(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), np.full((20, 20), 50, np.uint8))
    report = detect_files([tmp_path / "x.png"], identity(), out=tmp_path / "out", save=["overlay", "csv"])
    assert report.frames[0].targets == ()
    assert (tmp_path / "out" / "detections.csv").read_text().count("\n") == 1


def test_the_warning_about_a_range_is_in_the_report_and_not_on_the_screen(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), np.full((20, 20), 50, np.uint8))
    report = detect_files([tmp_path / "x.png"], identity(), out=tmp_path / "out")
    assert "50 to 50" in report.frames[0].warning
    assert not list(recwarn)


def test_a_flat_noisy_16_bit_frame_gives_no_target(tmp_path: Path) -> None:
    flat = np.random.default_rng(0).normal(9000, 15, (128, 128)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), flat)
    report = detect_files([tmp_path / "x.png"], identity(), out=tmp_path / "out")
    assert report.frames[0].targets == ()
    assert "widened" in report.frames[0].warning


def test_the_pages_of_a_stack_are_numbered(tmp_path: Path) -> None:
    pages = [scene(), np.full((48, 64), 80, np.uint8), scene()]
    assert cv2.imwritemulti(str(tmp_path / "x.tif"), pages)
    report = detect_files([tmp_path / "x.tif"], identity(), out=tmp_path / "out", save=["mask", "csv"])
    assert [(r.frame, len(r.targets)) for r in report.frames] == [(0, 2), (1, 0), (2, 2)]
    assert tree(tmp_path / "out" / "mask") == ["x/0000.png", "x/0001.png", "x/0002.png"]
    rows = (tmp_path / "out" / "detections.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["0", "0", "2", "2"]


def test_one_name_in_two_folders_gives_two_files(tmp_path: Path) -> None:
    for name in ("one/x.png", "two/x.png", "two/x.bmp", "two/X.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), scene())
    sources = [tmp_path / "one", tmp_path / "two"]
    detect_files(sources, identity(), out=tmp_path / "out", save=["mask"])
    assert tree(tmp_path / "out" / "mask") == ["one/x.png", "two/X.png", "two/x_2.png", "two/x_3.png"]


def test_progress_counts_files(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    detect_files([folder], identity(), out=tmp_path / "out", advance=lambda *step: seen.append(step))
    assert seen == [(0, 3, "a.bmp"), (1, 3, "b.png"), (2, 3, "c.TIF"), (3, 3, "")]


# --- bad files and bad requests ---


def test_bad_files_are_named_and_the_rest_is_done(folder: Path, tmp_path: Path) -> None:
    (folder / "a0_empty.png").touch()
    (folder / "a1_cut.png").write_bytes((folder / "b.png").read_bytes()[:60])
    (folder / "a2_text.jpg").write_text("hello")
    report = detect_files([folder], identity(), out=tmp_path / "out")
    assert [Path(f.image).name for f in report.failed] == ["a0_empty.png", "a1_cut.png", "a2_text.jpg"]
    assert ["empty" in f.reason or "truncated" in f.reason for f in report.failed] == [True] * 3
    assert not any(str(folder) in f.reason for f in report.failed)  # the path is beside it
    assert [Path(r.image).name for r in report.frames] == ["a.bmp", "b.png", "c.TIF"]
    content = json.loads((tmp_path / "out" / "detections.json").read_text(encoding="utf-8"))
    assert [Path(f["image"]).name for f in content["failed"]] == ["a0_empty.png", "a1_cut.png", "a2_text.jpg"]


def test_an_unknown_output_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'pdf'; choose from overlay, mask"):
        detect_files([tmp_path / "nowhere"], identity(), out=tmp_path / "out", save=["pdf"])  # type: ignore[list-item]


def test_a_map_that_the_detector_lacks_is_refused_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no interior map"):
        detect_files([folder], identity(), out=tmp_path / "out", save=["interior"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_a_wrong_range_is_refused_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lower first"):
        detect_files([folder], identity(), out=tmp_path / "out", range=(9, 3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


# --- stacks and videos ---


def test_a_video_gives_an_overlay_video_and_numbered_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mkv", scenes(12), rate=30)
    report = detect_files([path], identity(), out=tmp_path / "out", save=["overlay", "csv", "mask"])
    assert [result.frame for result in report.frames] == list(range(12))
    assert tree(tmp_path / "out" / "mask") == [f"x/{n:04d}.png" for n in range(12)]
    capture = cv2.VideoCapture(str(tmp_path / "out" / "overlay" / "x.mp4"))
    assert [capture.get(kind) for kind in (3, 4, 5, 7)] == [64, 48, 30, 12]


def test_a_damaged_frame_is_reported_and_the_overlay_keeps_time(tmp_path: Path) -> None:
    path = damage_packet(write_video(tmp_path / "x.mkv", scenes(12)), 5)
    report = detect_files([path], identity(), out=tmp_path / "out", save=["overlay", "jsonl"])
    assert [result.frame for result in report.frames] == [n for n in range(12) if n != 5]
    assert [(failure.image, failure.frame) for failure in report.failed] == [(str(path), 5)]
    lines = (tmp_path / "out" / "detections.jsonl").read_text().splitlines()
    assert ["failed" in json.loads(line) for line in lines] == [n == 5 for n in range(12)]
    capture = cv2.VideoCapture(str(tmp_path / "out" / "overlay" / "x.mp4"))
    means = [capture.read()[1].mean() for _ in range(12)]
    assert np.argmin(means) == 5


def test_a_truncated_video_and_stack_give_the_frames_before_the_end(tmp_path: Path) -> None:
    video = cut(write_video(tmp_path / "x.mkv", scenes(40)), 0.5)
    stack = cut(write_stack(tmp_path / "y.tif", scenes(8), cv2.IMWRITE_TIFF_COMPRESSION, 1), 0.5)
    report = detect_files([video, stack], identity(), out=tmp_path / "out", save=["csv"])
    frames = [result.frame for result in report.frames if result.image == str(video)]
    assert frames == list(range(len(frames)))
    assert 15 <= len(frames) <= 20
    assert "truncated" in report.failed[0].reason
    assert {failure.image for failure in report.failed} == {str(video), str(stack)}


def test_an_unreadable_video_is_named_and_the_rest_is_done(folder: Path, tmp_path: Path) -> None:
    (folder / "a.mp4").write_bytes(b"no video")
    report = detect_files([folder], identity(), out=tmp_path / "out")
    assert [Path(failure.image).name for failure in report.failed] == ["a.mp4"]
    assert report.count == 3


def test_progress_counts_the_frames_of_a_video_and_never_goes_back(folder: Path, tmp_path: Path) -> None:
    write_video(folder / "aa.mkv", scenes(5))
    seen: list[tuple[int, int, str]] = []
    detect_files([folder], identity(), out=tmp_path / "out", advance=lambda *step: seen.append(step))
    assert seen[0] == (0, 4, "a.bmp")
    assert (6, 8, "aa.mkv") in seen
    assert seen[-1] == (8, 8, "")
    assert [step[0] for step in seen] == sorted(step[0] for step in seen)


def test_a_file_that_is_added_on_the_way_is_named(folder: Path, tmp_path: Path) -> None:
    def adding(image: np.ndarray) -> np.ndarray:
        (folder / "late.png").write_bytes((folder / "b.png").read_bytes())
        return image

    report = detect_files([folder], Detector(adding, name="", rule=Fixed()), out=tmp_path / "out")
    assert [note for note in report.notes if "late.png was added" in note]
    assert report.count == 3


def test_a_file_that_vanishes_on_the_way_is_named(folder: Path, tmp_path: Path) -> None:
    """The reader waits behind a frame heavier than the belt, so that the removal comes first."""
    heavy = np.zeros((3000, 6000), np.uint8)
    for name in ("1.png", "2.png", "3.png"):
        cv2.imwrite(str(folder / name), heavy)

    def removing(image: np.ndarray) -> np.ndarray:
        (folder / "c.TIF").unlink(missing_ok=True)
        return image

    report = detect_files(
        [folder], Detector(removing, name="", rule=Fixed()), out=tmp_path / "out", save=["csv"]
    )
    (failure,) = report.failed
    assert (Path(failure.image).name, failure.reason) == ("c.TIF", "No such file or directory")


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails as on a full one."""
    code = """
import resource, signal, sys
from ismallnet.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
sys.exit(main(["detect", sys.argv[1], "--model", "top-hat", "--out", sys.argv[2]]))
"""
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert re.search(r"no room to write .*out .*nothing half-written", " ".join(ended.stderr.split()))
    assert "Traceback" not in ended.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


SLOW = """
import signal, sys, time
from ismallnet.detect import detect_files
from ismallnet.detector import Detector
from ismallnet.rules import Fixed

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background

def slow(image):
    print("frame", flush=True)
    time.sleep(0.1)
    return image

detect_files([sys.argv[1]], Detector(slow, name="", rule=Fixed(0.6)), out=sys.argv[2])
"""


def test_ctrl_c_in_a_video_ends_soon_and_leaves_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mkv", scenes(300))
    command = [sys.executable, "-c", SLOW, str(path), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        for _ in range(3):
            process.stdout.readline()
        assert sorted(p.name for p in tmp_path.iterdir())[0].startswith(".out.unfinished-")
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)  # all frames would take 30 s
    assert error.strip().endswith(b"KeyboardInterrupt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.mkv"]


MEMORY = (
    PEAK_KB
    + """
import sys
from ismallnet.detect import detect_files
from ismallnet.detector import Detector
from ismallnet.rules import Fixed
report = detect_files([sys.argv[1]], Detector(lambda x: x, name="", rule=Fixed(0.6)), out=sys.argv[2],
                      save=["csv", "json", "jsonl", "coco"], range=(0, 10_000))
assert report.count == int(sys.argv[3])
print(peak_kb())
"""
)


@measures_memory
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    """A frame with its score takes 750 kB: 400 more of them 300 MB; the belts hold up to 128 MB of both."""

    def peak_mb(count: int) -> float:
        pages = scenes(10, size=(256, 320))
        path = write_stack(tmp_path / f"{count}.tif", [pages[n % 10] for n in range(count)])
        command = [sys.executable, "-c", MEMORY, str(path), str(tmp_path / f"out{count}"), str(count)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1000

    assert peak_mb(600) - peak_mb(200) < 60


# --- the output folder ---


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Callable[..., DetectReport]:
    def run(**options: Any) -> DetectReport:
        return detect_files([folder / "b.png"], identity(), out=tmp_path / "out", **options)

    return run


def test_a_folder_with_something_in_it_is_not_overwritten(
    run: Callable[..., DetectReport], tmp_path: Path
) -> None:
    run()
    before = {name: (tmp_path / "out" / name).read_bytes() for name in tree(tmp_path / "out")}
    with pytest.raises(FileExistsError, match="force"):
        run(save=["mask"])
    assert {name: (tmp_path / "out" / name).read_bytes() for name in tree(tmp_path / "out")} == before


def test_force_replaces_an_earlier_run_whole(run: Callable[..., DetectReport], tmp_path: Path) -> None:
    run(save=["overlay", "csv"])
    run(save=["mask"], force=True)
    assert tree(tmp_path / "out") == [".ismallnet-detect", "mask/b.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_an_empty_folder_is_used(run: Callable[..., DetectReport], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    run(save=["mask"])
    assert tree(tmp_path / "out") == [".ismallnet-detect", "mask/b.png"]


def test_force_never_deletes_what_detect_did_not_write(
    run: Callable[..., DetectReport], tmp_path: Path
) -> None:
    (tmp_path / "out" / "mask").mkdir(parents=True)
    (tmp_path / "out" / "mask" / "truth.png").write_text("precious")
    with pytest.raises(FileExistsError, match="did not write"):
        run(force=True)
    assert (tmp_path / "out" / "mask" / "truth.png").read_text() == "precious"


def test_force_keeps_a_run_to_which_something_was_added(
    run: Callable[..., DetectReport], tmp_path: Path
) -> None:
    run()
    (tmp_path / "out" / "notes.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        run(force=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "precious"


def test_a_file_in_the_place_of_the_folder_is_kept(run: Callable[..., DetectReport], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(FileExistsError, match="is a file"):
        run(force=True)
    assert (tmp_path / "out").read_text() == "precious"


def test_an_interrupted_run_leaves_the_earlier_one(folder: Path, tmp_path: Path) -> None:
    detect_files([folder], identity(), out=tmp_path / "out", save=["mask"])
    calls = []

    def interrupted(image: np.ndarray) -> np.ndarray:
        calls.append(image)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return image

    with pytest.raises(KeyboardInterrupt):
        detect_files([folder], Detector(interrupted, name="", rule=Fixed()), out=tmp_path / "out", force=True)
    assert tree(tmp_path / "out") == [".ismallnet-detect", "mask/a.png", "mask/b.png", "mask/c.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_missing_parents_are_made(folder: Path, tmp_path: Path) -> None:
    detect_files([folder], identity(), out=tmp_path / "new" / "deep" / "out")
    assert (tmp_path / "new" / "deep" / "out" / "detections.csv").is_file()


# --- real images ---


def test_real_images_are_read_and_the_brightest_target_is_found(data_root: Path, tmp_path: Path) -> None:
    def top_hat(image: np.ndarray) -> np.ndarray:
        return cv2.morphologyEx(image, cv2.MORPH_TOPHAT, np.ones((9, 9), np.uint8))

    images = data_root / "NUAA-SIRST" / "images"
    sources = [images / f"Misc_{n}.png" for n in (1, 10, 100)]
    one = Detector(top_hat, name="top-hat", rule=Statistical(10))
    report = detect_files(sources, one, out=tmp_path / "out", save=tuple(FILES)[:3])
    hits = 0
    for result in report.frames:
        truth = cv2.imread(
            str(data_root / "NUAA-SIRST" / "masks" / f"{Path(result.image).stem}_pixels0.png"), 0
        )
        first = result.targets[0]
        hits += bool(truth[round(first.y), round(first.x)])
    assert hits == 3


def test_the_python_of_the_quickstart_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"widths": (4, 4, 4, 8, 8)}
    save_model(
        tmp_path / "ismallnet-s", create_model("ismallnet-s", **options), name="ismallnet-s", options=options
    )
    monkeypatch.setattr("ismallnet.catalogue.WEIGHTS", tmp_path)
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("scene.png", scene())
    assert cv2.imwritemulti("stack.tif", [scene().astype(np.uint16) * 16] * 2)
    text = (Path(__file__).parents[1] / "docs" / "quickstart.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    assert (tmp_path / "frame1.png").is_file()
    assert (tmp_path / "found" / "detections.csv").is_file()
