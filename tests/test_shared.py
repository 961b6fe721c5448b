"""A shared run: the result of one process, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ismallnet.cli import main
from ismallnet.detect import DetectReport, detect_files
from ismallnet.detector import Detector, Fixed
from ismallnet.shared import Place, detect_shared, find_place, is_shared
from test_detect import scene, tree
from videos import scenes, write_stack

SAVE = ("overlay", "mask", "csv", "json", "jsonl", "coco")
PROCESS = """
import sys, time
from ismallnet.detector import Detector, Fixed
from ismallnet.shared import Place, detect_shared
folder, out, rank, world, wait_s, save = sys.argv[1:]

def function(image):
    time.sleep(float(wait_s))
    return image

one = Detector(function, name="identity", rule=Fixed(0.6))
detect_shared([folder], one, place=Place(int(rank), int(world)), out=out, save=save.split(","))
"""


def detector() -> Detector:
    return Detector(lambda image: image, name="identity", rule=Fixed(0.6))


def one_of(folder: str | Path, out: str | Path, rank: int, world: int) -> DetectReport:
    return detect_shared([folder], detector(), place=Place(rank, world), out=out, save=SAVE)


def start(folder: Path, out: Path, rank: int, *, wait_s: float) -> subprocess.Popen[bytes]:
    arguments = [folder, out, rank, 2, wait_s, ",".join(SAVE)]
    return subprocess.Popen([sys.executable, "-c", PROCESS, *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images that differ, one that is none, and a stack."""
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(10):
        cv2.imwrite(str(folder / f"{n}.png"), scene(60 + 4 * n)[:, : 64 - n])
    (folder / "broken.png").write_bytes(b"no image")
    write_stack(folder / "stack.tif", scenes(3))
    return folder


@pytest.fixture
def alone(folder: Path, tmp_path: Path) -> dict[str, bytes]:
    detect_files([folder], detector(), out=tmp_path / "alone", save=SAVE)
    return content(tmp_path / "alone")


def content(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in tree(out) if not name.startswith(".")}


def test_one_killed_on_the_way_and_started_again_gives_the_bytes_of_one_process(
    folder: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    out, records = tmp_path / "out", tmp_path / ".out.shared" / "records"
    processes = [start(folder, out, 0, wait_s=0.02), start(folder, out, 1, wait_s=0.5)]
    deadline = time.monotonic() + 240
    while not (records / "000003.jsonl").is_file():  # the second of rank 1
        assert time.monotonic() < deadline
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    assert [process.wait(240) for process in processes] == [0, -signal.SIGKILL]
    assert not out.exists()
    before = {path.name: path.stat().st_mtime_ns for path in records.glob("*.jsonl")}
    assert 8 <= len(before) < 12
    again = start(folder, out, 1, wait_s=0.1)
    while again.poll() is None:
        for path in records.glob("*.jsonl"):
            done = before.get(path.name)
            try:
                assert done is None or path.stat().st_mtime_ns == done  # what was done is not done again
            except FileNotFoundError:  # merged meanwhile
                break
        time.sleep(0.01)
    assert again.returncode == 0
    assert content(out) == alone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "in", "out"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_who_ends_last_merges(
    folder: Path, alone: dict[str, bytes], tmp_path: Path, order: tuple[int, ...]
) -> None:
    left = []
    for rank in order:
        assert not (tmp_path / "out").exists()
        report = one_of(folder, tmp_path / "out", rank, 3)
        left.append(report.left)
    assert left == [8, 4, 0]
    assert content(tmp_path / "out") == alone
    assert (report.count, report.failures) == (13, 1)


def test_fewer_processes_go_on_where_more_ended(
    folder: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    one_of(folder, tmp_path / "out", 1, 4)
    assert is_shared(Place(0, 1), tmp_path / "out")
    assert one_of(folder, tmp_path / "out", 0, 1).left == 0
    assert content(tmp_path / "out") == alone
    assert not is_shared(Place(0, 1), tmp_path / "out")


def test_more_processes_than_files(folder: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    for rank in range(15):
        one_of(folder, tmp_path / "out", rank, 15)
    assert content(tmp_path / "out") == alone


def test_a_process_that_comes_late_finds_the_run_finished(folder: Path, tmp_path: Path) -> None:
    one_of(folder, tmp_path / "out", 0, 1)
    before = content(tmp_path / "out")
    assert "finished" in one_of(folder, tmp_path / "out", 14, 15).notes[0]
    assert content(tmp_path / "out") == before


def test_two_that_merge_at_once_leave_one_whole_result(
    folder: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    one_of(folder, tmp_path / "out", 0, 2)
    foreign = tmp_path / "out" / "notes.txt"

    def disturbed(image: np.ndarray) -> np.ndarray:
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_text("precious")
        return image

    late = Detector(disturbed, name="identity", rule=Fixed(0.6))
    with pytest.raises(FileExistsError, match="not empty"):
        detect_shared([folder], late, place=Place(1, 2), out=tmp_path / "out", save=SAVE)
    assert foreign.read_text() == "precious"
    foreign.rename(tmp_path / "notes.txt")
    processes = [start(folder, tmp_path / "out", rank, wait_s=0) for rank in (0, 1)]
    assert [process.wait(240) for process in processes] == [0, 0]
    assert content(tmp_path / "out") == alone


def test_a_process_killed_after_it_had_published_leaves_the_result_alone(
    folder: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    out, work = tmp_path / "out", tmp_path / ".out.shared"
    one_of(folder, out, 0, 2)
    shutil.copytree(work, tmp_path / "kept")
    one_of(folder, out, 1, 2)
    shutil.copytree(tmp_path / "kept", work)  # as if nothing of it had been removed yet
    again = detect_shared([folder], detector(), place=Place(0, 1), out=out, save=SAVE, force=True)
    assert "finished" in again.notes[0]
    assert content(out) == alone
    assert not work.exists()


def test_an_unfinished_run_of_other_files_is_in_the_way(folder: Path, tmp_path: Path) -> None:
    one_of(folder, tmp_path / "out", 0, 2)
    (tmp_path / "other").mkdir()
    cv2.imwrite(str(tmp_path / "other" / "x.png"), scene(60))
    with pytest.raises(ValueError, match=r"unfinished run of other files.*delete the folder"):
        one_of(tmp_path / "other", tmp_path / "out", 1, 2)


def test_an_unfinished_run_of_another_tiling_is_in_the_way(folder: Path, tmp_path: Path) -> None:
    one_of(folder, tmp_path / "out", 0, 2)
    whole = detector()
    whole.tiling = None
    with pytest.raises(ValueError, match="unfinished run with tiling"):
        detect_shared([folder], whole, place=Place(1, 2), out=tmp_path / "out", save=SAVE)


def test_a_folder_that_changes_is_reported_and_not_fatal(folder: Path, tmp_path: Path) -> None:
    one_of(folder, tmp_path / "out", 0, 2)
    (folder / "3.png").unlink()
    cv2.imwrite(str(folder / "new.png"), scene())
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes() + b"\0")
    report = one_of(folder, tmp_path / "out", 1, 2)
    (added, changed) = sorted(note for note in report.notes if "run again" in note)
    assert "5.png was changed" in added
    assert "new.png was added" in changed
    assert {Path(failure.image).name for failure in report.failed} == {"3.png", "broken.png"}
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["images"]) == 12


def test_a_source_that_vanishes_is_reported_too(folder: Path, tmp_path: Path) -> None:
    files = [folder / "0.png", folder / "1.png"]
    for rank in (0, 1):
        report = detect_shared(files, detector(), place=Place(rank, 2), out=tmp_path / "out")
        files[1].unlink(missing_ok=True)
    assert [failure.reason for failure in report.failed] == ["No such file or directory"]


def test_an_unfinished_run_of_other_settings_is_in_the_way(folder: Path, tmp_path: Path) -> None:
    one_of(folder, tmp_path / "out", 0, 2)
    with pytest.raises(ValueError, match=r"out\.shared is an unfinished run with save .*delete the folder"):
        detect_shared([folder], detector(), place=Place(1, 2), out=tmp_path / "out", save=["csv"])


def test_a_result_that_is_there_is_not_replaced_without_force(folder: Path, tmp_path: Path) -> None:
    detect_files([folder], detector(), out=tmp_path / "out", save=["mask"])
    with pytest.raises(FileExistsError, match="force"):
        one_of(folder, tmp_path / "out", 0, 2)
    for rank in (0, 1):
        detect_shared(
            [folder], detector(), place=Place(rank, 2), out=tmp_path / "out", save=["csv"], force=True
        )
    assert tree(tmp_path / "out") == [".ismallnet-detect", "detections.csv"]


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, Place(0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "3"}, Place(1, 3)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, Place(2, 4)),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "5", "SLURM_NTASKS": "9"}, Place(0, 2)),
        ({"SLURM_NTASKS": "4"}, Place(0, 1)),
    ],
)
def test_the_place_is_the_launchers(environ: dict[str, str], place: Place) -> None:
    assert find_place(environ) == place


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("x", "2"), ("0", "0")])
def test_a_place_that_makes_no_sense_is_refused(rank: str, world: str) -> None:
    with pytest.raises(ValueError, match=f"RANK='{rank}'"):
        find_place({"RANK": rank, "WORLD_SIZE": world})


def test_the_command_shares_by_the_launchers_variables(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    statuses = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        command = ["detect", str(folder), "--model", "top-hat", "--out", str(tmp_path / "out")]
        statuses.append(main(command))
    text = capsys.readouterr().out
    assert statuses == [0, 1]  # the broken file is in the merged run's status
    assert "process 0 of 2, from 0: done; 6 files are left to others" in text
    assert os.path.isfile(tmp_path / "out" / "detections.csv")
