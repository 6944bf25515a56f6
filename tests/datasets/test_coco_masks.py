import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets import coco
from datasets.coco_masks import MaskTask, mask_tasks, paint
from datasets.files import InputError
from datasets.images import read_label_map
from datasets.prepare import main
from datasets.prepared import load_collection
from tests.conftest import SIZE, coco_file, square
from tests.datasets.test_coco import changed, names

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def mask_api():
    return pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")


@pytest.fixture
def prepare(coco_root):
    def prepare(root=coco_root, *options):
        return main(["coco", "--coco_root", str(root), "--workers", "1", *options])

    return prepare


def test_masks(prepare, load_coco, mask_api):
    assert prepare() == 0
    train = load_coco("train")
    first, second = (read_label_map(train.mask_path(identifier)) for identifier in train.ids)
    # The crowd is under everything, the large person under the small dog listed before it.
    assert first[0, 0] == 255 and first[23, 7] == 255
    assert first[19, 19] == 1 and first[6, 6] == 17 and first[0, 31] == 0
    # An RLE string gives columns 8 to 15; a car of two polygons lies beside it.
    assert (second[:, 8:16] == 80).all() and second[2, 2] == second[12, 22] == 3
    val = load_coco("val")
    assert read_label_map(val.mask_path(val.ids[1])).max() == 0


def test_mask_agrees_with_pycocotools(shared, tmp_path, prepare, mask_api):
    root = tmp_path / "mini"
    root.mkdir()
    for name in ("train2014", "val2014", "annotations"):
        (root / name).symlink_to(shared / "coco_mini_2014" / name)
    assert prepare(root) == 0
    for split, count in (("train", 50), ("val", 30)):
        collection = load_collection("coco", root, split, quiet=True)
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


def test_rendering_goes_on_where_it_stopped(prepare, load_coco, coco_root, mask_api, capsys):
    assert prepare() == 0
    folder = coco.mask_folder(coco_root, "train")
    kept, lost = (folder / f"{identifier}.png" for identifier in names("train", 1, 2))
    content = lost.read_bytes()
    lost.unlink()
    before = kept.stat().st_mtime_ns
    with pytest.raises(InputError, match="1 of 2 masks .* python -m datasets.prepare coco"):
        load_coco("train")
    capsys.readouterr()
    assert prepare() == 0
    assert "train: 1 masks rendered in" in capsys.readouterr().out
    assert lost.read_bytes() == content and kept.stat().st_mtime_ns == before
    assert load_coco("train").masks == folder
    lost.rename(lost.with_suffix(".PNG"))
    assert load_coco("train").mask_path(names("train", 2)[0]).is_file()


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
    command += ["--coco_root", str(coco_root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "images/s (2 processes)" in done.stdout
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == alone


def test_without_pycocotools(prepare, load_coco, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert prepare() == 2
    assert "pip install pycocotools" in capsys.readouterr().err
    assert load_coco("train").masks is None  # lists and labels are there all the same


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
        paint(MaskTask(Path("x.png"), Path("x.json"), SIZE, [(1, record)]))


def test_integers_beyond_every_float(mask_api):
    """Python reads them from JSON, but cannot make floats of them."""
    record = {"segmentation": [square(1, 1, 5)], "iscrowd": 0, "area": 10**400}
    task = MaskTask(Path("x.png"), Path("x.json"), SIZE, [(1, record)])
    assert paint(task).any()


def test_what_stands_for_a_number_is_not_printed(mask_api):
    record = {"id": [[["deep"]]], "segmentation": None, "area": 1}
    with pytest.raises(InputError, match="annotation without a number: neither"):
        paint(MaskTask(Path("x.png"), Path("x.json"), SIZE, [(1, record)]))


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
        paint(MaskTask(Path("x.png"), Path("x.json"), (100_000, 100_000), []))


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
        for task in mask_tasks(tmp_path, "train", ids):
            assert paint(task).shape == task.size
    except InputError:
        pass


def test_masks_of_other_annotations_are_refused(prepare, coco_root, load_coco, mask_api, capsys):
    """Not taken as they are, which nobody would see, nor removed without a word."""
    assert prepare() == 0
    path = coco.instances_path(coco_root, "train")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(changed_outline(content)))
    folder = coco.mask_folder(coco_root, "train")
    assert prepare() == 2
    error = capsys.readouterr().err
    assert f"{folder}: its masks were rendered from another {path.name}" in error
    with pytest.raises(InputError, match="remove the folder, then"):
        load_coco("train")
    shutil.rmtree(folder)
    assert prepare() == 0
    assert read_label_map(next(iter(sorted(folder.glob("*.png"))))).any()


def changed_outline(content):
    moved = [{**record} for record in content["annotations"]]
    moved[0]["area"] = 1.0
    return {**content, "annotations": moved}
