"""`detect` and `data synth` where the disk is against them: what is bad is named, no ruins are left."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet import detect
from ismallnet.cli import main
from ismallnet.media import Image, tiff_directories
from ismallnet.pictures import Pictures
from ismallnet.streams import Stream
from videos import cut, scenes, write_stack, write_video

Ended = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ended]:
    """Detect by a filter into `out`: the status, standard output and error, spaces folded."""

    def run(*sources: Path, save: str = "overlay,mask,csv,json") -> Ended:
        words = ("--model", "top-hat", "--k", "10", "--save", save, "--out", tmp_path / "out")
        status = main(list(map(str, ("detect", *sources, *words))))
        out, err = capsys.readouterr()
        return status, " ".join(out.split()), " ".join(err.split())

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a good image, to which tests add what is bad."""
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "good.png"), scenes(1, dtype=np.uint8)[0])
    return tmp_path / "in"


def done(tmp_path: Path) -> dict[str, list[int]]:
    """The frames in the table, by the names of their files."""
    found: dict[str, list[int]] = {}
    for image in json.loads((tmp_path / "out" / "detections.json").read_text("utf-8"))["images"]:
        found.setdefault(Path(image["image"]).name, []).append(image["frame"])
    return found


def kept(tmp_path: Path) -> list[str]:
    """What is beside and in the output, hidden files and folders too, but the input."""
    here = [p for p in tmp_path.rglob("*") if not p.is_relative_to(tmp_path / "in")]
    return sorted(str(p.relative_to(tmp_path)) for p in here if p.is_file() or p.parent == tmp_path)[1:]


def damage_page(path: Path, number: int) -> Path:
    """Write nonsense where the pixels of a page begin, whose first strip the directory names."""
    with path.open("rb") as file:
        start = tiff_directories(file)[number]
    data = bytearray(path.read_bytes())
    (count,) = struct.unpack_from("<H", data, start)
    entries = [struct.unpack_from("<HHII", data, start + 2 + 12 * n) for n in range(count)]
    length, value = next((length, value) for tag, _, length, value in entries if tag == 273)
    place = struct.unpack_from("<I", data, value)[0] if length > 1 else value
    data[place : place + 40] = b"\xff" * 40
    path.write_bytes(data)
    return path


# --- bad files ---


@pytest.mark.parametrize("suffix", [".png", ".tif", ".mkv"])
def test_a_file_of_zero_bytes(run: Callable[..., Ended], folder: Path, tmp_path: Path, suffix: str) -> None:
    (folder / f"empty{suffix}").touch()
    status, out, err = run(folder)
    assert (status, "in 1 images by top-hat" in out) == (1, True)
    assert err == f"error: {folder / f'empty{suffix}'}: the file is empty (0 bytes)"
    assert done(tmp_path) == {"good.png": [0]}


def test_a_video_that_ends_too_soon(run: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    cut(write_video(folder / "cut.mkv", scenes(40)), 0.5)
    status, _, err = run(folder)
    assert status == 1
    assert "cut.mkv: frame 19: truncated: the file announces 1.60 s and ends at 0.72 s" in err
    assert done(tmp_path) == {"cut.mkv": list(range(19)), "good.png": [0]}
    capture = cv2.VideoCapture(str(tmp_path / "out" / "overlay" / "cut.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 19


def test_a_video_without_its_index(run: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    """An MP4 has it at the end."""
    pages = scenes(40, dtype=np.uint8)
    cut(write_video(folder / "cut.mp4", pages, codec="mpeg4", pixels="yuv420p"), 0.5)
    status, _, err = run(folder)
    assert (status, "cut.mp4: truncated, damaged, or no video" in err) == (1, True)
    assert done(tmp_path) == {"good.png": [0]}
    assert not list((tmp_path / "out").rglob("cut*"))


def test_a_stack_whose_third_page_of_five_is_damaged(
    run: Callable[..., Ended], folder: Path, tmp_path: Path
) -> None:
    damage_page(write_stack(folder / "x.tif", scenes(5), cv2.IMWRITE_TIFF_COMPRESSION, 8), 2)
    status, _, err = run(folder)
    assert (status, "x.tif: frame 2: cannot be decoded" in err) == (1, True)
    assert done(tmp_path) == {"good.png": [0], "x.tif": [0, 1, 3, 4]}
    assert [p.stem for p in sorted((tmp_path / "out" / "mask" / "x").iterdir())] == [
        "0000", "0001", "0003", "0004",
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["top-hat", "ismallnet-s"])
@pytest.mark.parametrize("shape", [(1, 64), (64, 1), (1, 1)])
def test_an_image_of_one_row_or_column(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, shape: tuple[int, int]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no graph there: by PyTorch
    line = np.full(shape, 1000, np.uint16)
    cv2.imwrite(str(folder / "line.tif"), line + np.arange(line.size, dtype=np.uint16).reshape(shape) % 7)
    words = ("--model", model, "--save", "overlay,score,json")
    assert main(list(map(str, ("detect", folder, *words, "--out", tmp_path / "out")))) == 0
    assert done(tmp_path)["line.tif"] == [0]
    score = cv2.imread(str(tmp_path / "out" / "score" / "line.tif"), cv2.IMREAD_UNCHANGED)
    assert score.shape == shape
    assert np.isfinite(score).all()


def test_a_folder_with_the_name_of_an_image(run: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    (folder / "x.png").mkdir()
    status, _, err = run(folder / "x.png")
    assert (status, f"file in {folder / 'x.png'}" in err) == (2, True)
    assert run(folder)[0] == 0
    assert done(tmp_path) == {"good.png": [0]}


# --- a folder that changes while the run goes on ---


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Do something when the first file of the run is opened, others having been listed."""

    def meanwhile(action: Callable[[], object]) -> None:
        class First(Stream):
            def __iter__(self) -> Iterator[Image]:  # type: ignore[override]
                monkeypatch.setattr(detect, "Stream", Stream)
                action()
                return super().__iter__()  # type: ignore[return-value]

        monkeypatch.setattr(detect, "Stream", First)

    return meanwhile


@pytest.fixture
def three(folder: Path) -> Path:
    for name in ("one.png", "two.png"):
        shutil.copy(folder / "good.png", folder / name)
    return folder


def test_a_file_that_is_removed_on_the_way(
    run: Callable[..., Ended], three: Path, tmp_path: Path, meanwhile: Callable[..., None]
) -> None:
    meanwhile((three / "two.png").unlink)
    status, _, err = run(three)
    assert (status, err) == (1, f"error: {three / 'two.png'}: No such file or directory")
    assert done(tmp_path) == {"good.png": [0], "one.png": [0]}


def test_a_file_that_is_added_on_the_way(
    run: Callable[..., Ended], three: Path, tmp_path: Path, meanwhile: Callable[..., None]
) -> None:
    meanwhile(lambda: shutil.copy(three / "good.png", three / "late.png"))
    status, _, err = run(three)
    assert status == 0
    assert err == f"warning: {three / 'late.png'} was added while the run went on; run again for it"
    assert done(tmp_path) == {"good.png": [0], "one.png": [0], "two.png": [0]}


def test_a_file_that_is_replaced_on_the_way(
    run: Callable[..., Ended], three: Path, tmp_path: Path, meanwhile: Callable[..., None]
) -> None:
    meanwhile(lambda: (three / "one.png").write_bytes((three / "one.png").read_bytes() + b"\0"))
    status, _, err = run(three)
    assert status == 0
    assert err == f"warning: {three / 'one.png'} was changed while the run went on; run again for it"
    assert done(tmp_path) == {"good.png": [0], "one.png": [0], "two.png": [0]}


def test_a_folder_that_is_removed_on_the_way(
    run: Callable[..., Ended], three: Path, tmp_path: Path, meanwhile: Callable[..., None]
) -> None:
    meanwhile(lambda: shutil.rmtree(three))
    status, _, err = run(three)
    assert (status, err.count("No such file or directory")) == (1, 2)
    assert done(tmp_path) == {"good.png": [0]}


# --- a disk that takes nothing ---

LIMITED = """
import resource, signal, sys
from ismallnet.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("save", ["overlay", "jsonl"])
def test_a_disk_that_fills_up_in_a_video(folder: Path, tmp_path: Path, save: str) -> None:
    """A limit on the size of files stands for the disk."""
    pages = scenes(10, size=(120, 160))
    path = write_video(folder / "x.mkv", (pages[n % 10] for n in range(60)))
    words = ("detect", path, "--model", "top-hat", "--save", save, "--out", tmp_path / "out")
    command = [sys.executable, "-c", LIMITED, "9000", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert f"no room to write {tmp_path / 'out'} (File too large)" in " ".join(ended.stderr.split())
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_disk_that_is_full_keeps_what_was_there(
    run: Callable[..., Ended], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(folder)[0] == 0
    before = kept(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Pictures, "add", full)
    words = ("detect", folder, "--model", "top-hat", "--force", "--out", tmp_path / "out")
    assert main(list(map(str, words))) == 2
    assert kept(tmp_path) == before


@pytest.mark.parametrize("there", [False, True])
def test_scenes_on_a_full_disk_leave_nothing(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "made"
    if there:
        out.mkdir()
        (out / "mine.txt").write_text("kept")
    words = ("data", "synth", out, "--count", 3, "--height", 128, "--width", 128, "--force")
    command = [sys.executable, "-c", LIMITED, "3000", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert f"no room to write {out} (File too large)" in " ".join(ended.stderr.split())
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == (["made", "made/mine.txt"] if there else [])


def test_scenes_go_where_a_link_points_and_leave_no_scratch(tmp_path: Path) -> None:
    """As to another disk, where nothing can be renamed to from beside the link."""
    shared = Path("/dev/shm")
    other = tempfile.mkdtemp(dir=shared if shared.is_dir() else None)
    try:
        (tmp_path / "made").symlink_to(other)
        assert main(["data", "synth", str(tmp_path / "made"), "--count", "1"]) == 0
        assert sorted(path.name for path in Path(other).iterdir()) == ["images", "masks", "scenes.json"]
    finally:
        shutil.rmtree(other)


def test_a_shared_run_on_a_full_disk_says_what_it_keeps(
    run: Callable[..., Ended], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(folder / "good.png", folder / "other.png")
    add, calls = Pictures.add, []

    def full(pictures: Pictures, *frame: object) -> None:
        calls.append(frame)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(pictures, *frame)  # type: ignore[arg-type]

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr("ismallnet.shared.is_shared", lambda *_: True)
    with monkeypatch.context() as patch:
        patch.setattr(Pictures, "add", full)
        status, _, err = run(folder)
    assert status == 2
    assert f"what is finished stays in {tmp_path / '.out.shared'} for the next start" in err
    assert run(folder)[0] == 0
    assert done(tmp_path) == {"good.png": [0], "other.png": [0]}
    assert not (tmp_path / ".out.shared").exists()


def test_an_output_below_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("precious")
    words = ("detect", folder, "--model", "top-hat", "--out", tmp_path / "out" / "deeper")
    assert main(list(map(str, words))) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"cannot write {tmp_path / 'out' / 'deeper'} (Not a directory); give a folder" in error
    assert (tmp_path / "out").read_text() == "precious"


def bound(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the command by who may not read or write what lacks the permission, even where that is root."""
    prefix: list[str] = []
    if os.name == "nt":
        pytest.skip("permissions are those of POSIX")
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root reads everything, and there is no setpriv")
        less = "-dac_override,-dac_read_search"
        prefix = ["setpriv", f"--bounding-set={less}", f"--inh-caps={less}"]
    command = [*prefix, sys.executable, "-m", "ismallnet", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(("mode", "out"), [(0, "locked"), (0, "locked/out"), (0o555, "locked/out")])
def test_an_output_folder_without_permission(folder: Path, tmp_path: Path, mode: int, out: str) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(mode)
    ended = bound("detect", folder, "--model", "top-hat", "--out", tmp_path / out)
    (tmp_path / "locked").chmod(0o755)
    assert ended.returncode == 2
    error = "".join(ended.stderr.split())
    assert f"{tmp_path / out}" in error
    assert "Permissiondenied" in error
    assert "unfinished" not in error
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["good.png", "in", "locked"]


def test_a_file_without_permission(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "good.png", folder / "locked.png")
    (folder / "locked.png").chmod(0)
    ended = bound("detect", folder, "--model", "top-hat", "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert "locked.png: Permission denied" in " ".join(ended.stderr.split())
    assert done(tmp_path) == {"good.png": [0]}
