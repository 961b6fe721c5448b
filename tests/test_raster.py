"""Large TIFF files by rows: the same pixels and the same range as in memory, and what is refused."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ismallnet import raster
from ismallnet.media import ImageError, read_image
from ismallnet.raster import LARGE_PX, is_large, open_rasters, retile
from ismallnet.streams import frames

tifffile = pytest.importorskip("tifffile", reason="pip install 'ismallnet[large]'")
pytestmark = pytest.mark.filterwarnings("ignore::ismallnet.media.RangeWarning")

LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip, plain": {"rowsperstrip": 99},
    "strips, plain": {"rowsperstrip": 7},
    "strips, deflate": {"rowsperstrip": 7, "compression": "zlib"},
    "one strip, deflate": {"rowsperstrip": 99, "compression": "zlib"},
    "tiles, plain": {"tile": (32, 32)},
    "tiles, deflate": {"tile": (16, 32), "compression": "zlib"},
    "tiles, deflate, differences": {"tile": (32, 32), "compression": "zlib", "predictor": True},
    "big-endian": {"byteorder": ">", "rowsperstrip": 7},
    "BigTIFF": {"bigtiff": True, "tile": (32, 32)},
}


def scene(dtype: str, shape: tuple[int, ...] = (99, 83), seed: int = 0) -> np.ndarray:
    """Soft noise with a few bright pixels over most of the type's range."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 1, shape).cumsum(0).cumsum(1) / 20 + 8 * (random.random(shape) > 0.999)
    scale = {"u1": 20, "u2": 900, "i2": 900, "u4": 5e6, "i4": 5e6}.get(dtype, 0.37)
    values = values * scale + (np.iinfo(dtype).max // 2 if dtype[0] in "u" else 0)
    if dtype[0] in "ui":
        values = np.clip(values, np.iinfo(dtype).min, np.iinfo(dtype).max)
    return values.astype(dtype)


def write(path: Path, *pages: np.ndarray, **options: Any) -> Path:
    kind = {key: options.pop(key) for key in ("bigtiff", "byteorder") if key in options}
    with tifffile.TiffWriter(path, **kind) as out:
        for page in pages:
            out.write(page, **{"photometric": "rgb" if page.ndim == 3 else "minisblack"} | options)
    return path


def read(path: Path, **options: Any) -> tuple[list[np.ndarray], list[tuple[Any, ...]]]:
    """Pixels, in uneven bands, and range of every page."""
    with open_rasters(path, **options) as pages:
        bands = [
            np.concatenate([page.rows(y, min(y + 13, page.shape[0])) for y in range(0, page.shape[0], 13)])
            for page in pages
        ]
        return bands, [(page.low, page.high, page.rule, page.warning, page.dtype) for page in pages]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_rows_and_range_are_those_of_the_image_in_memory(tmp_path: Path, layout: str, dtype: str) -> None:
    options = dict(LAYOUTS[layout])
    if dtype == "f4":
        options.pop("predictor", None)  # of floats, it takes imagecodecs
    path = write(tmp_path / "x.tif", scene(dtype), **options)
    ((pixels,), (window,)), whole = read(path), read_image(path)
    np.testing.assert_array_equal(pixels, whole.pixels)
    assert window == (whole.low, whole.high, whole.rule, whole.warning, whole.dtype)


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (1, 1), (2, 2), (3, 3)])
def test_thin_images(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = write(tmp_path / "x.tif", scene("u2", shape))
    ((pixels,), (window,)), whole = read(path), read_image(path)
    np.testing.assert_array_equal(pixels, whole.pixels)
    assert window[:2] == (whole.low, whole.high)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    st.sampled_from(["u2", "f4"]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 10**6),
    st.integers(1, 500),
)
def test_the_range_is_that_of_media_for_any_image_and_any_pass(
    tmp_path: Path, dtype: str, height: int, width: int, seed: int, pass_px: int
) -> None:
    """Flat noise, whose range the noise widens, and scenes in turn."""
    random = np.random.default_rng(seed)
    flat = (random.normal(9000, 15, (height, width)) / (1 if dtype == "u2" else 1e4)).astype(dtype)
    path = write(tmp_path / "x.tif", flat if seed % 2 else scene(dtype, (height, width), seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raster, "PASS_PX", pass_px)
        ((pixels,), (window,)) = read(path)
    whole = read_image(path)
    assert window[2:4] == (whole.rule, whole.warning)
    np.testing.assert_allclose(window[:2], (whole.low, whole.high), rtol=0 if dtype == "u2" else 1e-12)
    np.testing.assert_allclose(pixels, whole.pixels, atol=0 if dtype == "u2" else 1e-6)


def test_pages_have_one_range_and_overviews_are_left_out(tmp_path: Path) -> None:
    pages = [scene("u2", seed=n) * np.uint16(n + 1) for n in range(2)]
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as out:
        for page in pages:
            out.write(page, subifds=0)
        out.write(pages[0][::2, ::2], subfiletype=1)
    plain = write(tmp_path / "plain.tif", *pages)
    got, wanted = read(path), list(frames(plain))
    assert len(got[0]) == 2
    for pixels, whole in zip(got[0], wanted, strict=True):
        np.testing.assert_array_equal(pixels, whole.pixels)


def test_colours_become_grey_as_in_memory(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    path = write(tmp_path / "x.tif", colours, tile=(16, 16), compression="zlib")
    np.testing.assert_array_equal(read(path)[0][0], read_image(path).pixels)


@pytest.mark.parametrize("count", [40, 41])
def test_pixels_that_are_not_finite_take_the_median_of_the_others(tmp_path: Path, count: int) -> None:
    image = scene("f4")
    image.ravel()[np.random.default_rng(0).choice(image.size, count, replace=False)] = np.nan
    image[3, 4] = np.inf
    path = write(tmp_path / "x.tif", image, rowsperstrip=8, compression="zlib")
    ((pixels,), (window,)), whole = read(path), read_image(path)
    np.testing.assert_array_equal(pixels, whole.pixels)
    assert window[:2] == (whole.low, whole.high)


def test_a_given_range_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", scene("u2"))
    np.testing.assert_array_equal(
        read(path, range=(30000, 40000))[0][0], read_image(path, range=(30000, 40000)).pixels
    )
    with pytest.raises(ValueError, match="lower first"), open_rasters(path, range=(9, 3)):
        pass


def test_64_bit_floats_are_read_as_32_bit_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", scene("f8"))
    np.testing.assert_allclose(read(path)[0][0], read_image(path).pixels, atol=1e-6)


def test_only_what_rows_lie_in_is_decoded_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.tif", scene("u2", (640, 64)), tile=(64, 64), compression="zlib")
    decoded: list[int] = []
    plain = raster.Page._decode

    def counting(page: raster.Page, number: int) -> np.ndarray:
        decoded.append(number)
        return plain(page, number)

    with open_rasters(path) as (page,):
        page.rows(0, 1)
        monkeypatch.setattr(raster.Page, "_decode", counting)
        for y in range(100, 500, 50):
            page.rows(y, y + 100)  # every band shares half its rows with the one before
    assert decoded == [1, 2, 3, 4, 5, 6, 7, 8]


# --- what is large ---


def test_a_tiff_is_large_by_the_size_in_its_head(tmp_path: Path) -> None:
    for name, options in (("classic", {}), ("big", {"bigtiff": True}), ("motorola", {"byteorder": ">"})):
        path = tmp_path / f"{name}.tif"
        for shape, expected in (((4096, 4096), False), ((4097, 4096), True), ((1, LARGE_PX + 1), True)):
            tifffile.imwrite(path, shape=shape, dtype=np.uint8, **options)
            assert is_large(path) == expected


@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0" + b"\xff" * 4, b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_tiff_or_broken_is_not_large(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tif").write_bytes(content)
    assert not is_large(tmp_path / "x.tif")
    assert not is_large(tmp_path / "none.tif")


# --- what is refused ---


def refusal(path: Path) -> str:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with pytest.raises(ImageError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, layout: str, part: float) -> None:
    path = write(tmp_path / "x.tif", scene("u2"), **LAYOUTS[layout])
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    assert "truncated" in refusal(path)


def test_a_damaged_directory_of_a_later_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.stack([scene("u2", seed=n) for n in range(3)]), photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        start = file.pages[2].offset
    data = bytearray(path.read_bytes())
    data[start : start + 2] = b"\xff\xff"  # the number of its tags
    path.write_bytes(data)
    assert "truncated or damaged" in refusal(path)


def test_damaged_data_is_refused_when_it_is_reached(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", scene("u2"), tile=(32, 32), compression="zlib")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        at = file.pages.first.dataoffsets[7]
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    assert "strip or tile 7 cannot be decoded" in refusal(path)


def test_one_large_compressed_strip_is_refused_with_the_command_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = scene("u2")
    path = write(tmp_path / "x.tif", image, rowsperstrip=99, compression="zlib")
    monkeypatch.setattr(raster, "SEGMENT_BYTES", image.nbytes - 1)
    assert f"ismallnet data retile {path} TILED.tif" in refusal(path)
    retile(path, tmp_path / "TILED.tif")
    monkeypatch.setattr(raster, "SEGMENT_BYTES", 512 * 512 * 2)
    np.testing.assert_array_equal(read(tmp_path / "TILED.tif")[0][0], read_image(path).pixels)
    plain = write(tmp_path / "plain.tif", image, rowsperstrip=99)  # uncompressed, the strip is no obstacle
    np.testing.assert_array_equal(read(plain)[0][0], read_image(path).pixels)


def test_lzw_without_imagecodecs_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("imagecodecs is installed: LZW is read")
    from PIL import Image

    path = tmp_path / "x.tif"
    Image.fromarray(scene("u1")).save(path, compression="tiff_lzw")
    text = refusal(path)
    assert "LZW takes imagecodecs: pip install imagecodecs" in text
    assert "ismallnet data retile" in text
    retile(path, tmp_path / "tiled.tif")
    np.testing.assert_array_equal(read(tmp_path / "tiled.tif")[0][0], read_image(path).pixels)


def test_retile_overwrites_nothing_and_leaves_nothing_of_a_bad_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", scene("u2"))
    (tmp_path / "out.tif").write_text("precious")
    with pytest.raises(FileExistsError, match=r"out\.tif exists"):
        retile(path, tmp_path / "out.tif")
    assert (tmp_path / "out.tif").read_text() == "precious"
    path.write_bytes(b"II*\0")
    with pytest.raises(ImageError):
        retile(path, tmp_path / "new.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tif", "x.tif"]


def test_no_finite_pixel_is_refused(tmp_path: Path) -> None:
    assert "no pixel is finite" in refusal(write(tmp_path / "x.tif", np.full((9, 9), np.nan, np.float32)))


def test_what_is_neither_grey_nor_rgb_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", scene("u1"), photometric="miniswhite")
    assert "only grey and RGB" in refusal(path)
    path = write(tmp_path / "y.tif", scene("f4").astype(np.complex64))
    assert "complex64" in refusal(path)


def test_without_tifffile_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.tif", scene("u2"))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImageError, match=r"pip install 'ismallnet\[large\]'"), open_rasters(path):
        pass
