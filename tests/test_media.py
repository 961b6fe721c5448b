"""Reading: formats, depths, broken files; and the intensity range."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from ismallnet.media import (
    ImageError,
    RangeWarning,
    grey,
    normalise,
    read_image,
    read_pages,
    tiff_directories,
)

RNG = np.random.default_rng(0)


def smooth(height: int = 60, width: int = 72, seed: int = 0) -> np.ndarray:
    """An 8-bit scene of soft clutter, 30 to 220."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.round(30 + 190 * (field - field.min()) / np.ptp(field)).astype(np.uint8)


SCENE = smooth()


def write(path: Path, array: np.ndarray, *options: int) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, array, list(options))[1].tobytes())
    return path


def write_pages(path: Path, pages: list[np.ndarray]) -> Path:
    assert cv2.imwritemulti(str(path), pages)
    return path


# --- formats ---


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_an_8_bit_file_is_divided_by_255(tmp_path: Path, suffix: str) -> None:
    image = read_image(write(tmp_path / f"x{suffix}", SCENE))
    np.testing.assert_array_equal(image.pixels, (SCENE / 255).astype(np.float32))
    assert (image.low, image.high, image.rule, image.dtype, image.warning) == (0, 255, "8-bit", "uint8", "")
    assert image.path == tmp_path / f"x{suffix}"


def test_a_jpeg_is_read_within_its_loss(tmp_path: Path) -> None:
    image = read_image(write(tmp_path / "x.jpg", SCENE, cv2.IMWRITE_JPEG_QUALITY, 95))
    assert np.abs(image.pixels - SCENE / 255).max() < 4 / 255


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_files_keep_their_depth(tmp_path: Path, suffix: str) -> None:
    deep = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
    (page,) = read_pages(write(tmp_path / f"x{suffix}", deep))
    assert page.dtype == np.uint16
    np.testing.assert_array_equal(page, deep)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32])
def test_tiffs_of_other_types_are_stretched_like_16_bit(tmp_path: Path, dtype: type) -> None:
    shifted = SCENE.astype(dtype) * 3 - 200
    image = read_image(write(tmp_path / "x.tif", shifted))
    assert (image.rule, image.dtype) == ("percentile", np.dtype(dtype).name)
    np.testing.assert_array_equal(image.pixels, normalise(SCENE.astype(np.uint16)).pixels)


def test_colour_becomes_grey_by_bt_601(tmp_path: Path) -> None:
    blue, green, red = (np.full((4, 4), v, np.uint8) for v in (200, 100, 50))
    (page,) = read_pages(write(tmp_path / "x.png", cv2.merge([blue, green, red])))
    assert page.tolist() == [[96] * 4] * 4  # 0.299 · 50 + 0.587 · 100 + 0.114 · 200 = 96.45


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_grey_picture_stored_as_colour_is_unchanged(dtype: type) -> None:
    ramp = np.linspace(0, np.iinfo(dtype).max if dtype is not np.float32 else 1, 500).astype(dtype)[None]
    np.testing.assert_allclose(grey(np.stack([ramp] * 3, 2)), ramp, rtol=1e-6)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    coloured = cv2.merge([SCENE, SCENE, SCENE, np.full_like(SCENE, 7)])
    (page,) = read_pages(write(tmp_path / "x.png", coloured))
    np.testing.assert_array_equal(page, SCENE)
    np.testing.assert_array_equal(grey(np.dstack([SCENE, SCENE // 2])), SCENE)


def test_a_palette_png_is_read_by_its_colours(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    import zlib

    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    header = struct.pack(">IIBBBBB", 3, 2, 8, 3, 0, 0, 0)
    palette = bytes([10, 10, 10, 90, 90, 90, 250, 250, 250])
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in indices))
    parts = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", rows), (b"IEND", b""))
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    assert read_pages(path)[0].tolist() == [[10, 90, 250], [250, 90, 10]]


def test_a_path_with_other_scripts_is_read(tmp_path: Path) -> None:
    assert read_image(write(tmp_path / "红外 ü.png", SCENE)).pixels.shape == SCENE.shape


def test_an_array_that_is_no_image_is_refused() -> None:
    for shape in ((5,), (4, 4, 5), (2, 4, 4, 3)):
        with pytest.raises(ValueError, match="channels"):
            grey(np.zeros(shape, np.uint8))
    with pytest.raises(ImageError, match="without pixels"):
        normalise(np.zeros((0, 4), np.uint8))


# --- broken files ---


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_named_and_not_half_read(tmp_path: Path, suffix: str, kept: float) -> None:
    path = write(tmp_path / f"cut{suffix}", smooth(200, 300))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ImageError, match=f"cut{suffix}.*truncated"):
        read_image(path)


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jpg", smooth(200, 300))
    data = path.read_bytes()
    thumbnail = cv2.imencode(".jpg", SCENE)[1].tobytes()
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    path.write_bytes(data[:2] + exif + data[2:])
    assert read_image(path).pixels.shape == (200, 300)
    path.write_bytes(data[:2] + exif + data[2 : len(data) // 2])
    with pytest.raises(ImageError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_truncated_stack_does_not_lose_pages_in_silence(tmp_path: Path, kept: float) -> None:
    path = write_pages(tmp_path / "x.tif", [smooth(seed=n) for n in range(4)])
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ImageError, match=r"x\.tif.*cannot be decoded"):
        read_pages(path)


def test_a_stack_cut_before_the_link_to_its_next_page_is_noticed(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "x.tif", [smooth(seed=n) for n in range(4)])
    with path.open("rb") as file:
        start = tiff_directories(file)[1]
    data = path.read_bytes()
    (entries,) = struct.unpack_from("<H", data, start)
    for more in (0, 2):  # the link has four bytes
        path.write_bytes(data[: start + 2 + 12 * entries + more])
        with pytest.raises(ImageError, match="1 of 3 pages cannot"):
            read_pages(path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "none.png").touch()
    with pytest.raises(ImageError, match=r"none\.png.*empty"):
        read_image(tmp_path / "none.png")


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ImageError, match=r"text\.png.*PNG, JPEG, BMP or TIFF"):
        read_image(tmp_path / "text.png")


def test_a_missing_file_is_the_usual_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        read_image(tmp_path / "nowhere.png")


def test_broken_files_write_nothing_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for suffix in (".png", ".jpg", ".bmp", ".tif"):
        path = write(tmp_path / f"x{suffix}", SCENE)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ImageError):
            read_image(path)
    assert capfd.readouterr().err == ""


def test_read_image_does_not_drop_pages(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"2 pages.*frames"):
        read_image(write_pages(tmp_path / "x.tif", [SCENE, SCENE]))


# --- the range ---


@pytest.mark.parametrize("factor", [16, 64, 257])
def test_a_scene_stored_times_a_factor_in_16_bits_has_the_same_pixels(factor: int) -> None:
    image = normalise(SCENE.astype(np.uint16) * factor)
    np.testing.assert_array_equal(image.pixels, normalise(SCENE.astype(np.uint16)).pixels)


def test_the_range_runs_from_the_low_percentile_to_the_brightest_pixel_near_the_high_one() -> None:
    deep = SCENE.astype(np.uint16) * 16
    image = normalise(deep)
    assert image.rule == "percentile"
    assert image.low == np.percentile(deep, 0.1, method="lower")
    assert image.high == deep.max()


def test_a_small_bright_target_keeps_its_contrast_to_the_brightest_clutter() -> None:
    deep = SCENE.astype(np.uint16) * 16  # up to 3520
    deep[30:32, 30:32] = 4000  # 4 of 4320 pixels: above the 99.9 percentile
    pixels = normalise(deep).pixels
    clutter = np.delete(
        pixels.ravel(), np.ravel_multi_index(np.mgrid[30:32, 30:32].reshape(2, -1), deep.shape)
    )
    assert pixels[30, 30] == 1
    assert clutter.max() < 0.9


def test_a_dead_pixel_takes_at_most_half_of_the_range() -> None:
    deep = smooth(120, 120).astype(np.uint16)  # 30 to 220
    deep[5, 5] = 65535
    image = normalise(deep)
    assert image.high < 220 + 190
    assert np.percentile(image.pixels, 99.8) > 0.45


def test_the_noise_of_a_flat_frame_is_not_stretched() -> None:
    flat = np.round(RNG.normal(8000, 12, (200, 200))).astype(np.uint16)
    with pytest.warns(RangeWarning, match="widened"):
        image = normalise(flat)
    assert image.pixels.std() == pytest.approx(1 / 64, rel=0.05)  # NARROW standard deviations make the range
    assert abs(image.pixels.mean() - 0.5) < 0.05


def test_a_target_on_a_flat_frame_stands_out_of_the_noise() -> None:
    flat = RNG.normal(8000, 12, (200, 200))
    flat[100:103, 100:103] += 40 * 12
    with pytest.warns(RangeWarning):
        pixels = normalise(flat.astype(np.uint16)).pixels
    assert pixels[100:103, 100:103].min() - np.delete(pixels, slice(100, 103), 0).max() > 0.3


def test_flat_frames_of_sparse_noise_are_not_stretched_either() -> None:
    flat = np.full((100, 100), 500, np.uint16)
    flat[RNG.random(flat.shape) < 0.05] += 1
    with pytest.warns(RangeWarning):
        assert np.ptp(normalise(flat).pixels) < 0.15


def test_a_scene_is_not_taken_for_noise() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RangeWarning)
        normalise(SCENE.astype(np.uint16) * 16)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_constant_frame_is_mid_grey(value: int) -> None:
    with pytest.warns(RangeWarning):
        assert (normalise(np.full((5, 6), value, np.uint16)).pixels == 0.5).all()


def test_a_given_range_is_taken_and_clipped_to() -> None:
    image = normalise(np.array([[0, 100, 200, 300]], np.uint16), range=(100, 200))
    assert image.pixels.tolist() == [[0, 0, 1, 1]]
    assert (image.low, image.high, image.rule) == (100, 200, "given")


@pytest.mark.parametrize("wrong", [(5, 5), (9, 2), (0, float("nan")), (float("-inf"), 1)])
def test_a_wrong_range_is_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="lower first"):
        normalise(SCENE, range=wrong)


def test_a_range_that_is_hardly_used_gives_a_warning() -> None:
    with pytest.warns(RangeWarning, match="100 to 109"):
        normalise(np.tile(np.arange(100, 110, dtype=np.uint8), (9, 1)))
    with pytest.warns(RangeWarning, match="0 to 65535"):
        normalise(SCENE.astype(np.uint16), range=(0, 65535))


def test_the_warning_names_the_file_and_stays_in_the_image(tmp_path: Path) -> None:
    path = write(tmp_path / "flat.png", np.full((9, 9), 80, np.uint8))
    with pytest.warns(RangeWarning, match=r"flat\.png"):
        assert "80 to 80" in read_image(path).warning


def test_pixels_that_are_not_finite_take_the_median(tmp_path: Path) -> None:
    clean = SCENE.astype(np.float32)
    holed = clean.copy()
    holed[0, 0], holed[0, 1], holed[0, 2] = np.nan, np.inf, -np.inf
    image = read_image(write(tmp_path / "x.tif", holed))
    median = np.median(clean.ravel()[3:])
    expected = (median - image.low) / (image.high - image.low)
    np.testing.assert_allclose(image.pixels[0, :3], expected, rtol=1e-5)
    assert np.isfinite(image.pixels).all()
    assert image.high == clean.max()


def test_an_image_without_a_finite_pixel_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "void.tif", np.full((4, 4), np.nan, np.float32))
    with pytest.raises(ImageError, match=r"void\.tif.*finite"):
        read_image(path)


def test_few_real_scenes_are_taken_for_noise(data_root: Path) -> None:
    names = (data_root / "NUAA-SIRST" / "50_50" / "train.txt").read_text().split()[::4]
    doubtful = []
    for name in names:
        (page,) = read_pages(data_root / "NUAA-SIRST" / "images" / f"{name}.png")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RangeWarning)
            if normalise(page.astype(np.uint16) * 257).warning:
                doubtful.append(name)
    assert len(doubtful) <= 0.05 * len(names), doubtful
