import os

import numpy as np
import pytest

from datasets import check
from datasets.collection import require_labels
from datasets.files import InputError
from datasets.prepare import main
from datasets.prepared import PUBLISHED_LABELS, load_collection


def load(dataset, root, split="train", **options):
    return load_collection(dataset, root, split, **options)


def test_what_was_prepared_is_used(voc_root, capsys):
    assert main(["voc12", "--voc_root", str(voc_root)]) == 0
    capsys.readouterr()
    collection = load("voc12", voc_root)
    assert capsys.readouterr() == ("", "")
    require_labels(collection)


def test_what_was_not_prepared_is_prepared_once(voc_root, capsys):
    first = load("voc12", voc_root)
    assert "is not prepared yet, or has changed; preparing it now" in capsys.readouterr().out
    second = load("voc12", voc_root)
    assert capsys.readouterr().out == ""
    assert first.ids == second.ids and first.classes == second.classes
    assert all((first.labels[i] == second.labels[i]).all() for i in first.ids)


@pytest.mark.parametrize("change", ["list", "annotation", "mask", "photograph"])
def test_a_changed_source_is_prepared_anew(voc_root, capsys, change):
    load("voc12", voc_root)
    if change == "list":
        (voc_root / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000002\n")
    elif change == "annotation":
        (voc_root / "Annotations" / "2007_000001.xml").unlink()
    elif change == "mask":
        (voc_root / "SegmentationClassAug" / "2007_000004.png").unlink()
    else:
        (voc_root / "JPEGImages" / "new.jpg").touch()
    capsys.readouterr()
    ids = load("voc12", voc_root).ids
    assert "preparing it now" in capsys.readouterr().out
    assert len(ids) == (1 if change == "list" else 2)


def test_annotations_edited_in_place_are_noticed_beside_a_broken_link(voc_root):
    annotations = voc_root / "Annotations"
    (annotations / "old.xml").symlink_to("nowhere.xml")
    before = load("voc12", voc_root).labels["2007_000001"]
    xml = annotations / "2007_000001.xml"
    xml.write_text(xml.read_text().replace("<name>dog<", "<name>cow<"))
    os.utime(xml, ns=(0, annotations.stat().st_mtime_ns + 10**9))
    assert not np.array_equal(load("voc12", voc_root).labels["2007_000001"], before)


def test_lists_of_one_root_are_not_used_with_another(voc_root, prepared, tmp_path, capsys):
    load("voc12", voc_root)
    other = tmp_path / "other"
    voc_root.rename(other)
    (other / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000002\n")
    assert load("voc12", other).ids == ("2007_000002",)
    assert len(list(prepared.iterdir())) == 2


def test_a_link_to_a_root_is_that_root(voc_root, prepared, tmp_path):
    (tmp_path / "link").symlink_to(voc_root)
    load("voc12", voc_root)
    load("voc12", tmp_path / "link")
    assert len(list(prepared.iterdir())) == 1


@pytest.mark.parametrize("name", ["meta.json", "labels.json", "train.txt"])
@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_damaged_preparations_are_made_anew(voc_root, prepared, name, damage):
    whole = load("voc12", voc_root, quiet=True)
    (path,) = prepared.rglob(name)
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(b"" if name == "train.txt" else content[:-9])
    again = load("voc12", voc_root, quiet=True)
    assert again.ids == whole.ids and again.labels.keys() == whole.labels.keys()
    assert path.read_bytes() == content


def test_unwritable_preparations_are_made_each_time(voc_root, prepared, capsys):
    prepared.touch()
    for _ in range(2):
        collection = load("voc12", voc_root)
        assert len(collection.ids) == 2
        assert any("made anew each time" in note for note in collection.notes)
    assert main(["voc12", "--voc_root", str(voc_root)]) == 2
    assert "error: cannot write" in capsys.readouterr().err


def test_quiet(voc_root, capsys):
    load("voc12", voc_root, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_labels_files(voc_root, tmp_path):
    vectors = {2007000001: np.eye(20)[2], 2007000002: np.eye(20)[3], 2011000009: np.eye(20)[0]}
    np.save(tmp_path / "l.npy", np.array(vectors), allow_pickle=True)
    collection = load("voc12", voc_root, labels_file=tmp_path / "l.npy", quiet=True)
    assert {i: v.argmax() for i, v in collection.labels.items()} == {
        "2007_000001": 2,
        "2007_000002": 3,
    }
    (tmp_path / "l.csv").write_text("2007_000001.jpg,cow\n")
    collection = load("voc12", voc_root, labels_file=tmp_path / "l.csv", quiet=True)
    assert [collection.classes[k] for k in collection.labels["2007_000001"].nonzero()[0]] == ["cow"]
    with pytest.raises(InputError, match="no image-level label for '2007_000002'"):
        require_labels(collection)


def test_a_labels_file_stands_for_unreadable_annotations(voc_root, tmp_path):
    xml = voc_root / "Annotations/2007_000001.xml"
    xml.write_text(xml.read_text().replace("<name>", "<name>un"))
    (tmp_path / "l.csv").write_text("2007_000001.jpg,cow\n2007_000002,dog\n")
    for _ in range(2):  # when lists are made, and when they are read again
        collection = load("voc12", voc_root, labels_file=tmp_path / "l.csv", quiet=True)
        assert collection.labels.keys() == {"2007_000001", "2007_000002"}
        assert not any("2007_000001.xml" in note for note in collection.notes)
        with pytest.raises(InputError, match="2007_000001.xml: unknown class"):
            load("voc12", voc_root, quiet=True)


def published_file(path, labels):
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.array(labels, dtype=object), allow_pickle=True)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Where the published steps put VOC's label file; nothing is there yet."""
    path = tmp_path / "data" / "voc" / "cls_labels.npy"
    path.parent.mkdir(parents=True)
    monkeypatch.setitem(PUBLISHED_LABELS, "voc12", path)
    return path


def classes_of(collection):
    names = collection.classes
    return {i: [names[k] for k in v.nonzero()[0]] for i, v in collection.labels.items()}


def test_published_labels_are_found_where_the_published_steps_put_them(voc_root, published):
    assert load("voc12", voc_root).notes == ()
    published_file(published, {"2007_000001": np.eye(20)[9], "2010_999999": np.eye(20)[0]})
    collection = load("voc12", voc_root)
    assert classes_of(collection) == {"2007_000001": ["cow"], "2007_000002": ["cat"]}
    (note,) = collection.notes
    assert f"labels of 1 photographs come from {published}, not from the annotations" in note
    assert "move that file away" in note
    published.unlink()  # nothing of it was kept among the prepared labels
    assert classes_of(load("voc12", voc_root))["2007_000001"] == ["dog", "person"]


def test_a_labels_file_comes_before_the_published_one(voc_root, published, tmp_path):
    published_file(published, {"2007_000001": np.eye(20)[9]})
    (tmp_path / "l.csv").write_text("2007_000001,bus\n2007_000002,bus\n")
    collection = load("voc12", voc_root, labels_file=tmp_path / "l.csv")
    assert classes_of(collection) == {"2007_000001": ["bus"], "2007_000002": ["bus"]}
    assert collection.notes == ()


def test_published_labels_are_enough(voc_root, published):
    (voc_root / "Annotations").rename(voc_root / "elsewhere")
    published_file(published, {f"2007_00000{k}": np.eye(20)[k] for k in range(1, 6)})
    require_labels(load("voc12", voc_root, "train_aug"))


def test_published_labels_that_cannot_be_read_or_belong_elsewhere(voc_root, published):
    published_file(published, {"2010_999999": np.eye(20)[0]})
    (note,) = load("voc12", voc_root).notes
    assert note == f"{published} is not used: it has none of the data set's photographs"
    published.write_bytes(b"")
    with pytest.raises(InputError, match="cls_labels.npy: not a label file"):
        load("voc12", voc_root)


@pytest.mark.parametrize("command", [main, check.main])
def test_commands_say_that_published_labels_are_used(command, voc_root, published, capsys):
    published_file(published, {"2007_000001": np.eye(20)[9]})
    dataset = ["voc12"] if command is main else []
    assert command([*dataset, "--voc_root", str(voc_root), "--workers", "1"]) == 0
    assert f"note: image-level labels of 1 photographs come from {published}" in (
        capsys.readouterr().out
    )


def test_notes_are_those_of_the_split_and_are_kept(voc_root, capsys):
    (voc_root / "SegmentationClassAug").rename(voc_root / "SegmentationClass")
    (voc_root / "Annotations" / "2007_000002.xml").unlink()
    for _ in range(2):  # prepared, then read back
        train_aug, val = (load("voc12", voc_root, split) for split in ("train_aug", "val"))
        assert ["train_aug is the train list" in note for note in train_aug.notes] == [True, False]
        assert len(val.notes) == 1 and "1 photographs have no XML" in val.notes[0]
        assert train_aug.subset(train_aug.ids[:1]).notes == train_aug.notes
        assert isinstance(train_aug.notes, tuple)
    assert "train_aug is the train list" not in capsys.readouterr().out  # left to the run


@pytest.mark.parametrize("notes", ["[7]", '["text"]', "null", '[{"text": 7}]', '[{"other": "a"}]'])
def test_preparations_with_other_notes_are_made_anew(voc_root, prepared, notes):
    """As an earlier version of this project wrote them, or damaged."""
    load("voc12", voc_root, quiet=True)
    (path,) = prepared.rglob("meta.json")
    text = path.read_text()
    path.write_text(text.replace('"notes": []', f'"notes": {notes}'))
    assert path.read_text() != text
    assert load("voc12", voc_root, quiet=True).notes == ()
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text, message",
    [
        ("2007_000001,zebra\n", "l.csv, line 1: unknown class 'zebra'"),
        ("other,cow\n", "l.csv: it has none of the data set's photographs"),
    ],
)
def test_bad_labels_files(voc_root, tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load("voc12", voc_root, labels_file=tmp_path / "l.csv", quiet=True)


def test_labels_file_of_another_class_count(custom_root, shared):
    file = shared / "published" / "voc12_cls_labels.npy"
    with pytest.raises(InputError, match="labels of 20 classes, but the data set has 2"):
        load("custom", custom_root, labels_file=file, quiet=True)


@pytest.mark.parametrize(
    "dataset, root, message",
    [
        ("voc", ".", "--dataset voc: unknown; it is one of voc12, coco, custom"),
        ("voc12", None, "voc12: the data set's root is not set; give --voc_root or VOC_ROOT"),
        ("voc12", "", "voc12: the data set's root is not set"),
        ("coco", "nowhere", "nowhere: no such folder; set --coco_root or COCO_ROOT"),
        ("coco", ".", "no train2014 and no annotations/instances_train2014.json in it"),
        ("voc12", ".", "no JPEGImages and .* in it; voc12 needs .* set --voc_root or VOC_ROOT"),
        ("custom", ".", "no labels.txt and no JPEGImages in it"),
    ],
)
def test_bad_roots(tmp_path, dataset, root, message):
    with pytest.raises(InputError, match=message):
        load(dataset, root and tmp_path / root)


def test_unknown_split(voc_root):
    with pytest.raises(InputError, match="voc12 has no such split; it has train, train_aug, val"):
        load("voc12", voc_root, "test", quiet=True)
