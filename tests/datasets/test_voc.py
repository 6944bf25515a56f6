import shutil

import numpy as np
import pytest

from datasets.collection import missing_labels, missing_masks, missing_saliency, require_labels
from datasets.files import InputError
from datasets.images import read_label_map, read_photograph
from datasets.prepared import load_collection
from tests.conftest import SIZE, annotation


@pytest.fixture
def load(voc_root):
    def load(split="train", quiet=True, **options):
        return load_collection("voc12", voc_root, split, quiet=quiet, **options)

    return load


def test_splits(load):
    assert load("train").ids == ("2007_000001", "2007_000002")
    assert load("val").ids == ("2007_000003",)
    assert load("train_aug").ids == ("2007_000001", "2007_000002", "2007_000004", "2007_000005")


def test_collection(load, voc_root):
    collection = load("train_aug")
    assert (collection.name, collection.split, collection.num_classes) == ("voc12", "train_aug", 21)
    names = {
        i: [collection.classes[k] for k in np.flatnonzero(v)] for i, v in collection.labels.items()
    }
    assert names == {
        "2007_000001": ["dog", "person"],
        "2007_000002": ["cat"],
        "2007_000004": ["dog"],
        "2007_000005": ["bus"],
    }
    for identifier in collection.ids:
        assert read_photograph(collection.images[identifier]).shape == (*SIZE, 3)
        mask = read_label_map(collection.mask_path(identifier))
        classes = {collection.classes.index(n) + 1 for n in names[identifier]}
        assert set(np.unique(mask)) == {0, 255} | classes
    assert collection.saliency == voc_root / "saliency_map"
    assert missing_labels(collection) == missing_masks(collection) == []
    assert missing_saliency(collection) == []
    require_labels(collection)


def test_without_augmentation_train_aug_is_train_and_says_so(load, voc_root):
    (voc_root / "SegmentationClassAug").rename(voc_root / "SegmentationClass")
    augmented = load("train_aug")
    assert augmented.ids == load("train").ids
    assert any("train_aug is the train list" in note for note in augmented.notes)
    assert load("train").masks == voc_root / "SegmentationClass"


def test_train_aug_may_have_a_list(load, voc_root):
    """So that SBD's photographs can be trained on without its masks."""
    (voc_root / "SegmentationClassAug").rename(voc_root / "elsewhere")
    lists = voc_root / "ImageSets/Segmentation"
    load("train_aug")
    (lists / "train_aug.txt").write_text("2007_000005\n2007_000001\n")
    listed = load("train_aug")
    assert listed.ids == ("2007_000005", "2007_000001") and listed.notes == ()
    require_labels(listed)
    (lists / "train_aug.txt").write_text("2007_000001\n2007_000003\n")
    [note] = load("train_aug").notes
    assert note.startswith("photographs in both train_aug.txt and val.txt")
    assert note.endswith("too high: 1, such as 2007_000003")


def test_other_lists_are_splits(load, voc_root):
    lines = "JPEGImages/2007_000002.jpg\n/JPEGImages/2007_000004.jpg /Aug/2007_000004.png\n"
    (voc_root / "ImageSets/Segmentation/fold.txt").write_text(lines)
    fold = load("fold")
    assert fold.ids == ("2007_000002", "2007_000004") and fold.split == "fold"
    require_labels(fold)
    shutil.rmtree(voc_root / "SegmentationClassAug")  # 2007_000004 is now in no other list
    assert load("fold").labels["2007_000004"].any()
    xml = voc_root / "Annotations/2007_000004.xml"
    xml.write_text(xml.read_text().replace("<name>", "<name>un"))
    with pytest.raises(InputError, match="2007_000004.xml: unknown class"):
        load("fold")
    xml.unlink()
    assert "2007_000004" not in load("fold").labels
    with pytest.raises(InputError, match="--split folds: voc12 has no such split"):
        load("folds")


def test_without_masks_or_saliency(load, voc_root):
    (voc_root / "SegmentationClassAug").rename(voc_root / "elsewhere")
    (voc_root / "saliency_map").rename(voc_root / "maps")
    collection = load("train")
    assert collection.masks is None and collection.saliency is None
    assert missing_masks(collection) == missing_saliency(collection) == list(collection.ids)
    with pytest.raises(InputError, match="voc12 train has no masks"):
        collection.mask_path("2007_000001")
    assert load("train", saliency=voc_root / "maps").saliency == voc_root / "maps"
    with pytest.raises(
        InputError, match="nowhere: no such folder .* --voc_sal_root or VOC_SAL_ROOT"
    ):
        load("train", saliency=voc_root / "nowhere")


def test_missing_files_are_listed(load, voc_root):
    (voc_root / "saliency_map" / "2007_000002.png").unlink()
    (voc_root / "SegmentationClassAug" / "2007_000001.png").unlink()
    (voc_root / "Annotations" / "2007_000002.xml").unlink()
    collection = load("train")
    assert missing_saliency(collection) == ["2007_000002"]
    assert missing_masks(collection) == ["2007_000001"]
    assert missing_labels(collection) == ["2007_000002"]
    assert any("1 photographs have no XML" in note for note in collection.notes)
    with pytest.raises(InputError, match="no image-level label for '2007_000002' .*000002.jpg"):
        require_labels(collection)


def test_photograph_without_any_object(load, voc_root):
    (voc_root / "Annotations" / "2007_000002.xml").write_text(annotation())
    with pytest.raises(InputError, match="no class at all in '2007_000002' .*000002.jpg"):
        require_labels(load("train"))


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("ImageSets/Segmentation/train.txt", "", "train.txt: the list is empty"),
        ("ImageSets/Segmentation/val.txt", "a\na\n", "val.txt: the id 'a' appears twice"),
        ("ImageSets/Segmentation/train.txt", "no\n", "no photograph for 'no' of the list"),
        ("ImageSets/Segmentation/train.txt", "../no\n", "not a plain file name"),
        ("Annotations/2007_000001.xml", annotation("zebra"), "000001.xml: unknown class 'zebra'"),
        ("Annotations/2007_000001.xml", "<annotation>", "000001.xml: truncated"),
        ("JPEGImages/2007_000001.png", "", "000001.jpg and 2007_000001.png have the same id"),
    ],
)
def test_broken_trees(load, voc_root, name, text, message):
    (voc_root / name).write_text(text)
    with pytest.raises(InputError, match=message):
        load("train")


def test_missing_photograph(load, voc_root):
    (voc_root / "JPEGImages" / "2007_000001.jpg").unlink()
    (voc_root / "JPEGImages" / "2007_000002.jpg").unlink()
    with pytest.raises(InputError, match="no photograph for '2007_000001' and 1 more of the list"):
        load("train")


def test_published_lists(shared, tmp_path):
    """A tree with the published lists gives the published counts."""
    published = shared / "published"
    ids = {
        s: (published / f"voc12_{s}.txt").read_text().split() for s in ("train", "val", "train_aug")
    }
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split in ("train", "val"):
        text = "".join(f"{identifier}\n" for identifier in ids[split])
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(text)
    for identifier in {*ids["train_aug"], *ids["val"]}:
        (root / "JPEGImages" / f"{identifier}.jpg").touch()
        (root / "SegmentationClassAug" / f"{identifier}.png").touch()
    counts = {}
    for split in ids:
        collection = load_collection(
            "voc12",
            root,
            split,
            labels_file=published / "voc12_cls_labels.npy",
            quiet=True,
        )
        assert sorted(collection.ids) == sorted(ids[split])
        require_labels(collection)
        counts[split] = len(collection.ids)
    assert counts == {"train": 1464, "val": 1449, "train_aug": 10582}


def test_real_photographs(shared):
    for split, count in (("train", 195), ("val", 39), ("train_aug", 195)):
        root = shared / "coco_mini_voc"
        collection = load_collection("voc12", root, split, quiet=True)
        assert len(collection.ids) == count
        require_labels(collection)
        assert missing_masks(collection) == missing_saliency(collection) == []
        identifier = collection.ids[0]
        classes = set(np.unique(read_label_map(collection.mask_path(identifier)))) - {0, 255}
        assert classes == set(np.flatnonzero(collection.labels[identifier]) + 1)
