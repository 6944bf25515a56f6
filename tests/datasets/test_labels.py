import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.classes import coco_classes, read_class_list, voc_classes
from datasets.files import InputError
from datasets.labels import (
    read_csv_labels,
    read_labels_json,
    write_csv_labels,
    write_labels_json,
    xml_labels,
)
from tests.conftest import annotation

CLASSES = ("cat", "dog", "person")

in_any_folder = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# --- class lists ----------------------------------------------------------------------------------


def test_committed_classes():
    assert len(voc_classes()) == 20 and voc_classes()[14] == "person"
    assert len(coco_classes()) == 80 and coco_classes()[::79] == ("person", "toothbrush")


def test_own_class_list(tmp_path):
    (tmp_path / "labels.txt").write_text("Background\nleaf\nstem of it\n")
    assert read_class_list(tmp_path / "labels.txt") == ("leaf", "stem of it")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no class in it"),
        ("background\n", "no class in it"),
        ("leaf\nBackground\n", "'Background' is no class of objects; remove the line"),
        ("_background_\nleaf\n", "'_background_' is no class of objects"),
        ("a\nb\na\n", "'a' appears twice"),
        ("a\nb\x07\n", "not a class name"),
        ("\n".join(f"c{i}" for i in range(255)), "255 classes; label maps hold at most 254"),
    ],
)
def test_bad_class_lists(tmp_path, text, message):
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(InputError, match=f"labels.txt: .*{message}"):
        read_class_list(tmp_path / "labels.txt")


# --- XML ------------------------------------------------------------------------------------------


def labels_of_xml(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return xml_labels(path, CLASSES).tolist()


def test_every_object_counts_and_no_part(tmp_path):
    # The first object is difficult, and each has a part named head, which is no class.
    text = annotation("person", "cat", "cat")
    assert labels_of_xml(tmp_path / "a.xml", text) == [1, 0, 1]
    assert labels_of_xml(tmp_path / "a.xml", text.encode("utf-16")) == [1, 0, 1]
    assert labels_of_xml(tmp_path / "a.xml", annotation()) == [0, 0, 0]


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "dog"><!ENTITY c "&b;&b;&b;&b;">]>
<annotation><object><name>&c;</name></object></annotation>"""


@pytest.mark.parametrize(
    "text, message",
    [
        (annotation("zebra"), "unknown class 'zebra'; the classes are cat, dog, person"),
        (annotation("dog")[:-20], "truncated or not XML"),
        ("", "truncated or not XML"),
        ("not XML", "truncated or not XML"),
        ("<html><object/></html>", "not a VOC annotation but <html>"),
        (BOMB, "document type or entities"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
        ("<annotation><object><name>&other;</name></object></annotation>", "not XML"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not XML"),
        ("<annotation>" + "<object>" * 200_000, "truncated or not XML"),
    ],
)
def test_bad_xml(tmp_path, text, message):
    with pytest.raises(InputError, match=f"a.xml: .*{message}"):
        labels_of_xml(tmp_path / "a.xml", text)


def test_missing_and_huge_xml(tmp_path):
    with pytest.raises(InputError, match="a.xml: no such file"):
        xml_labels(tmp_path / "a.xml", CLASSES)
    with pytest.raises(InputError, match="too many for one photograph's annotation"):
        labels_of_xml(tmp_path / "a.xml", b" " * 10_000_001)


@in_any_folder
@given(st.data())
def test_damaged_xml_is_read_or_refused(tmp_path, mutated, data):
    text = data.draw(mutated(annotation("person", "cat").encode()))
    try:
        assert len(labels_of_xml(tmp_path / "a.xml", text)) == 3
    except InputError as error:
        assert "a.xml" in str(error)


NAMES = st.text("ab ,'\"é", min_size=1).filter(lambda name: name == name.strip())
"""Of photographs and classes."""


# --- CSV ------------------------------------------------------------------------------------------


def from_csv(path, text, classes=None):
    path.write_bytes(text.encode(errors="surrogateescape"))
    names, labels = read_csv_labels(path, classes)
    return names, {key: value.tolist() for key, value in labels.items()}


def test_csv(tmp_path):
    text = '\ufeffID,class\r\n# mine\r\na.JPG, dog ,cat\r\n"b, 1",cat,\r\n\r\nc.d\r\n'
    names, labels = from_csv(tmp_path / "l.csv", text)
    assert names == ("cat", "dog")
    assert labels == {"a": [1, 1], "b, 1": [1, 0], "c.d": [0, 0]}
    names, labels = from_csv(tmp_path / "l.csv", text, ("dog", "cat", "cow"))
    assert names == ("dog", "cat", "cow")
    assert labels["b, 1"] == [0, 1, 0]


@pytest.mark.parametrize("header", ["id", "ID,names", "filename,label", "image,Classes,notes", "#"])
def test_headers(tmp_path, header):
    names, labels = from_csv(tmp_path / "l.csv", f"{header}\na,dog\nb,cat\n")
    assert names == ("cat", "dog") and labels == {"a": [0, 1], "b": [1, 0]}


@pytest.mark.parametrize("first", ["id", "image"])
def test_a_table_of_zeros_and_ones(tmp_path, first):
    text = f"{first},dog,cat,cow\na.jpg,1,0,0\nb,1,1,0\nc,0,0,0\n"
    names, labels = from_csv(tmp_path / "l.csv", text, ("cat", "cow", "dog"))
    assert labels == {"a": [0, 0, 1], "b": [1, 0, 1], "c": [0, 0, 0]}
    # Classes may be called so: then there is no name above them.
    names, labels = from_csv(tmp_path / "l.csv", "id,class\na,1\nb,0\n")
    assert names == ("0", "1") and labels == {"a": [0, 1], "b": [1, 0]}
    names, labels = from_csv(tmp_path / "l.csv", "a,1\nb,0\n")
    assert names == ("0", "1")


def test_classes_may_be_called_as_headings_are(tmp_path):
    _, labels = from_csv(tmp_path / "l.csv", "a,label\nb,cap\n", ("cap", "label"))
    assert labels == {"a": [0, 1], "b": [1, 0]}
    digits = tuple(map(str, range(10)))
    (tmp_path / "l.csv").write_text("a,7\nb,1\nc,0\n")
    _, labels = read_csv_labels(tmp_path / "l.csv", digits)
    assert {key: vector.nonzero()[0].tolist() for key, vector in labels.items()} == {
        "a": [7],
        "b": [1],
        "c": [0],
    }


@in_any_folder
@given(labelled=st.dictionaries(NAMES, st.lists(NAMES, unique=True)))
def test_what_is_written_is_read(tmp_path, labelled):
    """By the names of files, whose endings are no part of ids; those may end so themselves."""
    labelled |= {"photo, 1": ["dog"], "q.jpg": []}
    write_csv_labels(tmp_path / "l.csv", {f"{i}.png": labelled[i] for i in labelled})
    names, labels = read_csv_labels(tmp_path / "l.csv")
    assert set(names) == {name for found in labelled.values() for name in found}
    assert labels.keys() == labelled.keys()
    for identifier, vector in labels.items():
        assert {names[k] for k in vector.nonzero()[0]} == set(labelled[identifier])


def test_ids_may_hold_semicolons(tmp_path):
    _, labels = from_csv(tmp_path / "l.csv", "a;b,cat\nc;d\n")
    assert labels == {"a;b": [1], "c;d": [0]}


def test_one_class_a_line(tmp_path):
    text = "id,label\na.jpg,dog\nb,cat\na.jpg,cat\nc,\nb,cat\n"
    _, labels = from_csv(tmp_path / "l.csv", text)
    assert labels == {"a": [1, 1], "b": [1, 0], "c": [0, 0]}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no line of the form id,class"),
        ("id,class\n# nothing\n", "no line of the form id,class"),
        ("a,cat\nb,cat,dog\na.png,dog\n", "line 3: the id 'a' appears twice.*as line 2 does"),
        ("id,cat,dog\na,1,0\na,0,1\n", "line 3: the id 'a' appears twice"),
        ("id,cat\na,1\na,0\n", "line 3: the id 'a' appears twice"),
        ("a,cat\nb,cow\n", "line 2: unknown class 'cow'"),
        ("../a,cat\n", "line 1: the id '../a' is not a plain file name"),
        ("id;class\na.jpg;cat\nb;\n", "separate by commas, not by semicolons: id,class"),
        ("a;dog,cat\nb.jpg;cat\n", "separate by commas, not by semicolons"),
        ("id;class\na.jpg;cat\nb\n", "separate by commas, not by semicolons"),
        ("id\tclass\na.jpg\tcat\nb\n", "separate by commas, not by tabs"),
        ("id,cat,dog\na,1,2\n", "unknown class '1'"),
        (",cat\n", "line 1: the id '' is not a plain"),
        ("a,\udcff\n", "not a text file in UTF-8"),
        ("a," + "x" * 200_000, "line 1: not CSV"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(InputError, match=f"l.csv.*{message}"):
        from_csv(tmp_path / "l.csv", text, ("cat", "dog"))


def test_csv_without_any_class(tmp_path):
    with pytest.raises(InputError, match="no class in it"):
        from_csv(tmp_path / "l.csv", "a\nb\n")
    with pytest.raises(InputError, match="300 classes"):
        from_csv(tmp_path / "l.csv", "a," + ",".join(f"c{i}" for i in range(300)))


@in_any_folder
@given(st.data())
def test_damaged_csv_is_read_or_refused(tmp_path, mutated, data):
    path = tmp_path / "l.csv"
    path.write_bytes(
        data.draw(mutated(b'id,class\r\n# c\r\na.jpg,cat,dog\r\n"b",cat\r\nc,dog\r\n'))
    )
    for classes in (None, ("cat", "dog")):
        try:
            names, labels = read_csv_labels(path, classes)
            assert all(len(v) == len(names) for v in labels.values())
        except InputError as error:
            assert "l.csv" in str(error)


# --- labels.json ----------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.from_regex(r"[a-zü_-]([A-Z0-9 -]{0,7}[a-z0-9])?", fullmatch=True),
        st.sets(st.integers(0, 2)),
    )
)
def test_labels_json_holds_what_was_written(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "labels.json"
    vectors = {i: np.isin(np.arange(3), list(c)).astype(np.uint8) for i, c in content.items()}
    write_labels_json(path, CLASSES, vectors)
    classes, labels = read_labels_json(path)
    assert classes == CLASSES and labels.keys() == vectors.keys()
    assert all((labels[i] == vectors[i]).all() for i in labels)


@in_any_folder
@given(st.data())
def test_damaged_labels_json_is_read_or_refused(tmp_path, mutated, data):
    buffer = io.BytesIO(b'{"classes": ["cat", "dog"], "labels": {"a": [0, 1], "b": []}}')
    path = tmp_path / "labels.json"
    path.write_bytes(data.draw(mutated(buffer.getvalue())))
    try:
        classes, labels = read_labels_json(path)
        assert all(v.shape == (len(classes),) for v in labels.values())
    except InputError as error:
        assert "labels.json" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"classes": ["a"], "labels": []}',
        '{"classes": ["a"], "labels": {"x": [1]}}',
        '{"classes": ["a"], "labels": {"x": [-1]}}',
        '{"classes": ["a"], "labels": {"x": [true]}}',
        '{"classes": ["a"], "labels": {"x": 0}}',
        '{"classes": ["a"], "labels": {"../x": [0]}}',
        '{"classes": [1], "labels": {}}',
        '{"classes": 7, "labels": {}}',
        '{"classes": "ab", "labels": {"x": [0]}}',
        '{"classes": [], "labels": {}}',
        '{"classes": ["\\ud800"], "labels": {}}',
    ],
)
def test_bad_labels_json(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(InputError, match="labels.json: "):
        read_labels_json(tmp_path / "labels.json")
