import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.files import InputError
from datasets.images import (
    image_header,
    is_turned,
    read_label_map,
    read_photograph,
    read_saliency,
    write_label_map,
)

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
GREY = RGB[..., 0]


def saved(path, array, mode=None, **options):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


# --- photographs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp"])
def test_photograph_of_every_lossless_format_is_exact(tmp_path, ending):
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path / f"a.{ending}", RGB, **options)
    np.testing.assert_array_equal(read_photograph(path), RGB)


def test_jpeg_is_read_as_rgb(tmp_path):
    smooth = np.zeros((32, 48, 3), np.uint8)
    smooth[...] = (200, 100, 30)
    photograph = read_photograph(saved(tmp_path / "a.jpg", smooth, quality=95))
    assert photograph.shape == (32, 48, 3) and photograph.dtype == np.uint8
    assert np.abs(photograph.astype(int) - (200, 100, 30)).max() < 5


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_grey(tmp_path, ending):
    photograph = read_photograph(saved(tmp_path / f"a.{ending}", GREY))
    assert photograph.shape == (20, 30, 3)
    assert (photograph == photograph[..., :1]).all()


def test_cmyk(tmp_path):
    path = saved(tmp_path / "a.jpg", np.full((16, 16, 3), (250, 20, 20), np.uint8), "CMYK")
    assert image_header(path) == ("CMYK", (16, 16))
    assert np.abs(read_photograph(path).astype(int) - (250, 20, 20)).max() < 10


def test_palette_and_alpha(tmp_path):
    palette = saved(tmp_path / "p.png", RGB, "P")
    expected = np.asarray(Image.open(palette).convert("RGB"))
    np.testing.assert_array_equal(read_photograph(palette), expected)
    alpha = np.dstack([RGB, GREY])
    np.testing.assert_array_equal(read_photograph(saved(tmp_path / "a.png", alpha)), RGB)
    assert read_photograph(saved(tmp_path / "la.png", alpha, "LA")).shape == (20, 30, 3)
    assert read_photograph(saved(tmp_path / "1.png", GREY, "1")).max() == 255


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_16_bit(tmp_path, ending):
    deep = RGB.astype(np.uint16) * 256 + 77
    cv2.imwrite(str(tmp_path / f"c.{ending}"), deep[..., ::-1])
    cv2.imwrite(str(tmp_path / f"g.{ending}"), deep[..., 0])
    np.testing.assert_array_equal(read_photograph(tmp_path / f"c.{ending}"), RGB)
    np.testing.assert_array_equal(
        read_photograph(tmp_path / f"g.{ending}"), np.dstack([GREY, GREY, GREY])
    )


def test_fractions_are_refused_rather_than_black(tmp_path):
    path = saved(tmp_path / "f.tif", GREY / np.float32(255))
    for read in (read_photograph, lambda path: read_saliency(path, GREY.shape)):
        with pytest.raises(InputError, match="f.tif: fractions from 0 to 1 instead of 0 to 255; s"):
            read(path)
    path = saved(tmp_path / "f.tif", GREY.astype(np.float32))
    np.testing.assert_array_equal(read_photograph(path)[..., 0], GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_exif_rotated_photographs_keep_their_stored_orientation(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    plain = saved(tmp_path / f"plain.{ending}", RGB)
    turned = saved(tmp_path / f"turned.{ending}", RGB, exif=exif)
    assert Image.open(turned).getexif()[274] == orientation
    np.testing.assert_array_equal(read_photograph(turned), read_photograph(plain))
    assert image_header(turned) == ("RGB", RGB.shape[:2])
    assert is_turned(turned) == (orientation > 1) and not is_turned(plain)


def png_chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def bomb(path, width=60_000, height=60_000):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    image = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + image + png_chunk(b"IEND", b""))


READERS = [read_photograph, read_label_map, lambda path: read_saliency(path, (20, 30))]


@pytest.mark.parametrize("read", READERS)
def test_broken_images(tmp_path, read):
    path = tmp_path / "x.png"
    with pytest.raises(InputError, match="no such file"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="x.png: the file is empty"):
        read(path)
    path.write_text("<html>404</html>")
    with pytest.raises(InputError, match="x.png: not an image"):
        read(path)
    whole = saved(path, GREY).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="x.png: truncated or corrupt"):
        read(path)
    with pytest.raises(InputError, match="cannot read"):
        read(tmp_path)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("size", [(60_000, 60_000), (15_000, 15_000), (2**31 - 1, 2)])
def test_decompression_bombs_are_refused_before_decoding(tmp_path, read, size):
    bomb(tmp_path / "x.png", *size)
    with warnings.catch_warnings(), pytest.raises(InputError, match="x.png: .*refused"):
        warnings.simplefilter("ignore")
        read(tmp_path / "x.png")


def test_truncated_jpeg(tmp_path):
    whole = saved(tmp_path / "a.jpg", RGB).read_bytes()
    for end in (len(whole) // 3, len(whole) - 40, len(whole) - 2):
        (tmp_path / "a.jpg").write_bytes(whole[:end])
        with pytest.raises(InputError, match="a.jpg: .*[Tt]runcated"):
            read_photograph(tmp_path / "a.jpg")


def test_postscript_is_not_run(tmp_path):
    code = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({tmp_path}/ran) (w) file closefile\n"
    (tmp_path / "a.jpg").write_text(code)
    with pytest.raises(InputError, match="not an image"):
        read_photograph(tmp_path / "a.jpg")
    assert not (tmp_path / "ran").exists()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(["jpg", "png", "tif", "webp", "bmp"]))
def test_damaged_images_are_read_or_refused(tmp_path, mutated, data, ending):
    original = tmp_path / f"original.{ending}"
    if not original.exists():
        saved(original, RGB[:12, :16])
    (tmp_path / "x").write_bytes(data.draw(mutated(original.read_bytes())))
    for read in READERS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read(tmp_path / "x").dtype == np.uint8
            except InputError as error:
                assert str(tmp_path / "x") in str(error)


# --- label maps and saliency maps -----------------------------------------------------------------


def test_label_map_survives_writing(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_label_map(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), labels)
    colours = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    np.testing.assert_array_equal(colours[0, :3], [(0, 0, 0), (128, 0, 0), (0, 128, 0)])


def test_label_map_may_be_grey_but_not_coloured(tmp_path):
    np.testing.assert_array_equal(read_label_map(saved(tmp_path / "g.png", GREY)), GREY)
    for mode in ("RGB", "RGBA", "LA"):
        with pytest.raises(InputError, match="palette or 8-bit grey PNG, not .*; convert it"):
            read_label_map(saved(tmp_path / "c.png", RGB, mode))
    cv2.imwrite(str(tmp_path / "16.png"), GREY.astype(np.uint16))
    with pytest.raises(InputError, match="8-bit"):
        read_label_map(tmp_path / "16.png")


def test_saliency_is_resized_to_the_photograph(tmp_path):
    path = saved(tmp_path / "s.png", GREY)
    np.testing.assert_array_equal(read_saliency(path, GREY.shape), GREY)
    assert read_saliency(path, (40, 50)).shape == (40, 50)
    assert read_saliency(saved(tmp_path / "c.png", RGB), (20, 30)).shape == (20, 30)
    cv2.imwrite(str(tmp_path / "16.png"), GREY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_saliency(tmp_path / "16.png", GREY.shape), GREY)
