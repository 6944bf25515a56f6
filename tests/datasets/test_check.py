import importlib
import os

import numpy as np
import pytest
from PIL import ExifTags, Image

import dataset_root
from datasets.check import DARK, main
from tests.conftest import SIZE, annotation


@pytest.fixture
def check(voc_root, capsys):
    def check(*options):
        status = main(["--voc_root", str(voc_root), "--workers", "1", *map(str, options)])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return check


def test_a_good_data_set(check):
    status, text = check()
    assert status == 0
    assert "5 photographs read" in text and "images/s (1 processes)" in text
    assert "no problems" in text and "PROBLEM" not in text
    assert "height 24 to 24, width 32 to 32; modes: RGB 5" in text
    assert ["dog", "1", "0", "2", "2"] in [line.split() for line in text.splitlines()]


def test_processes_and_one_split(check):
    status, text = check("--workers", 2, "--split", "val")
    assert status == 0 and "1 photographs read" in text
    status, text = check("--split", "test")
    assert status == 2 and "error: --split test: voc12 has no such split" in text


def test_the_test_split_has_no_labels_by_nature(check, voc_root):
    lists = voc_root / "ImageSets/Segmentation"
    (lists / "test.txt").write_text((lists / "val.txt").read_text())
    status, text = check("--split", "test")
    assert "image-level label" not in text
    assert status == 0 and "1 photographs read" in text


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def emptied(path):
    path.write_bytes(b"")


def recoloured(path):
    Image.open(path).convert("RGB").save(path)


def outside(path):
    Image.fromarray(np.full(SIZE, 21, np.uint8)).save(path)


def resized(path):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(path)


PHOTOGRAPH = "JPEGImages/2007_000002.jpg"
MASK = "SegmentationClassAug/2007_000002.png"
SALIENCY = "saliency_map/2007_000002.png"


@pytest.mark.parametrize(
    "name, damage, kind, line",
    [
        (PHOTOGRAPH, cut, "photographs that cannot be read", "truncated"),
        (PHOTOGRAPH, emptied, "photographs that cannot be read", "the file is empty"),
        (MASK, cut, "masks that cannot be read", "truncated"),
        (MASK, recoloured, "masks that cannot be read", "not mode RGB"),
        (MASK, outside, "masks with class indices out of range", "[21]; allowed are 0 to 20"),
        (MASK, resized, "masks of another size than their photograph", "9 x 9, the photograph"),
        (SALIENCY, cut, "saliency maps that cannot be read", "truncated"),
        (SALIENCY, emptied, "saliency maps that cannot be read", "the file is empty"),
    ],
)
def test_problems(check, voc_root, name, damage, kind, line):
    damage(voc_root / name)
    status, text = check("--split", "train")
    assert status == 2
    assert f"PROBLEM: 1 {kind}\n  {voc_root / name}: " in text
    assert line in text and "PROBLEMS: 1" in text


@pytest.mark.parametrize(
    "folder, kind",
    [
        ("SegmentationClassAug", "photographs without mask"),
        ("saliency_map", "photographs without saliency map"),
        ("Annotations", "photographs without image-level label"),
    ],
)
def test_missing_files(check, voc_root, folder, kind):
    (file,) = (voc_root / folder).glob("2007_000002.*")
    file.unlink()
    status, text = check("--split", "train")
    assert status == 2
    assert f"PROBLEM: 1 {kind}\n  {voc_root / 'JPEGImages' / '2007_000002.jpg'}" in text


def test_notes_are_no_problems(check, voc_root):
    (voc_root / "Annotations" / "2007_000001.xml").write_text(annotation("person"))
    (voc_root / "Annotations" / "2007_000002.xml").write_text(annotation("person"))
    resized(voc_root / "saliency_map" / "2007_000001.png")
    status, text = check("--split", "train")
    assert status == 0
    assert "note: 2 masks with classes that are not in the image-level label" in text
    assert "2007_000001.png: dog" in text and "2007_000002.png: cat" in text
    assert "note: 1 saliency maps of another size" in text


@pytest.mark.parametrize(
    "pixels, kind",
    [
        (np.ones(SIZE, np.uint8), "all black (no value above 1; 255 is salient)"),
        (np.full(SIZE, 255, np.uint8), "all white"),
        (np.full((*SIZE, 4), 99, np.uint8), "with transparency"),
    ],
)
def test_odd_saliency_maps_are_noted(check, voc_root, pixels, kind):
    Image.fromarray(pixels).save(voc_root / SALIENCY)
    status, text = check("--split", "train")
    assert status == 0
    assert f"note: 1 saliency maps {'that are ' * ('all' in kind)}{kind}" in text
    assert f"\n  {voc_root / SALIENCY}\n" in text


def test_inverted_saliency_maps_are_noted_together(check, voc_root):
    bright_inside = np.zeros(SIZE, np.uint8)
    bright_inside[4:-4, 4:-4] = 200
    paths = sorted((voc_root / "saliency_map").iterdir())
    for path in paths:
        Image.fromarray(bright_inside).save(path)
    Image.fromarray(255 - bright_inside).save(paths[0])
    assert "saliency maps: 5, covering 43.5 % of a photograph" in check()[1]
    assert "are they inverted?" not in check()[1]
    for path in paths:
        Image.fromarray(255 - bright_inside).save(path)
    status, text = check()
    assert status == 0 and text.count("are they inverted?") == 1


def test_without_masks_and_saliency(check, voc_root):
    (voc_root / "SegmentationClassAug").rename(voc_root / "elsewhere")
    (voc_root / "saliency_map").rename(voc_root / "maps")
    status, text = check()
    assert status == 0
    assert "note: no masks at all for train, val, train_aug: not checked" in text
    assert "note: no saliency at all" in text
    (voc_root / "maps" / "2007_000001.png").unlink()
    status, text = check("--voc_sal_root", voc_root / "maps")
    assert status == 2 and "PROBLEM: 1 photographs without saliency map" in text


def test_notes_on_ones_own_photographs(custom_root, write_mask, capsys):
    write_mask(custom_root / "SegmentationClass" / "z.png", (1,))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = custom_root / "JPEGImages" / "IMG-1.jpeg"
    Image.new("RGB", SIZE[::-1], "white").save(turned, exif=exif)
    (custom_root / "JPEGImages" / "phone.HEIC").touch()
    dark = custom_root / "JPEGImages" / "a b.PNG"
    Image.fromarray(np.full(SIZE, 4080, np.uint16)).save(dark)
    assert main(["--dataset", "custom", "--root", str(custom_root), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "note: 3 photographs without mask (they are not scored)\n" in out
    assert "note: 1 photographs that EXIF asks to be turned (pixels are used" in out
    assert f"turns files for good)\n  {turned}\n" in out
    assert "of kinds that are not read: 1, such as phone.HEIC" in out
    assert f"note: 1 {DARK}\n  {dark}\n" in out


def test_long_lists_are_cut(check, voc_root):
    lists = voc_root / "ImageSets" / "Segmentation" / "train.txt"
    ids = [f"copy{i}" for i in range(30)]
    lists.write_text("\n".join(ids))
    for identifier in ids:
        (voc_root / "JPEGImages" / f"{identifier}.jpg").write_bytes(b"")
    status, text = check("--split", "train")
    assert status == 2 and "PROBLEM: 30 photographs that cannot be read" in text
    assert text.count(".jpg: the file is empty") == 20 and "  and 10 more" in text


def test_damage_that_stops_the_check(check, voc_root):
    (voc_root / "ImageSets" / "Segmentation" / "train.txt").write_text("")
    status, text = check()
    assert status == 2 and "error: " in text and "train.txt: the list is empty" in text
    assert "Traceback" not in text


def test_help_of_a_root_with_a_percent_sign(voc_root, monkeypatch, capsys):
    monkeypatch.setattr(dataset_root, "VOC_ROOT", "/data/50%x")
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and "(default: /data/50%x)" in shown


def test_roots_from_dataset_root_and_the_environment(voc_root, monkeypatch, capsys):
    monkeypatch.setenv("VOC_ROOT", str(voc_root))
    monkeypatch.setenv("VOC_SAL_ROOT", os.devnull)
    with monkeypatch.context() as undone:
        importlib.reload(dataset_root)
        assert main(["--workers", "1"]) == 2
        assert "set --voc_sal_root or VOC_SAL_ROOT" in capsys.readouterr().err
        undone.setattr(dataset_root, "VOC_SAL_ROOT", str(voc_root / "saliency_map"))
        assert main(["--workers", "1"]) == 0
    monkeypatch.undo()
    importlib.reload(dataset_root)


def test_real_photographs(shared, capsys):
    assert main(["--voc_root", str(shared / "coco_mini_voc"), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "234 photographs read" in out
    assert "saliency maps: 234, covering 30.8 % of a photograph" in out
    assert "inverted" not in out
    assert main(["--dataset", "coco", "--coco_root", str(shared / "coco_mini_2014")]) == 0
    assert "80 photographs read" in capsys.readouterr().out
