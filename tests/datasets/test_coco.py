import json
import os
import shutil

import numpy as np
import pytest

from datasets.classes import coco_classes
from datasets.collection import require_labels
from datasets.files import InputError
from datasets.prepared import load_collection


def names(split, *numbers):
    return tuple(f"COCO_{split}2014_{number:012d}" for number in numbers)


def test_lists_and_labels(load_coco):
    train, val = load_coco("train"), load_coco("val")
    assert train.ids == names("train", 1, 2)  # the third has no object
    assert val.ids == names("val", 1, 2)
    assert train.num_classes == 81
    present = {i: [coco_classes()[k] for k in np.flatnonzero(v)] for i, v in train.labels.items()}
    assert list(present.values()) == [["person", "dog"], ["car", "toothbrush"]]
    assert np.flatnonzero(val.labels[val.ids[0]]).tolist() == [56]  # category 62 is the 57th: chair
    assert not val.labels[val.ids[1]].any()
    require_labels(train)
    assert train.masks is None


def test_one_split_alone(load_coco, coco_root):
    shutil.rmtree(coco_root / "val2014")
    (coco_root / "annotations" / "instances_val2014.json").unlink()
    assert load_coco("train").ids == names("train", 1, 2)
    with pytest.raises(
        InputError,
        match=r"coco has no such split \(no .*instances_val2014.json: .*; it has train",
    ):
        load_coco("val")


def changed(content, path, value):
    """A copy of a JSON value with something else under a path of keys."""
    copy = json.loads(json.dumps(content))
    target = copy
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    "path, value, message",
    [
        (["images"], None, "no list 'images'"),
        (["annotations"], {}, "no list 'annotations'"),
        (["images", 0], 7, r"images\[0\] has no 'id'"),
        (["images", 0, "id"], "1", r"images\[0\] has no 'id'"),
        (["images", 0, "height"], 24.5, r"images\[0\] has no 'height'"),
        (["images", 0, "height"], -24, "has no size"),
        (["images", 0, "file_name"], "../../x.jpg", "not a plain file name"),
        (["images", 1, "file_name"], "COCO_train2014_000000000001.jpg", "appears twice"),
        (["images", 1, "id"], 1, "two photographs have the same number"),
        (["images", 0, "file_name"], "other.jpg", "no photograph for 'other'"),
        (["annotations", 0, "image_id"], 99, "annotation 1 names the photograph 99"),
        (["annotations", 0, "category_id"], 12, "category 12, and one of them is not in the file"),
        (["categories", 0, "name"], "unicorn", "'unicorn' is not one of COCO's 80"),
    ],
)
def test_bad_instances(load_coco, coco_root, path, value, message):
    file = coco_root / "annotations" / "instances_train2014.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(InputError, match=message):
        load_coco("train")


def test_truncated_instances(load_coco, coco_root):
    file = coco_root / "annotations" / "instances_train2014.json"
    file.write_text(file.read_text()[:-30])
    with pytest.raises(InputError, match="instances_train2014.json: not valid JSON"):
        load_coco("train")
    file.write_text("[]")
    with pytest.raises(InputError, match="instances_train2014.json: no list 'images'"):
        load_coco("train")


def test_published_integer_labels(coco_root, tmp_path):
    labels = {np.int64(1): np.eye(80, dtype=np.float32)[3], 2: np.eye(80, dtype=np.float32)[0]}
    np.save(tmp_path / "cls_labels.npy", np.array(labels), allow_pickle=True)
    collection = load_collection(
        "coco",
        coco_root,
        "train",
        labels_file=tmp_path / "cls_labels.npy",
        quiet=True,
    )
    assert {i: v.argmax() for i, v in collection.labels.items()} == dict(
        zip(names("train", 1, 2), (3, 0), strict=True)
    )


def test_saliency_by_split(load_coco, coco_root):
    (coco_root / "saliency_map").mkdir()
    assert load_coco("train").saliency == coco_root / "saliency_map"
    os.mkdir(coco_root / "saliency_map" / "train2014")
    assert load_coco("train").saliency == coco_root / "saliency_map" / "train2014"
