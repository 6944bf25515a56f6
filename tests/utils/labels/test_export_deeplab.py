from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.collection import Collection
from datasets.files import InputError
from datasets.images import write_label_map
from utils.labels.export_deeplab import check, export


def collection_of(folder, ids):
    images = {}
    for i, name in enumerate(ids):
        images[name] = folder / "photos" / f"{name}.{'jpg' if i else 'png'}"
        images[name].parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 10), (i, 0, 0)).save(images[name])
        path = folder / "labels" / f"{name}.png"
        write_label_map(path, np.full((10, 20), i, np.uint8))
    return Collection("custom", "train", ("cat",), tuple(ids), images, {})


def test_deeplab_pytorch_reads_the_tree(tmp_path):
    """The lines by which its VOCAug data set finds and opens files."""
    collection = collection_of(tmp_path, ["2007_000032", "b"])
    for _ in range(2):  # again over an older export
        export(tmp_path / "out", collection, tmp_path / "labels")
    root = tmp_path / "out" / "VOC2012"
    lines = (root / "ImageSets/SegmentationAug/train_aug.txt").read_text().splitlines()
    assert lines[0] == "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png"
    files, labels = zip(*(line.rstrip().split(" ") for line in lines), strict=True)
    for i in range(2):
        assert (root / files[i][1:]).is_symlink()
        assert Image.open(root / files[i][1:]).size == (20, 10)
        label = np.asarray(Image.open(root / labels[i][1:]), dtype=np.int32)
        assert label.shape == (10, 20) and (label == i).all()


def test_ids_its_lists_cannot_hold(tmp_path):
    with pytest.raises(InputError, match="'my photo' holds a space"):
        check(tmp_path / "out", collection_of(tmp_path, ["a", "my photo"]))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--export_deeplab"):
        check(tmp_path / "file", collection_of(tmp_path, ["a"]))


def test_photographs_that_opencv_would_turn(tmp_path):
    """Labels lie on stored pixels; deeplab-pytorch's cv2.imread turns by EXIF."""
    collection = collection_of(tmp_path, ["a", "b"])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(collection.images["b"], exif=exif)
    assert cv2.imread(str(collection.images["b"])).shape == (20, 10, 3)
    export(tmp_path / "out", collection, tmp_path / "labels")
    assert cv2.imread(str(tmp_path / "out/VOC2012/JPEGImages/b.jpg")).shape == (10, 20, 3)


def test_a_data_set_is_not_written_over(tmp_path):
    """Someone whose data lies in DIR/VOC2012 names DIR: photographs and masks must stay."""
    collection = collection_of(tmp_path, ["a", "b"])
    own = tmp_path / "VOCdevkit/VOC2012/JPEGImages/a.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(InputError, match="was not made by --export_deeplab"):
        check(tmp_path / "VOCdevkit", collection)
    assert own.read_bytes() == b"mine"
    check(tmp_path / "out", collection)
    export(tmp_path / "out", collection, tmp_path / "labels")
    check(tmp_path / "out", collection)  # an earlier export is replaced


def test_a_check_that_was_killed_blocks_nothing(tmp_path):
    left = tmp_path / "out/VOC2012/.exported.txt.0123.part"
    left.parent.mkdir(parents=True)
    left.touch()
    check(tmp_path / "out", collection_of(tmp_path, ["a"]))


def test_an_export_as_the_data_set(tmp_path):
    """Its links lead to the photographs, not to themselves; copies stay."""
    collection = collection_of(tmp_path, ["a", "b"])
    export(tmp_path / "out", collection, tmp_path / "labels")
    folder = tmp_path / "out/VOC2012/JPEGImages"
    (folder / "b.jpg").unlink()
    (folder / "b.jpg").write_bytes(collection.images["b"].read_bytes())
    inside = replace(collection, images={i: folder / f"{i}.jpg" for i in collection.ids})
    export(tmp_path / "out", inside, tmp_path / "labels")
    assert (folder / "a.jpg").resolve() == collection.images["a"].resolve()
    assert Image.open(folder / "b.jpg").size == (20, 10) and not (folder / "b.jpg").is_symlink()
