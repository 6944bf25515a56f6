"""The generated data set: what it promises to the scripts and to those who judge by it."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from datasets import demo
from datasets.files import InputError, read_lines
from datasets.images import read_label_map, read_photograph
from datasets.palette import voc_palette
from datasets.prepared import load_collection
from datasets.scenes import CLASSES

IMAGES, VALIDATION, SIZE = 18, 6, 96


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "set"
    demo.generate(folder, images=IMAGES, validation=VALIDATION, size=SIZE, seed=3)
    return folder


def contents(root):
    """Path -> bytes of every file under root."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def identifiers(root):
    lists = root / "ImageSets" / "Segmentation"
    return [*read_lines(lists / "train.txt"), *read_lines(lists / "val.txt")]


def objects(root, identifier):
    """[(class name, (xmin, ymin, xmax, ymax))] of an annotation, and the size it states."""
    tree = ElementTree.parse(root / "Annotations" / f"{identifier}.xml").getroot()
    found = []
    for node in tree.findall("object"):
        assert node.findtext("difficult") == "0"
        corners = (node.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax"))
        found.append((node.findtext("name"), tuple(int(corner) for corner in corners)))
    size = (int(tree.findtext("size/height")), int(tree.findtext("size/width")))
    return found, size


def test_the_same_seed_gives_the_same_bytes(root, tmp_path):
    demo.generate(tmp_path, images=IMAGES, validation=VALIDATION, size=SIZE, seed=3)
    assert contents(tmp_path) == contents(root)


def test_another_seed_gives_other_scenes(root, tmp_path):
    demo.generate(tmp_path, images=2, validation=0, size=SIZE, seed=4)
    name = "JPEGImages/scene_0001.jpg"
    assert contents(tmp_path)[name] != contents(root)[name]


def test_training_and_validation_differ(root):
    files = contents(root)
    assert files["JPEGImages/scene_0001.jpg"] != files["JPEGImages/val_0001.jpg"]


def test_a_larger_set_begins_with_the_smaller_one(root, tmp_path):
    demo.generate(tmp_path, images=7, validation=2, size=SIZE, seed=3)
    smaller, larger = contents(tmp_path), contents(root)
    scenes = [name for name in smaller if not name.startswith("ImageSets")]
    assert len(scenes) == 4 * 9 + 1
    assert all(smaller[name] == larger[name] for name in scenes)


def test_a_smaller_set_leaves_nothing_of_a_larger_one(tmp_path):
    demo.generate(tmp_path / "a", images=5, validation=3, size=48)
    demo.generate(tmp_path / "a", images=2, validation=1, size=48)
    demo.generate(tmp_path / "b", images=2, validation=1, size=48)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_every_scene_has_its_four_files_and_no_more(root):
    assert len(set(identifiers(root))) == IMAGES + VALIDATION
    for folder in ("JPEGImages", "Annotations", "SegmentationClassAug", "saliency_map"):
        assert {path.stem for path in (root / folder).iterdir()} == set(identifiers(root))


def test_sizes_agree_and_vary(root):
    shapes = set()
    for identifier in identifiers(root):
        shape = read_photograph(root / "JPEGImages" / f"{identifier}.jpg").shape[:2]
        saliency = Image.open(root / "saliency_map" / f"{identifier}.png")
        assert saliency.mode == "L"
        assert saliency.size[::-1] == shape
        assert read_label_map(root / "SegmentationClassAug" / f"{identifier}.png").shape == shape
        assert objects(root, identifier)[1] == shape
        assert max(shape) == SIZE
        shapes.add(shape)
    assert len(shapes) > 5


def test_masks_hold_the_classes_and_boxes_of_the_annotations(root):
    for identifier in identifiers(root):
        mask = read_label_map(root / "SegmentationClassAug" / f"{identifier}.png")
        found, _ = objects(root, identifier)
        assert 1 <= len(found) <= 3
        assert {CLASSES.index(name) + 1 for name, _ in found} == set(np.unique(mask)) - {0}
        for index in {CLASSES.index(name) + 1 for name, _ in found}:
            boxes = np.array([box for name, box in found if CLASSES.index(name) + 1 == index])
            rows, columns = np.nonzero(mask == index)
            assert (columns.min() + 1, rows.min() + 1) == tuple(boxes[:, :2].min(0))
            assert (columns.max() + 1, rows.max() + 1) == tuple(boxes[:, 2:].max(0))


def test_masks_have_vocs_colours(root):
    mask = Image.open(root / "SegmentationClassAug" / "scene_0001.png")
    assert mask.mode == "P"
    assert np.array_equal(np.array(mask.getpalette(), np.uint8).reshape(-1, 3), voc_palette())


def test_the_project_reads_it_as_custom_data(root):
    train, val = (load_collection("custom", root, split) for split in ("train_aug", "val"))
    assert train.classes == CLASSES
    assert (len(train.ids), len(val.ids)) == (IMAGES, VALIDATION)
    assert train.masks is not None and train.saliency is not None
    assert np.all(sum(train.labels.values()) >= IMAGES // 6)


@pytest.mark.parametrize(
    "wrong", [{"images": 0}, {"validation": -1}, {"size": 20}, {"size": 5000}, {"seed": -1}]
)
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        demo.generate(tmp_path / "set", **wrong)
    assert not (tmp_path / "set").exists()


def test_other_peoples_data_is_left_alone(voc_root, custom_root, tmp_path):
    for root in (voc_root, custom_root):
        before = contents(root)
        with pytest.raises(InputError, match="holds another data set"):
            demo.generate(root, images=1, validation=0)
        assert contents(root) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        demo.generate(tmp_path / "file", images=1)


def test_the_command(tmp_path, capsys):
    root = tmp_path / "set"
    arguments = ["--root", str(root), "--images", "2", "--validation", "1", "--size", "50"]
    assert demo.main(arguments) == 0
    assert f"train_scn.py --dataset custom --root {root} --crop 64" in capsys.readouterr().out
    assert demo.main([*arguments, "--seed", "-1"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: seed -1") and printed.err.count("\n") == 1
