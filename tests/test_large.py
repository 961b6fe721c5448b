"""Images read by rows: targets and maps as in memory, in bounded memory, and nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from ismallnet import large, raster
from ismallnet.detect import DetectReport, detect_files
from ismallnet.detector import Detector, load
from ismallnet.draw import COLOURS, SIDE
from ismallnet.maps import Maps
from ismallnet.media import read_pages
from ismallnet.rules import Fixed
from ismallnet.tiles import Tiling
from peak import PEAK_KB, measures_memory

tifffile = pytest.importorskip("tifffile", reason="pip install 'ismallnet[large]'")

ALL = ("overlay", "mask", "score", "csv", "json", "coco")


def scene(height: int = 300, width: int = 420) -> np.ndarray:
    """A 16-bit scene: soft clutter, and spots of 3 x 3 pixels, one of them where tiles meet."""
    random = np.random.default_rng(0)
    field = cv2.GaussianBlur(random.normal(0, 1, (height, width)), (0, 0), 9)
    levels = 9000 + 2000 * field / np.abs(field).max() + random.normal(0, 20, field.shape)
    for y, x in ((40, 50), (height // 2, width // 2), (height - 5, width - 4), (110, 200), (0, 0)):
        levels[y : y + 3, x : x + 3] += 4000
    return levels.astype(np.uint16)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large begins at 100,000 pixels, so that tests are quick."""
    monkeypatch.setattr(raster, "LARGE_PX", 100_000)
    monkeypatch.setattr(large, "TILE", 64)


def top_hat() -> Detector:
    detector = load("top-hat")
    detector.tiling = Tiling(side=160, overlap=48, above=0)
    return detector


def run(sources: list[Path], detector: Detector, out: Path, save: Any = ALL) -> DetectReport:
    return detect_files(sources, detector, out=out, save=save)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("options", [{}, {"tile": (64, 64), "compression": "zlib"}])
def test_a_file_read_by_rows_gives_what_it_gives_in_memory(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, scene(), **options)
    assert raster.is_large(path)
    by_rows = run([path], top_hat(), tmp_path / "rows")
    whole = top_hat()
    whole.tiling = None  # so that it is read whole, and not cut
    in_memory = run([path], whole, tmp_path / "memory")
    (one,), (other,) = by_rows.frames, in_memory.frames
    assert len(one.targets) >= 5
    for got, wanted in zip(one.targets, other.targets, strict=True):
        assert (got.x0, got.y0, got.x1, got.y1, got.area) == (
            wanted.x0, wanted.y0, wanted.x1, wanted.y1, wanted.area
        )  # fmt: skip
        np.testing.assert_allclose((got.x, got.y, got.mean), (wanted.x, wanted.y, wanted.mean), rtol=1e-9)
    assert one.threshold == pytest.approx(other.threshold, rel=1e-9)
    window = ("low", "high", "rule", "warning", "dtype", "height", "width")
    assert [getattr(one, name) for name in window] == [getattr(other, name) for name in window]
    score, mask = (read_pages(tmp_path / "rows" / f"{kind}/x.tif")[0] for kind in ("score", "mask"))
    np.testing.assert_array_equal(score, read_pages(tmp_path / "memory/score/x.tif")[0])
    np.testing.assert_array_equal(mask, read_pages(tmp_path / "memory/mask/x.png")[0])


@pytest.mark.usefixtures("small")
def test_the_score_is_a_memory_map_and_leaves_no_trace_if_it_is_not_asked_for(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", scene())
    run([tmp_path / "x.tif"], top_hat(), tmp_path / "one", ("score",))
    assert tifffile.memmap(tmp_path / "one/score/x.tif").shape == (300, 420)
    run([tmp_path / "x.tif"], top_hat(), tmp_path / "two", ("csv",))
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == [".ismallnet-detect", "detections.csv"]


@pytest.mark.usefixtures("small")
def test_streams_are_saved_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", scene())
    streams = Detector(lambda x: Maps(x, x / 2, x / 4), name="streams", rule=Fixed(0.6))
    run([tmp_path / "x.tif"], streams, tmp_path / "out", ("score", "interior", "boundary"))
    score, half, quarter = (
        read_pages(tmp_path / "out" / kind / "x.tif")[0] for kind in ("score", "interior", "boundary")
    )
    np.testing.assert_allclose(half, score / 2, rtol=1e-6)
    np.testing.assert_allclose(quarter, score / 4, rtol=1e-6)
    with pytest.raises(ValueError, match="no interior map"):
        run([tmp_path / "x.tif"], top_hat(), tmp_path / "none", ("interior",))
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("small")
def test_the_overlay_is_shrunk_to_its_bound_and_bright_pixels_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((301, 420), 1000, np.uint16)
    image[::2, ::3] += 100  # so that there is a range
    image[200, 100] = 3000
    tifffile.imwrite(tmp_path / "x.tif", image)
    monkeypatch.setattr(large, "PICTURE_PX", 150)  # by 3: 140 columns
    identity = Detector(lambda x: x, name="identity", rule=Fixed(0.9))
    report = run([tmp_path / "x.tif"], identity, tmp_path / "out", ("overlay",))
    drawn = cv2.imread(str(tmp_path / "out/overlay/x.png"))
    factor = -(-SIDE // 140)  # a small picture is enlarged
    assert drawn.shape == (101 * factor, 140 * factor, 3)
    y, x = 200 // 3 * factor + factor // 2, 100 // 3 * factor + factor // 2
    assert drawn[y, x].tolist() == [255] * 3
    boxed = (drawn == COLOURS["detected"]).all(axis=2).nonzero()
    assert boxed[0].min() < y < boxed[0].max()
    assert boxed[1].min() < x < boxed[1].max()
    (target,) = report.frames[0].targets
    assert (target.x, target.y) == (100, 200)  # in the tables, those of the image


@pytest.mark.usefixtures("small")
def test_pages_are_numbered(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as out:
        for _ in range(2):
            out.write(scene())
    report = run([tmp_path / "x.tif"], top_hat(), tmp_path / "out", ("mask",))
    assert [result.frame for result in report.frames] == [0, 1]
    assert sorted(p.name for p in (tmp_path / "out/mask/x").iterdir()) == ["0000.tif", "0001.tif"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("range", [None, (9000.0, 13000.0)])
def test_a_damaged_page_is_named_and_the_others_are_read(
    tmp_path: Path, range: tuple[float, float] | None
) -> None:
    for name, count in (("x.tif", 4), ("sound.tif", 2)):
        with tifffile.TiffWriter(tmp_path / name) as out:
            for _ in "." * count:
                out.write(scene(), tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        begin, later = file.pages[1].dataoffsets[0], file.pages[3].dataoffsets[-1]
    content = bytearray((tmp_path / "x.tif").read_bytes())
    for place in (begin, later):  # one is noticed when the page is opened, one when all of it is read
        content[place : place + 60] = bytes(60)
    (tmp_path / "x.tif").write_bytes(content)
    both = [tmp_path / "x.tif", tmp_path / "sound.tif"]
    report = detect_files(both, top_hat(), out=tmp_path / "out", save=("mask",), range=range)
    assert [(failure.frame, failure.reason.split()[0]) for failure in report.failed] == [
        (1, "strip"),
        (3, "strip"),
    ]
    assert [frame.frame for frame in report.frames] == [0, 2, 0, 1]
    assert len({(frame.low, frame.high, frame.targets) for frame in report.frames}) == 1
    assert sorted(p.name for p in (tmp_path / "out/mask/x").iterdir()) == ["0000.tif", "0002.tif"]


@pytest.mark.usefixtures("small")
def test_a_one_pixel_high_file(tmp_path: Path) -> None:
    row = np.full((1, 120_000), 1000, np.uint16)
    row[0, 60_000:60_002] = 9000
    tifffile.imwrite(tmp_path / "x.tif", row)
    (result,) = run([tmp_path / "x.tif"], top_hat(), tmp_path / "out").frames
    assert [(t.x0, t.y0, t.x1, t.y1) for t in result.targets] == [(60_000, 0, 60_002, 1)]


@pytest.mark.usefixtures("small")
def test_bad_files_are_named_the_rest_is_done_and_nothing_of_them_is_left(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif", "c.tif"):
        tifffile.imwrite(tmp_path / name, scene(), tile=(64, 64), compression="zlib")
    cut = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(cut[: len(cut) // 2])
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        last = file.pages.first.dataoffsets[-1]
    (tmp_path / "b.tif").write_bytes(cut[:last] + bytes(60) + cut[last + 60 :])
    report = run([tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "c.tif"], top_hat(), tmp_path / "out")
    assert [(Path(f.image).name, f.reason.split()[0]) for f in report.failed] == [
        ("a.tif", "truncated,"),
        ("b.tif", "strip"),
    ]
    assert [Path(r.image).name for r in report.frames] == ["c.tif"]
    for kind in ("score", "mask", "overlay"):
        assert [p.stem for p in (tmp_path / "out" / kind).iterdir()] == ["c"]
    assert not (tmp_path / "out/.score.tif").exists()


@pytest.mark.usefixtures("small")
def test_a_disk_without_room_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "x.tif", scene())
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"take 0\.0 GB, 0\.0 GB are free"):
        run([tmp_path / "x.tif"], top_hat(), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["x.tif"]


# --- the command itself, in a process of its own: memory, and a disk that is full ---

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from ismallnet.cli import main
status = main(sys.argv[2:])
sys.exit(status)
"""
MEASURED = (
    PEAK_KB
    + """
import sys
from ismallnet.cli import main
status = main(sys.argv[1:])
print("peak", peak_kb() // 1024, file=sys.stderr)
sys.exit(status)
"""
)


def command(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False
    )


def peak_mb(ended: subprocess.CompletedProcess[str]) -> int:
    return int(ended.stderr.split("peak")[-1])


def write_large(path: Path, height: int, width: int, **options: Any) -> list[tuple[int, int]]:
    """A large 16-bit scene, written tile by tile, with targets of 3 x 3 pixels; their corners (y, x)."""
    random = np.random.default_rng(1)
    corners = [(y, x) for y in range(510, height - 3, 1024) for x in range(511, width - 3, 1024)]
    noise = random.normal(8000, 60, (512, 512)).astype(np.uint16) // 16 * 16  # deflates sooner

    def tiles() -> Any:
        for y in range(0, height, 512):
            for x in range(0, width, 512):
                tile = np.roll(noise, (y // 7, x // 5), (0, 1))
                for top, left in corners:
                    rows, columns = (slice(max(a, 0), max(a + 3, 0)) for a in (top - y, left - x))
                    tile[rows, columns] = 12000
                yield tile

    tifffile.imwrite(path, tiles(), shape=(height, width), dtype=np.uint16, tile=(512, 512), **options)
    return corners


def check_large(tmp_path: Path, height: int, width: int, ceiling_mb: int) -> None:
    corners = write_large(
        tmp_path / "big.tif", height, width, compression="zlib", compressionargs={"level": 1}
    )
    words = ("--model", "top-hat", "--k", "20", "--out", tmp_path / "out")
    save = ("--save", "overlay,mask,score,json")
    ended = command(MEASURED, "detect", tmp_path / "big.tif", *words, *save)
    assert ended.returncode == 0, ended.stderr
    (image,) = json.loads((tmp_path / "out/detections.json").read_text("utf-8"))["images"]
    assert sorted((t["y0"], t["x0"]) for t in image["targets"]) == corners
    assert all((t["area"], t["x1"] - t["x0"], t["y1"] - t["y0"]) == (9, 3, 3) for t in image["targets"])
    assert max(cv2.imread(str(tmp_path / "out/overlay/big.png")).shape) <= large.PICTURE_PX
    assert peak_mb(ended) < ceiling_mb


@measures_memory
def test_a_file_of_20_megapixels_takes_under_450_megabytes(tmp_path: Path) -> None:
    """By rows it takes 300; read whole (--tile off), 750."""
    check_large(tmp_path, 4608, 4352, 450)


@measures_memory
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_file_of_16384_squared_takes_under_2_gigabytes(tmp_path: Path) -> None:
    check_large(tmp_path, 16384, 16384, 2000)


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the write fails in the same way."""
    write_large(tmp_path / "big.tif", 4608, 4352)
    words = ("detect", tmp_path / "big.tif", "--model", "top-hat", "--out", tmp_path / "out")
    ended = command(LIMITED, 30_000_000, *words)
    assert ended.returncode == 2
    assert "File too large" in ended.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["big.tif"]


@measures_memory
def test_the_bundled_network_detects_in_tiles(tmp_path: Path) -> None:
    """A megapixel and a bit, cut at the sides of its tiles; the targets lie there."""
    corners = write_large(tmp_path / "x.tif", 1024, 1088)
    ended = command(MEASURED, "detect", tmp_path / "x.tif", "--out", tmp_path / "out", "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    assert peak_mb(ended) < 1000  # whole, the image takes over 1400
    (image,) = json.loads((tmp_path / "out/detections.json").read_text("utf-8"))["images"]
    best = image["targets"][: len(corners)]
    assert [(round(t["y"] - 1), round(t["x"] - 1)) for t in best] == corners
