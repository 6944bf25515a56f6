import os
import pickle
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.files import InputError
from datasets.published_labels import read_published_labels


def label_file(path, content, protocol=None):
    """`content` as np.save writes it; with a pickle protocol, as another numpy wrote it."""
    array = np.array(content)
    if protocol is None:
        np.save(path, array, allow_pickle=True)
    else:
        header = b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }"
        path.write_bytes(header.ljust(79) + b"\n" + pickle.dumps(array, protocol))
    return path


def vector(*indices, dtype=np.float32):
    values = np.zeros(20, dtype)
    values[list(indices)] = 1
    return values


def read(path):
    return {
        key: np.flatnonzero(value).tolist() for key, value in read_published_labels(path).items()
    }


@pytest.mark.parametrize("protocol", [None, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, ">f4", bool])
def test_published_labels_of_any_type(tmp_path, protocol, dtype):
    content = {"2007_000032": vector(0, 14, dtype=dtype), "b": vector(dtype=dtype)}
    path = label_file(tmp_path / "l.npy", content, protocol)
    assert read(path) == {"2007_000032": [0, 14], "b": []}
    assert all(
        v.dtype == np.uint8 and v.shape == (20,) for v in read_published_labels(path).values()
    )


@pytest.mark.parametrize("protocol", [None, 2])
@pytest.mark.parametrize("integer", [int, np.int32, np.int64, np.uint32])
def test_integer_ids(tmp_path, protocol, integer):
    content = {integer(2007000032): vector(1), integer(9): vector(2), integer(581929): vector()}
    path = label_file(tmp_path / "l.npy", content, protocol)
    assert read(path) == {"2007_000032": [1], "9": [2], "581929": []}


@pytest.mark.parametrize(
    "old, new", [(b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")]
)
def test_names_of_numpy_1_and_2(tmp_path, old, new):
    path = label_file(tmp_path / "l.npy", {np.int32(7): vector(3)}, protocol=2)
    path.write_bytes(path.read_bytes().replace(old, new))
    assert read(path) == {"7": [3]}


@pytest.mark.parametrize("name", ["voc12_cls_labels", "voc12_cls_labels_integer_keys"])
def test_the_published_files(shared, name):
    path = shared / "published" / f"{name}.npy"
    labels = read_published_labels(path)
    lists = [
        (shared / "published" / f"voc12_{s}.txt").read_text().split() for s in ("train_aug", "val")
    ]
    assert [len(ids) for ids in lists] == [10582, 1449]
    assert labels.keys() == {identifier for ids in lists for identifier in ids}
    assert {len(v) for v in labels.values()} == {20}
    trusted = np.load(path, allow_pickle=True).item()
    assert len(trusted) == len(labels)
    for key, value in trusted.items():
        digits = str(key).replace("_", "")
        np.testing.assert_array_equal(labels[f"{digits[:4]}_{digits[4:]}"], value)


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [None, 2, 3, 4])
@pytest.mark.parametrize(
    "function, name",
    [(os.system, "system"), (eval, "eval"), (os.mkdir, "mkdir"), (np.save, "save")],
)
def test_malicious_pickles_are_refused_by_name_and_not_run(tmp_path, protocol, function, name):
    ran = tmp_path / "ran"
    argument = {"system": f"touch {ran}", "eval": f"open({str(ran)!r}, 'w')"}.get(name, str(ran))
    content = {"a": vector(1), "b": Malicious(function, argument)}
    path = label_file(tmp_path / "labels.npy", content, protocol)
    with pytest.raises(InputError, match=f"labels.npy: it asks for '[a-z._]+{name}'.*refused"):
        read_published_labels(path)
    assert not ran.exists()


HEADER = (
    b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117)
)
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"

TYPE = b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R"
OBJECT = b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R"
DOUBLED = b")q\0" + b"".join(b"h%c\x86q%c" % (k, k + 1) for k in range(60))
LONG = (3000).to_bytes(4, "little") + b"\x7f" * 3000  # 7000 digits, which Python does not print


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02cbuiltins\ngetattr\n.",
        b"\x80\x02cnumpy\nfromfile\n.",
        b"\x80\x02X\x01\x00\x00\x00aQ.",  # a persistent id
        b"\x80\x02\x82\x01.",  # the extension registry
        b"\x80\x02N\x81.",
        b"\x80\x02(ios\nsystem\n.",
        b"\x80\x02]r\xff\xff\xff\xff.",  # a memo index that makes Python's unpickler allocate 32 GB
        b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.",  # a key whose hash overflows the C stack
        b"\x80\x02}(" + b")" + b"\x85" * 200_000 + b"Nu.",
        b"\x80\x02]K\x00}" + b")" + b"\x85" * 200_000 + b"Nss.",
        b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f" + b"a.",  # a text of 2**63 - 1 bytes
        b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f" + b"N.",  # a frame of as many
        b"\x80\x02cnumpy\nndarray\nN}X\x06\x00\x00\x00valuesNs\x86b.",  # would change a class
        b"\x80\x02c_codecs\nencode\n}X\x0c\x00\x00\x00__defaults__)sb.",
        b"\x80\x02X\x04\x00\x00\x00evilN\x86b.",
        b"\x80\x05" + b"(" * 50_000 + b".",
        b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
        b"\x80\x02K\x01h\x07.",
        b".",
        b"",
        b"\x80\x02" + ARRAY + b".",
        b"\x80\x02cnumpy\ndtype\n" + DOUBLED + b"\x85R.",  # a type whose text would never end
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R(K\x03" + DOUBLED + b"tb.",
        b"\x80\x02" + ARRAY + b"(K\x01" + DOUBLED + TYPE + b"NC\x08" + bytes(8) + b"tb.",
        b"\x80\x02" + ARRAY + b"(K\x01)" + OBJECT + b"N]}\x8b" + LONG + b"Nsatb.",
    ],
)
def test_hostile_pickles(tmp_path, pickled):
    (tmp_path / "l.npy").write_bytes(HEADER + b"\n" + pickled)
    start = time.process_time()
    with pytest.raises(InputError, match="l.npy: "):
        read_published_labels(tmp_path / "l.npy")
    assert time.process_time() - start < 5


def test_bytes_cannot_multiply(tmp_path):
    # One text of 100 kB, encoded 1000 times by five bytes each.
    text = b"X" + (100_000).to_bytes(4, "little") + b"a" * 100_000 + b"q\x00"
    again = b"h\x01h\x00h\x02\x86R"
    latin = b"X\x06\x00\x00\x00latin1q\x02"
    pickled = b"\x80\x02" + text + b"c_codecs\nencode\nq\x01" + latin + again * 1000 + b"."
    (tmp_path / "l.npy").write_bytes(HEADER + b"\n" + pickled)
    with pytest.raises(InputError, match="more bytes than the file has"):
        read_published_labels(tmp_path / "l.npy")


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "no dict of labels"),
        ([vector(1)], "not a label file"),
        ("text", "not a label file"),
        ({"a": vector(1) * np.nan}, "label of a has values other than 0 and 1"),
        ({"a": np.full(20, np.inf)}, "label of a has values other than 0 and 1"),
        ({"a": vector(1) * 2}, "label of a has values other than 0 and 1"),
        ({"a": vector(1) - 0.5}, "label of a has values other than 0 and 1"),
        ({"a": vector(1), "b": vector(1)[:5]}, "labels of 5 and of 20 classes"),
        ({"a": vector(1).reshape(4, 5)}, "shape"),
        ({"a": np.zeros(0, np.float32)}, "label of a is not a vector"),
        ({"a": np.zeros(300, np.float32)}, "label of a is not a vector"),
        ({"a": 1}, "label of a is not a vector"),
        ({"a": [0, 1]}, "label of a is not a vector"),
        ({"a": np.array(["0", "1"])}, "damaged"),
        ({"a": np.array([None, None])}, "damaged"),
        ({"a": np.zeros(3, complex)}, "damaged"),
        ({"../a": vector(1)}, "not a plain file name"),
        ({(1, 2): vector(1)}, "neither a string nor an integer"),
        ({2007000032: vector(1), "2007_000032": vector(1)}, "'2007_000032' appears twice"),
    ],
)
def test_bad_contents(tmp_path, content, message):
    path = tmp_path / "l.npy"
    array = np.empty((), object)
    array[()] = content
    np.save(path, array, allow_pickle=True)
    with pytest.raises(InputError, match=f"l.npy: .*{message}"):
        read_published_labels(path)


def test_damaged_files(tmp_path):
    path = label_file(tmp_path / "l.npy", {"a": vector(1), "b": vector(2)})
    whole = path.read_bytes()
    for end in (0, 5, 60, 128, 200, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="l.npy: (not a label|truncated)"):
            read_published_labels(path)
    np.save(path, np.zeros((3, 20)))
    with pytest.raises(InputError, match="not a label file"):
        read_published_labels(path)
    with pytest.raises(InputError, match="no such file"):
        read_published_labels(tmp_path / "none.npy")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([2, 4]))
def test_damaged_label_files_are_read_or_refused(tmp_path, mutated, data, protocol):
    path = tmp_path / "l.npy"
    content = {"2007_000032": vector(1), np.int32(9): vector(2, 3), 5: vector()}
    label_file(path, content, protocol)
    path.write_bytes(data.draw(mutated(path.read_bytes())))
    try:
        assert all(v.dtype == np.uint8 for v in read_published_labels(path).values())
    except InputError as error:
        assert "l.npy" in str(error)
