"""Files made to do harm: each is refused with a message, quickly, and nothing of it is executed.

What the readers' own tests hold is not repeated here: XML with entities and without end, hostile
label pickles (tests/datasets/test_published_labels.py), PNG headers of absurd sizes, PostScript
(test_images.py), JSON without end (test_files.py), and instances and outlines of COCO
(test_coco.py, test_coco_masks.py).
"""

import io
import json
import os
import pickle
import resource
import struct
import sys
import time
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import coco
from datasets.classes import coco_classes
from datasets.files import InputError
from datasets.images import image_header, is_turned, read_label_map, read_photograph, read_saliency
from datasets.labels import read_csv_labels, read_labels_json, xml_labels
from datasets.listing import read_id_list
from datasets.published_labels import read_published_labels
from networks.superpixel import SuperpixelNet
from tests.fuzz.mutations import png_chunk
from utils import checkpoints


@contextmanager
def modest(seconds=5, megabytes=700):
    """Fails where the block takes much memory or many seconds (thrice that on a busy machine)."""
    unit = 1 if sys.platform == "darwin" else 1024
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - start < 3 * seconds
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < megabytes * 2**20


# --- images ---------------------------------------------------------------------------------------

READERS = [
    read_photograph,
    read_label_map,
    lambda path: read_saliency(path, (20, 30)),
    image_header,
    is_turned,
]


def encoded(ending, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(buffer, ending, **options)
    return buffer.getvalue()


def replaced(data, old, new):
    assert data.count(old) == 1
    return data.replace(old, new)


def huge_jpeg(**options):
    return replaced(
        encoded("JPEG", **options),
        struct.pack(">BHH", 8, 16, 24),
        struct.pack(">BHH", 8, 60_000, 60_000),
    )


def huge_tiff(**options):
    data = encoded("TIFF", **options)
    for tag, old in ((256, 24), (257, 16)):
        entry = struct.pack("<HHI", tag, 4, 1)
        kind = entry if entry in data else struct.pack("<HHI", tag, 3, 1)
        data = replaced(data, kind + struct.pack("<I", old), entry + struct.pack("<I", 60_000))
    return data


def huge_webp(lossless):
    """An animation's header with a canvas of 60 000 x 60 000, and one small frame."""
    picture = encoded("WEBP", lossless=lossless)
    size = (59_999).to_bytes(3, "little")
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size + size
    body = b"WEBP" + canvas + picture[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def huge_bmp():
    return replaced(
        encoded("BMP"), struct.pack("<III", 40, 24, 16), struct.pack("<III", 40, 60_000, 60_000)
    )


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "data",
    [
        huge_jpeg(),
        huge_jpeg(progressive=True),
        huge_tiff(),
        huge_tiff(compression="tiff_lzw"),
        huge_webp(False),
        huge_webp(True),
        huge_bmp(),
    ],
    ids=["jpeg", "progressive", "tiff", "lzw", "webp", "lossless", "bmp"],
)
def test_absurd_sizes_are_refused_before_decoding(tmp_path, read, data):
    (tmp_path / "x").write_bytes(data)
    with modest(2, 100), pytest.raises(InputError, match="x: (.*refused|not an? .*image)"):
        read(tmp_path / "x")


@cache
def zeros():
    """300 MB of zeros, compressed."""
    return zlib.compress(bytes(300_000_000), 1)


def png(*extra, size=(16, 16), pixels=None):
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(17 * 16)) if pixels is None else pixels
    chunks = [(b"IHDR", header), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "kind, head",
    [
        (b"zTXt", b"key\0\0"),
        (b"iTXt", b"key\0\1\0\0\0"),
        (b"iCCP", b"profile\0\0"),
    ],
)
def test_bombs_in_a_pngs_texts(tmp_path, read, kind, head):
    (tmp_path / "x.png").write_bytes(png((kind, head + zeros())))
    with modest(2, 100):
        try:  # they are unpacked to a megabyte at most: refused, or passed over
            read(tmp_path / "x.png")
        except InputError as error:
            assert "x.png: " in str(error)


def test_more_pixels_than_the_header_says(tmp_path):
    (tmp_path / "x.png").write_bytes(png(pixels=zeros()))
    with modest(2, 100):
        assert read_label_map(tmp_path / "x.png").shape == (16, 16)


# --- label files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("between", ["\n", "<a/>", "&#10;"])
def test_xml_of_a_million_pieces(tmp_path, between):
    """A name in a million pieces is put together once, not a million times."""
    name = ("x" + between) * 1_000_000
    text = f"<annotation><object><name>{name}</name></object></annotation>"
    (tmp_path / "a.xml").write_text(text)
    with modest(10, 700), pytest.raises(InputError, match="a.xml: unknown class 'x") as caught:
        xml_labels(tmp_path / "a.xml", ("cat",))
    assert len(str(caught.value)) < 1000


def test_xml_of_absurd_depth(tmp_path):
    depth = 400_000
    text = "<annotation>" + "<object>" * depth + "</object>" * depth + "</annotation>"
    (tmp_path / "a.xml").write_text(text)
    with modest():
        assert not xml_labels(tmp_path / "a.xml", ("cat",)).any()


@pytest.mark.parametrize("descr", ["|O", "<f8", "|S1000000000"])
def test_npy_headers_of_absurd_shapes(tmp_path, descr):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (1099511627776,), }}\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(100)
    (tmp_path / "l.npy").write_bytes(data)
    with modest(2, 50), pytest.raises(InputError, match="l.npy: not a label file"):
        read_published_labels(tmp_path / "l.npy")


def test_archives_are_no_label_files(tmp_path):
    np.savez(tmp_path / "l.npz", a=np.array(Call(os.system, "true")), allow_pickle=True)
    with pytest.raises(InputError, match="l.npz: not a label file"):
        read_published_labels(tmp_path / "l.npz")


def test_a_csv_field_of_100_mb(tmp_path):
    (tmp_path / "l.csv").write_bytes(b'a,"' + b"x" * 100_000_000)
    with modest(10, 1500), pytest.raises(InputError, match="line 1: not CSV"):
        read_csv_labels(tmp_path / "l.csv")


def test_many_classes_times_many_photographs(tmp_path):
    """Counted before a vector is made for each photograph: here they would be 10 GB."""
    content = {"classes": [f"{k}" for k in range(100_000)]}
    content["labels"] = {f"id {k}": [] for k in range(100_000)}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    with modest(), pytest.raises(InputError, match="labels.json: 100000 classes"):
        read_labels_json(tmp_path / "labels.json")


# --- ids ------------------------------------------------------------------------------------------


def as_list(path, identifier):
    path.write_text(identifier + "\n")
    return read_id_list


def as_csv(path, identifier):
    path.write_text(f'"{identifier}",cat\n')
    return read_csv_labels


def as_json(path, identifier):
    path.write_text(json.dumps({"classes": ["cat"], "labels": {identifier: [0]}}))
    return read_labels_json


def as_npy(path, identifier):
    with open(path, "wb") as file:
        np.save(file, np.array({identifier: np.ones(1)}), allow_pickle=True)
    return read_published_labels


def as_coco(path, identifier):
    image = {"id": 1, "file_name": f"{identifier}.jpg", "height": 9, "width": 9}
    category = {"id": 1, "name": coco_classes()[0]}
    content = {"images": [image], "annotations": [], "categories": [category]}
    path.write_text(json.dumps(content))
    return coco.read_instances


@pytest.mark.parametrize("write", [as_list, as_csv, as_json, as_npy, as_coco])
@pytest.mark.parametrize(
    "identifier",
    ["../x", "../../x", "/x", "a/../../x", "..\\x", "C:\\x", "a\0b", ".x", "..", "x" * 300],
)
def test_no_id_leads_out_of_a_folder(tmp_path, write, identifier):
    path = tmp_path / "file"
    read = write(path, identifier)
    with pytest.raises(InputError, match=r"file.*: the id .* is not a plain file name") as caught:
        read(path)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


# --- checkpoints ----------------------------------------------------------------------------------


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def rewritten(data, change, compression=zipfile.ZIP_STORED):
    """A zip archive with every record's content changed by `change(name, content)`."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(buffer, "w", compression) as target,
    ):
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return buffer.getvalue()


def stored(content, zipped=True):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def with_pickle(pickled):
    data = stored({"model": {"a": torch.ones(8)}})
    return rewritten(data, lambda name, old: pickled if name.endswith("data.pkl") else old)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize(
    "function, name",
    [(os.system, "system"), (eval, "eval"), (exec, "exec"), (torch.hub.load, "load")],
)
def test_checkpoints_call_nothing(tmp_path, form, function, name):
    path, ran = tmp_path / "evil.pt", tmp_path / "ran"
    argument = f"touch {ran}" if name == "system" else f"open({str(ran)!r}, 'w')"
    content = {"epoch": Call(function, argument)}
    if form != "pickle":  # torch's own functions stand in the way of Python's pickles of tensors
        content |= {"model": {"a": torch.ones(3)}}
    path.write_bytes(
        pickle.dumps(content, 2) if form == "pickle" else stored(content, form == "zip")
    )
    with pytest.raises(InputError, match=f"evil.pt: holds more than weights .*{name}"):
        checkpoints.load_scn(SuperpixelNet(), path)
    assert not ran.exists()


DEEP = b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"Ns."
DOUBLED = b")q\0" + b"".join(b"h%c\x86q%c" % (k, k + 1) for k in range(60))


@pytest.mark.parametrize("wrap", [with_pickle, bytes], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "pickled, message",
    [
        (DEEP, "a tuple in it holds more than 10000 others"),  # its hash overflows the C stack
        (b"\x80\x02}" + DOUBLED + b"Ns.", "a tuple in it holds more than"),  # its hash never ends
        (b"\x80\x02" + DOUBLED + b")R.", "a tuple in it holds more than"),  # nor does its text
        (b"\x80\x02]q\0h\0a)R.", "it calls something that is not a name"),
        (b"\x80\x02c" + b"n" * 100_000 + b"\na\n.", "a name in it is longer than 200"),
        (b"\x80\x02]r\xff\xff\xff\xff.", "evil.pt: "),
        (b"\x80\x02" + b"(" * 500_000 + b".", "evil.pt: "),
    ],
    ids=["deep", "doubled key", "doubled callee", "list called", "endless name", "memo", "marks"],
)
def test_pickles_that_would_crash_or_hang_torchs_reader(tmp_path, wrap, pickled, message):
    (tmp_path / "evil.pt").write_bytes(wrap(pickled))
    with modest(), pytest.raises(InputError, match=message):
        checkpoints.read(tmp_path / "evil.pt")


def test_zip_bombs(tmp_path):
    data = stored({"model": {"a": torch.ones(8)}})
    bomb = rewritten(
        data,
        lambda name, old: bytes(300_000_000) if name.endswith("data/0") else old,
        zipfile.ZIP_DEFLATED,
    )
    (tmp_path / "bomb.pt").write_bytes(bomb)
    with modest(2, 50), pytest.raises(InputError, match=r"bomb.pt: .* unpacks to 3000\d+; refused"):
        checkpoints.read(tmp_path / "bomb.pt")


def plain(value):
    """An archive without zip64: (records, central directory, end)."""
    data = rewritten(stored({"a": torch.full((8,), value)}), lambda name, old: old)
    start = int.from_bytes(data[-6:-2], "little")
    return data[:start], data[start:-22], data[-22:]


def test_archives_that_readers_see_differently(tmp_path):
    """Python finds the last central directory, torch the one that the end of the file names."""
    (first, directory, end), (second, other, _) = plain(1.0), plain(2.0)
    assert len(first) == len(second) and len(directory) == len(other)
    path = tmp_path / "two.pt"
    path.write_bytes(first + directory + second + other + end)
    torch_sees = torch.load(path, weights_only=True)["a"]
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data/0"))
        python_sees = torch.frombuffer(bytearray(archive.read(name)), dtype=torch.float32)
    assert torch_sees[0] == 1 and python_sees[0] == 2
    # What is read is what was checked.
    assert torch.equal(checkpoints.read(path)["a"], python_sees)


def twice(name):
    """An archive that also holds a record `name`, which torch may take for its pickle."""
    buffer = io.BytesIO(stored({"a": torch.ones(8)}))
    with zipfile.ZipFile(buffer, "a") as archive:
        prefix = archive.namelist()[0].split("/")[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr(f"{prefix}/{name}", DEEP)
    return buffer.getvalue()


def flipped():
    """An archive in which one bit of a weight is wrong."""
    ones = struct.pack("<8f", *[1.0] * 8)
    return replaced(stored({"a": torch.ones(8)}), ones, ones[:-1] + bytes([ones[-1] ^ 1]))


@pytest.mark.parametrize(
    "data, message",
    [
        (twice("data.pkl"), "holds a record twice"),
        (twice("DATA.pkl"), "holds a record twice"),
        (rewritten(stored({}), lambda _, old: old + os.urandom(99), zipfile.ZIP_LZMA), "compresse"),
        (flipped(), "Bad CRC-32"),
    ],
    ids=["same name", "other case", "lzma", "flipped bit"],
)
def test_archives_that_no_torch_wrote(tmp_path, data, message):
    (tmp_path / "evil.pt").write_bytes(data)
    with modest(2, 50), pytest.raises(InputError, match=f"evil.pt: .*{message}"):
        checkpoints.read(tmp_path / "evil.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("count", [b"\x8a\x05\0\0\0\0\1", b"\x8a\x06\0\0\0\0\0\1", b"\x8a\x01\xff"])
def test_storages_that_claim_terabytes(tmp_path, zipped, count):
    data = stored({"model": {"a": torch.ones(8)}}, zipped)
    changed = [(b"K\x08", count)]
    if zipped:
        data = rewritten(
            data, lambda name, old: old.replace(*changed[0]) if name.endswith(".pkl") else old
        )
    else:
        data = data.replace(*changed[0])
    (tmp_path / "huge.pt").write_bytes(data)
    refused = r"huge.pt: ((truncated, or )?not a|holds more numbers)"
    with modest(2, 50), pytest.raises(InputError, match=refused):
        checkpoints.read(tmp_path / "huge.pt")


@pytest.mark.parametrize("shape", [(2**40,), (2**20, 2048, 1, 1)])
def test_views_of_absurd_size_are_not_filled(tmp_path, shape):
    content = {"model": {"classifier.weight": torch.zeros(1).expand(shape)}, "backbone": "resnet18"}
    torch.save(content, tmp_path / "view.pt")
    with modest(5, 100):
        assert checkpoints.read(tmp_path / "view.pt")["model"]["classifier.weight"].shape == shape
        with pytest.raises(InputError, match=r"view.pt: (a classifier of 1048576|holds no)"):
            checkpoints.open_trained(tmp_path / "view.pt")
        with pytest.raises(InputError, match="not the weights of the superpixel network"):
            checkpoints.load_scn(SuperpixelNet(), tmp_path / "view.pt")


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
