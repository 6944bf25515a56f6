import os
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.files import (
    InputError,
    check_id,
    image_header,
    list_ids,
    list_photographs,
    read_id_list,
    read_json,
    read_label_map,
    read_lines,
    read_photograph,
    read_saliency,
    remove_unfinished,
    write_bytes,
    write_json,
    write_label_map,
    write_whole,
)
from datasets.palette import voc_palette

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
    write_label_map(tmp_path / "a.png", labels, voc_palette())
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), labels)
    colours = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    np.testing.assert_array_equal(colours[0, :3], [(0, 0, 0), (128, 0, 0), (0, 128, 0)])


def test_label_map_may_be_grey_but_not_coloured(tmp_path):
    np.testing.assert_array_equal(read_label_map(saved(tmp_path / "g.png", GREY)), GREY)
    for mode in ("RGB", "RGBA", "LA"):
        with pytest.raises(InputError, match="palette or grey"):
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


# --- ids, lists, folders --------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", ["a", "2007_000032", "IMG 1", "ünï-♥", "a.b.c", "-"])
def test_ids_are_any_file_name(identifier):
    assert check_id(identifier, "x") == identifier


@pytest.mark.parametrize(
    "identifier", ["", ".", "..", "../a", "a/b", "a\\b", ".a", "a\0", "a\nb", "a" * 251]
)
def test_ids_cannot_leave_their_folder(identifier):
    with pytest.raises(InputError, match="list.txt: the id .* is not a plain file name"):
        check_id(identifier, "list.txt")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the list is empty"),
        ("\n \n", "the list is empty"),
        ("a\nb\na\n", "the id 'a' appears twice"),
        ("a\n../b\n", "not a plain file name"),
        ("\udcff", "not a text file"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    (tmp_path / "l.txt").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=f"l.txt: .*{message}"):
        read_id_list(tmp_path / "l.txt")


def test_list(tmp_path):
    (tmp_path / "l.txt").write_bytes("\ufeffb\r\n a 1\r\n\r\n".encode())
    assert read_id_list(tmp_path / "l.txt") == ("b", "a 1")
    with pytest.raises(InputError, match="missing.txt: no such file"):
        read_lines(tmp_path / "missing.txt")


def test_photographs_of_a_folder(tmp_path):
    for name in ("b.JPG", "a.x.png", "c.tiff", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    found = list_photographs(tmp_path)
    assert found == {
        i: tmp_path / n for i, n in (("a.x", "a.x.png"), ("b", "b.JPG"), ("c", "c.tiff"))
    }
    assert list_ids(tmp_path, ".txt") == {"notes"}
    assert list_ids(tmp_path / "none", ".txt") == set()
    (tmp_path / "b.png").touch()
    with pytest.raises(InputError, match="b.JPG and b.png have the same id 'b'"):
        list_photographs(tmp_path)
    with pytest.raises(InputError, match="cannot list the folder"):
        list_photographs(tmp_path / "none")


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None]}
    for text in ("", "{", "[" * 100_000, "\udcff", "1" * 10_000):
        (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(InputError, match="a.json: not valid JSON"):
            read_json(tmp_path / "a.json")


# --- writing --------------------------------------------------------------------------------------


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "a"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), write_whole(path) as file:
        file.write(b"half of the ne")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["a"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o077 == 0o044


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_get_the_permissions_of_open_and_the_umask_is_left_alone(
    tmp_path, monkeypatch, umask, mode
):
    """The umask belongs to the whole process: another thread could meet, and keep, another."""
    former = os.umask(umask)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")
            write_bytes(tmp_path / "a", b"", durable=True)
    finally:
        os.umask(former)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_what_a_killed_process_leaves_is_recognised(tmp_path):
    with write_whole(tmp_path / "folder" / ("a" * 200)) as file:
        file.write(b"half")
        (left,) = (tmp_path / "folder").iterdir()
        copy = left.with_name(f"{left.name[:-9]}other.part")
        copy.write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a" * 200]


def test_unwritable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write .*file/a"):
        write_bytes(tmp_path / "file" / "a", b"")
