import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets import coco
from datasets.classes import coco_classes
from datasets.collection import require_labels
from datasets.files import InputError
from datasets.images import read_label_map
from datasets.prepare import load_collection, main
from tests.conftest import SIZE, coco_file, square

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def mask_api():
    return pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")


@pytest.fixture
def load(coco_root, tmp_path):
    def load(split="train"):
        prepared = tmp_path / "prepared"
        return load_collection("coco", coco_root, split, prepared=prepared, quiet=True)

    return load


@pytest.fixture
def prepare(coco_root, tmp_path):
    def prepare(root=coco_root, *options):
        arguments = ["coco", "--coco_root", str(root), "--out", str(tmp_path / "prepared")]
        return main([*arguments, "--workers", "1", *options])

    return prepare


def names(split, *numbers):
    return tuple(f"COCO_{split}2014_{number:012d}" for number in numbers)


# --- lists and labels -----------------------------------------------------------------------------


def test_lists_and_labels(load):
    train, val = load("train"), load("val")
    assert train.ids == names("train", 1, 2)  # the third has no object
    assert val.ids == names("val", 1, 2)
    assert train.num_classes == 81
    present = {i: [coco_classes()[k] for k in np.flatnonzero(v)] for i, v in train.labels.items()}
    assert list(present.values()) == [["person", "dog"], ["car", "toothbrush"]]
    assert np.flatnonzero(val.labels[val.ids[0]]).tolist() == [56]  # category 62 is the 57th: chair
    assert not val.labels[val.ids[1]].any()
    require_labels(train)
    assert train.masks is None


def test_one_split_alone(load, coco_root):
    shutil.rmtree(coco_root / "val2014")
    (coco_root / "annotations" / "instances_val2014.json").unlink()
    assert load("train").ids == names("train", 1, 2)
    with pytest.raises(InputError, match="--split val: coco has no such split; it has train"):
        load("val")


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
def test_bad_instances(load, coco_root, path, value, message):
    file = coco_root / "annotations" / "instances_train2014.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(InputError, match=message):
        load("train")


def test_truncated_instances(load, coco_root):
    file = coco_root / "annotations" / "instances_train2014.json"
    file.write_text(file.read_text()[:-30])
    with pytest.raises(InputError, match="instances_train2014.json: not valid JSON"):
        load("train")
    file.write_text("[]")
    with pytest.raises(InputError, match="instances_train2014.json: no list 'images'"):
        load("train")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_instances_are_rendered_or_refused(tmp_path, mask_api, mutated, data):
    content = coco_file("train", [[(18, [square(4, 4, 8)], 64.0, 0)], []])
    content["categories"] = content["categories"][:18]
    (tmp_path / "annotations").mkdir(exist_ok=True)
    path = coco.instances_path(tmp_path, "train")
    path.write_bytes(data.draw(mutated(json.dumps(content).encode())))
    try:
        ids = list(coco.read_instances(path).images)
        for task in coco.mask_tasks(tmp_path, "train", ids):
            assert coco.paint(task).shape == task.size
    except InputError:
        pass


# --- masks ----------------------------------------------------------------------------------------


def test_masks(prepare, load, mask_api):
    assert prepare() == 0
    train = load("train")
    first, second = (read_label_map(train.mask_path(identifier)) for identifier in train.ids)
    # The crowd is under everything, the large person under the small dog listed before it.
    assert first[0, 0] == 255 and first[23, 7] == 255
    assert first[19, 19] == 1 and first[6, 6] == 17 and first[0, 31] == 0
    # An RLE string gives columns 8 to 15; a car of two polygons lies beside it.
    assert (second[:, 8:16] == 80).all() and second[2, 2] == second[12, 22] == 3
    val = load("val")
    assert read_label_map(val.mask_path(val.ids[1])).max() == 0


def test_mask_agrees_with_pycocotools(shared, tmp_path, prepare, mask_api):
    root = tmp_path / "mini"
    root.mkdir()
    for name in ("train2014", "val2014", "annotations"):
        (root / name).symlink_to(shared / "coco_mini_2014" / name)
    assert prepare(root) == 0
    for split, count in (("train", 50), ("val", 30)):
        collection = load_collection(
            "coco", root, split, prepared=tmp_path / "prepared", quiet=True
        )
        assert len(collection.ids) == count
        content = json.loads(coco.instances_path(root, split).read_text())
        rank = {c["id"]: k + 1 for k, c in enumerate(content["categories"])}
        for image in content["images"]:
            size = image["height"], image["width"]
            objects = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            expected = np.zeros(size, np.uint8)
            for a in sorted(objects, key=lambda a: (-a["iscrowd"], -a["area"])):
                encoded = mask_api.frPyObjects(a["segmentation"], *size)
                encoded = mask_api.merge(encoded) if isinstance(encoded, list) else encoded
                expected[mask_api.decode(encoded) > 0] = (
                    255 if a["iscrowd"] else rank[a["category_id"]]
                )
            identifier = Path(image["file_name"]).stem
            np.testing.assert_array_equal(
                read_label_map(collection.mask_path(identifier)), expected
            )
            assert set(np.flatnonzero(collection.labels[identifier]) + 1) == {
                rank[a["category_id"]] for a in objects
            }


def test_rendering_goes_on_where_it_stopped(prepare, load, coco_root, mask_api, capsys):
    assert prepare() == 0
    folder = coco.mask_folder(coco_root, "train")
    kept, lost = (folder / f"{identifier}.png" for identifier in names("train", 1, 2))
    content = lost.read_bytes()
    lost.unlink()
    before = kept.stat().st_mtime_ns
    with pytest.raises(InputError, match="1 of 2 masks .* python -m datasets.prepare coco"):
        load("train")
    capsys.readouterr()
    assert prepare() == 0
    assert "train: 1 masks rendered in" in capsys.readouterr().out
    assert lost.read_bytes() == content and kept.stat().st_mtime_ns == before
    assert load("train").masks == folder


def test_processes_render_the_same(coco_root, tmp_path, prepare, mask_api):
    assert prepare() == 0
    folder = coco_root / "SegmentationClass"
    alone = {path: path.read_bytes() for path in folder.rglob("*.png")}
    shutil.rmtree(folder)
    command = [
        sys.executable,
        "-W",
        "error::RuntimeWarning",
        "-m",
        "datasets.prepare",
        "coco",
        "--workers",
        "2",
    ]
    command += ["--coco_root", str(coco_root), "--out", str(tmp_path / "prepared")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "images/s (2 processes)" in done.stdout
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == alone


def test_without_pycocotools(prepare, load, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert prepare() == 2
    assert "pip install pycocotools" in capsys.readouterr().err
    assert load("train").masks is None  # lists and labels are there all the same


HUGE = [[0, 0, 1e9, 0, 1e9, 1e9]]


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("segmentation", None, "neither polygons nor run lengths"),
        ("segmentation", [], "neither polygons nor run lengths"),
        ("segmentation", [[1, 1, 5, 5]], "three points or more"),
        ("segmentation", [[1, 1, 5, 5, 3, 3, 3]], "three points or more"),
        ("segmentation", [[1, 1, 5, 5, 3, "3"]], "not a number"),
        ("segmentation", [[1, 1, 5, 5, 3, float("nan")]], "not a number"),
        ("segmentation", HUGE, "far outside the photograph"),
        ("segmentation", {"size": [9, 9], "counts": [81]}, "not for 24 x 32"),
        ("segmentation", {"size": [24, 32], "counts": [800]}, "do not cover"),
        ("segmentation", {"size": [24, 32], "counts": [-32, 800]}, "not a list of numbers"),
        ("segmentation", {"size": [24, 32], "counts": "P6"}, "do not cover"),
        ("segmentation", {"size": [24, 32], "counts": "\u2603"}, "run lengths"),
        ("segmentation", {"size": [24, 32]}, "not a list of numbers"),
        ("segmentation", {"size": [24, 32], "counts": "o" * 1_000_000}, "do not cover"),
        ("segmentation", [[-60, -60, 60, 60] * 20_000], "outline is longer"),
        ("area", None, "no finite number under 'area'"),
        ("area", float("inf"), "no finite number under 'area'"),
        ("area", float("nan"), "no finite number under 'area'"),
    ],
)
def test_bad_segmentations(mask_api, field, value, message):
    record = {"id": 5, "segmentation": [square(1, 1, 5)], "area": 25, "iscrowd": 0, field: value}
    with pytest.raises(InputError, match=f"annotation 5.*{message}"):
        coco.paint(coco.MaskTask(Path("x.png"), Path("x.json"), SIZE, [(1, record)]))


def test_integers_beyond_every_float(mask_api):
    """Python reads them from JSON, but cannot make floats of them."""
    record = {"segmentation": [square(1, 1, 5)], "iscrowd": 0, "area": 10**400}
    task = coco.MaskTask(Path("x.png"), Path("x.json"), SIZE, [(1, record)])
    assert coco.paint(task).any()


def test_what_stands_for_a_number_is_not_printed():
    record = {"id": [[["deep"]]], "segmentation": None, "area": 1}
    with pytest.raises(InputError, match="annotation without a number: neither"):
        coco.paint(coco.MaskTask(Path("x.png"), Path("x.json"), SIZE, [(1, record)]))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_error_in_a_process_is_one_line(prepare, coco_root, mask_api, capsys, workers):
    file = coco_root / "annotations" / "instances_train2014.json"
    content = changed(json.loads(file.read_text()), ["annotations", 1, "segmentation"], HUGE)
    file.write_text(json.dumps(content))
    assert prepare(coco_root, "--workers", workers) == 2
    error = capsys.readouterr().err.rpartition("error: ")[2]
    assert error.startswith(f"{file}: annotation 2: a polygon's point") and error.count("\n") == 1


def test_absurd_size():
    with pytest.raises(InputError, match="x: 100000 x 100000 pixels are too many"):
        coco.paint(coco.MaskTask(Path("x.png"), Path("x.json"), (100_000, 100_000), []))


def test_published_integer_labels(coco_root, tmp_path):
    labels = {np.int64(1): np.eye(80, dtype=np.float32)[3], 2: np.eye(80, dtype=np.float32)[0]}
    np.save(tmp_path / "cls_labels.npy", np.array(labels), allow_pickle=True)
    collection = load_collection(
        "coco",
        coco_root,
        "train",
        labels_file=tmp_path / "cls_labels.npy",
        prepared=tmp_path / "prepared",
        quiet=True,
    )
    assert {i: v.argmax() for i, v in collection.labels.items()} == dict(
        zip(names("train", 1, 2), (3, 0), strict=True)
    )


def test_saliency_by_split(load, coco_root):
    (coco_root / "saliency_map").mkdir()
    assert load("train").saliency == coco_root / "saliency_map"
    os.mkdir(coco_root / "saliency_map" / "train2014")
    assert load("train").saliency == coco_root / "saliency_map" / "train2014"
