"""evaluator_seg.py from end to end on generated scenes, with a network drawn at random."""

import json
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.classes import voc_classes
from datasets.demo import generate
from datasets.images import read_label_map, read_photograph
from datasets.palette import voc_palette
from networks.deeplab import DeepLab
from networks.dilated import build_trunk
from networks.normalisation import normalise
from tests.calling import REPOSITORY, call
from tests.test_distributed import run as run_processes
from utils.checkpoints import open_deeplab, save
from utils.inference.segmentation import segment
from utils.labels import masks
from utils.pictures.contact_sheet import GAP, TILE


def save_network(path, classes):
    """A checkpoint of a network that knows nothing, but does not say the same everywhere."""
    torch.manual_seed(0)
    network = DeepLab(build_trunk("resnet18"), len(classes) + 1)
    for module in network.trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 1)
    for branch in network.head.branches:
        torch.nn.init.normal_(branch.weight, std=0.05)
    described = {"backbone": "resnet18", "trunk": "torchvision"}
    content = {"kind": "segmentation", **described, "classes": list(classes)}
    save(path, {**content, "model": network.state_dict()})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Scenes, and the checkpoint of a run called `seg`."""
    folder = tmp_path_factory.mktemp("files")
    generate(folder / "scenes", images=3, validation=7, size=64, seed=5)
    save_network(folder / "seg.pt", (folder / "scenes/labels.txt").read_text().split())
    return folder


def evaluate(files, folder, more=""):
    call(
        "evaluator_seg.py",
        f"--dataset custom --root {files}/scenes --experiments {folder} --device cpu --workers 0 "
        f"--checkpoint {files}/seg.pt {more}",
    )
    return folder / "eval_seg"


def refused(*arguments):
    with pytest.raises(SystemExit) as stop:
        evaluate(*arguments)
    assert stop.value.code == 2


def val_ids(files):
    return (files / "scenes/ImageSets/Segmentation/val.txt").read_text().split()


def labels_of(files, identifier, classes=None, factor=1, **how):
    """The labels of a photograph, the plain way, after PIL has scaled it."""
    network = open_deeplab(files / "seg.pt")
    image = Image.fromarray(read_photograph(files / "scenes/JPEGImages" / f"{identifier}.jpg"))
    size = [round(side * factor) for side in image.size]
    scaled = np.array(image.resize(size, Image.Resampling.BILINEAR))
    found = segment(normalise(torch.from_numpy(scaled).permute(2, 0, 1)), network, **how)
    found = torch.nn.functional.interpolate(found[None], size=image.size[::-1], mode="bilinear")[0]
    if classes is not None:
        keep = torch.zeros(len(found), dtype=torch.bool)
        keep[[0, *classes]] = True
        found[~keep] = -1
    return found.argmax(0).numpy()


def scores_by_loop(files, masks):
    """Confusion matrix, IoU and mIoU of a folder of masks, pixel by pixel."""
    count = len((files / "scenes/labels.txt").read_text().split()) + 1
    confusion = [[0] * count for _ in range(count)]
    for identifier in val_ids(files):
        truth = read_label_map(files / "scenes/SegmentationClassAug" / f"{identifier}.png")
        found = read_label_map(masks / f"{identifier}.png")
        for t, p in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True):
            if t != 255:
                confusion[t][p] += 1
    ious = []
    for k in range(count):
        union = sum(confusion[k]) + sum(row[k] for row in confusion) - confusion[k][k]
        ious.append(confusion[k][k] / union if union else None)
    known = [iou for iou in ious if iou is not None]
    return confusion, ious, sum(known) / len(known)


def test_a_split(files, tmp_path, capsys):
    folder = evaluate(files, tmp_path, "--scales 0.75 1 --flip")
    ids, result = val_ids(files), json.loads((folder / "result.json").read_text())
    assert sorted(path.stem for path in (folder / "masks").iterdir()) == sorted(ids)
    for identifier in ids:
        mask = Image.open(folder / "masks" / f"{identifier}.png")
        assert mask.mode == "P" and (np.array(mask.getpalette()) == voc_palette().ravel()).all()
        expected = labels_of(files, identifier, scales=(0.75, 1), flip=True)
        assert (np.asarray(mask) == expected).mean() > 0.999
    (row,) = result["thresholds"]
    confusion, ious, miou = scores_by_loop(files, folder / "masks")
    assert row["confusion"] == confusion
    assert row["iou"] == pytest.approx(ious) and row["miou"] == pytest.approx(miou)
    assert (result["split"], result["scored_images"]) == ("val", 7)
    said = f"mIoU {100 * miou:.1f} on custom val (7 photographs, scales 0.75 1, mirrored, no CRF)"
    assert said in capsys.readouterr().out
    assert Image.open(folder / "contact_sheet.png").width > 600
    page = (folder / "report.html").read_text()
    assert all(identifier in page for identifier in ids) and f"{100 * miou:.1f}" in page
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    evaluate(files, tmp_path, "--scales 0.75 1 --flip")
    again = capsys.readouterr().out
    assert said in again and "finished (--overwrite makes it anew)" in again
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    summary = [sys.executable, "-m", "utils.pictures.summary", str(folder)]
    table = subprocess.run(summary, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert f"best labels: {folder}/masks/" in table.stdout and f"{100 * miou:.1f}" in table.stdout


def test_the_last_checkpoint_of_the_run_seg_is_the_default(files, tmp_path):
    (tmp_path / "seg").mkdir()
    shutil.copy(files / "seg.pt", tmp_path / "seg/last.pt")
    (tmp_path / "seg/best.pt").write_bytes(b"chosen on val")
    data = f"--dataset custom --root {files}/scenes --experiments {tmp_path} --device cpu"
    call("evaluator_seg.py", f"{data} --workers 0")
    result = json.loads((tmp_path / "eval_seg/result.json").read_text())
    assert result["checkpoint"] == str(tmp_path / "seg/last.pt")


def test_the_crf_is_scored_beside(files, tmp_path, capsys):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is an optional package")
    folder = evaluate(files, tmp_path, "--crf --crf_workers 1")
    result = json.loads((folder / "result.json").read_text())
    for found, folder_name in ((result, "masks"), (result["crf"], "masks_crf")):
        confusion, _, miou = scores_by_loop(files, folder / folder_name)
        assert found["thresholds"][0]["confusion"] == confusion
        assert found["best"]["miou"] == pytest.approx(miou)
    assert result["thresholds"] != result["crf"]["thresholds"]
    assert result["crf_constants"] == {
        "iterations": 10, "smooth_xy": 1, "smooth_weight": 3, "colour_xy": 67, "colour_rgb": 3,
        "colour_weight": 4,
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "scales 1, no CRF)" in out and "scales 1, dense CRF)" in out


def test_restricted_to_image_level_labels(files, tmp_path):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is an optional package")
    folder = evaluate(files, tmp_path, "--restrict --crf --crf_workers 1")
    altered = 0
    for identifier in val_ids(files):
        truth = read_label_map(files / "scenes/SegmentationClassAug" / f"{identifier}.png")
        present = sorted(set(np.unique(truth).tolist()) - {0, 255})
        mask = read_label_map(folder / "masks" / f"{identifier}.png")
        assert (mask == labels_of(files, identifier, present)).mean() > 0.999
        altered += (mask != labels_of(files, identifier)).sum()
        refined = read_label_map(folder / "masks_crf" / f"{identifier}.png")
        assert set(np.unique(refined).tolist()) <= {0, *present}
    assert altered > 100


@pytest.fixture
def photographs(files, tmp_path):
    """A folder of two photographs."""
    folder = tmp_path / "holiday"
    folder.mkdir()
    for i, identifier in enumerate(val_ids(files)[:2]):
        path = files / "scenes/JPEGImages" / f"{identifier}.jpg"
        shutil.copy(path, folder / f"p{i}.jpg")
    return folder


def test_a_folder_of_photographs_without_labels(files, photographs, tmp_path, capsys):
    folder = evaluate(files, tmp_path, f"--images {photographs}")
    assert {path.name for path in (folder / "masks").iterdir()} == {"p0.png", "p1.png"}
    mask = read_label_map(folder / "masks/p1.png")
    assert (mask == labels_of(files, val_ids(files)[1])).mean() > 0.999
    assert Image.open(folder / "overlays/p1.jpg").size == mask.shape[::-1]
    assert "thresholds" not in json.loads((folder / "result.json").read_text())
    assert f"masks for 2 photographs of {photographs} from " in capsys.readouterr().out
    page = (folder / "report.html").read_text()
    assert "p1" in page and f"<dt>data set</dt> <dd>{photographs}</dd>" in page
    assert Image.open(folder / "contact_sheet.png").width == 2 * (TILE + GAP)  # no ground truth


def test_one_photograph(files, photographs, tmp_path, capsys):
    folder = evaluate(files, tmp_path, f"--images {photographs}/p1.jpg")
    assert f"masks for 1 photograph of {photographs}/p1.jpg from " in capsys.readouterr().out
    assert {path.name for path in (folder / "masks").iterdir()} == {"p1.png"}
    mask = read_label_map(folder / "masks/p1.png")
    assert (mask == labels_of(files, val_ids(files)[1])).mean() > 0.999
    refused(files, tmp_path, f"--images {photographs}/p7.jpg --tag other")
    assert "p7.jpg: no such folder or photograph; set --images" in capsys.readouterr().err


def test_larger_photographs_are_scaled_down(files, photographs, tmp_path, capsys):
    """Of 64 pixels, at most 32; and noted."""
    folder = evaluate(files, tmp_path, f"--images {photographs} --max_side 32")
    mask = read_label_map(folder / "masks/p1.png")
    assert (mask == labels_of(files, val_ids(files)[1], factor=0.5)).mean() > 0.99
    assert (mask != labels_of(files, val_ids(files)[1])).mean() > 0.01
    said = capsys.readouterr().out
    assert (
        "note: scaled down to 32 pixels for inference (--max_side): 2 photographs (p0, ..)" in said
    )
    assert json.loads((folder / "result.json").read_text())["max_side"] == 32
    content = torch.load(files / "seg.pt", weights_only=True)
    save(tmp_path / "own.pt", {**content, "max_side": 32})
    own = f"--checkpoint {tmp_path}/own.pt --images {photographs}"
    folder = evaluate(files, tmp_path, f"{own} --overwrite")
    assert (read_label_map(folder / "masks/p1.png") == mask).all()
    folder = evaluate(files, tmp_path, f"{own} --max_side 0 --overwrite")
    mask = read_label_map(folder / "masks/p1.png")
    assert (mask == labels_of(files, val_ids(files)[1])).mean() > 0.999


def test_labels_of_a_split_cannot_be_named(files, tmp_path, capsys):
    refused(files, tmp_path, "--labels ball")
    error = capsys.readouterr().err
    assert "--labels ball: goes with --images; a split has labels of its own" in error
    assert "predicted" not in error  # which evaluator_seg.py refuses


def test_nothing_to_segment_is_no_success(files, photographs, tmp_path, capsys):
    for path in photographs.iterdir():
        path.write_bytes(b"")
    refused(files, tmp_path, f"--images {photographs} --skip_bad")
    assert "error: no photograph could be read" in capsys.readouterr().err
    assert not (tmp_path / "eval_seg/result.json").exists()


def test_a_folder_with_named_classes(files, photographs, tmp_path, capsys):
    first, second, *_ = (files / "scenes/labels.txt").read_text().split()
    folder = evaluate(files, tmp_path, f"--images {photographs} --labels {second}")
    for i in range(2):
        mask = read_label_map(folder / "masks" / f"p{i}.png")
        assert set(np.unique(mask).tolist()) <= {0, 2}
        assert (mask == labels_of(files, val_ids(files)[i], [2])).mean() > 0.999
    for options, message in (
        ("--labels zebra", "no class 'zebra'"),
        ("--labels predicted", "finds classes by itself"),
        ("--restrict", '--labels "dog,sofa" (in all of them)\n'),
        ("--submission s.tar.gz", "give --dataset voc12 --split test"),
    ):
        refused(files, tmp_path, f"--images {photographs} --tag other {options}")
        assert message in capsys.readouterr().err


def test_going_on_after_a_stop(files, tmp_path, monkeypatch, capsys):
    whole = evaluate(files, tmp_path / "whole")
    real = masks.MaskWriter.take

    def stop(writer, found):
        if found.id == val_ids(files)[4]:
            raise KeyboardInterrupt
        real(writer, found)

    monkeypatch.setattr(masks.MaskWriter, "take", stop)
    with pytest.raises(SystemExit):
        evaluate(files, tmp_path)
    monkeypatch.undo()
    folder = tmp_path / "eval_seg"
    assert not (folder / "result.json").exists()
    capsys.readouterr()
    evaluate(files, tmp_path)
    assert "of 7 photographs are done; going on" in capsys.readouterr().out
    for path in (whole / "masks").iterdir():
        assert (folder / "masks" / path.name).read_bytes() == path.read_bytes()
    one, two = (json.loads((f / "result.json").read_text()) for f in (whole, folder))
    assert one["thresholds"] == two["thresholds"]
    assert two["images"] == two["scored_images"] == 7 and two["segmented"] < 7


@pytest.mark.slow
def test_two_processes_write_the_same(files, tmp_path):
    folders = []
    for processes in (1, 2):
        done = run_processes(
            processes,
            "evaluator_seg.py",
            f"--dataset custom --root {files}/scenes --experiments {tmp_path}/{processes} "
            f"--device cpu --workers 0 --checkpoint {files}/seg.pt",
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("mIoU") == 1
        folders.append(tmp_path / str(processes) / "eval_seg")
    one, two = ({p.name: p.read_bytes() for p in f.rglob("*.png")} for f in folders)
    assert one == two and len(one) == 7 + 1
    one, two = (json.loads((f / "result.json").read_text()) for f in folders)
    assert one["thresholds"] == two["thresholds"] and two["images"] == 7


@pytest.fixture
def voc_test(voc_root, write_photograph, tmp_path):
    """VOC's layout with two test photographs, and a network of its classes."""
    for number in (8, 9):
        write_photograph(voc_root / "JPEGImages" / f"2008_00000{number}.jpg", number)
    lists = voc_root / "ImageSets/Segmentation"
    (lists / "test.txt").write_text("2008_000008\n2008_000009\n")
    save_network(tmp_path / "voc.pt", voc_classes())
    return voc_root


def submit(root, folder, more=""):
    call(
        "evaluator_seg.py",
        f"--voc_root {root} --split test --experiments {folder} --device cpu --workers 0 "
        f"--checkpoint {folder}/voc.pt --submission {folder}/results.tar.gz {more}",
    )


def test_an_archive_for_the_test_server(voc_test, tmp_path, capsys):
    submit(voc_test, tmp_path)
    masks = tmp_path / "eval_seg/masks"
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        names = archive.getnames()
        assert names == [
            f"results/VOC2012/Segmentation/comp6_test_cls/2008_00000{n}.png" for n in (8, 9)
        ]
        for name in names:
            data = archive.extractfile(name).read()
            assert data == (masks / name.split("/")[-1]).read_bytes()
    before = (tmp_path / "results.tar.gz").read_bytes()
    (tmp_path / "results.tar.gz").unlink()
    submit(voc_test, tmp_path)  # finished: the archive alone is made again
    assert (tmp_path / "results.tar.gz").read_bytes() == before
    assert "2 masks" in capsys.readouterr().out


def test_what_the_server_would_not_take(voc_test, tmp_path, capsys):
    submit(voc_test, tmp_path)
    archive, mask = tmp_path / "results.tar.gz", tmp_path / "eval_seg/masks/2008_000009.png"
    archive.unlink()
    good = mask.read_bytes()
    for labels, message in (
        (np.full((24, 32), 255, np.uint8), "class indices 0 to 20, but holds 255"),
        (np.zeros((24, 31), np.uint8), "31 x 24 pixels, but its photograph 32 x 24"),
        (None, "1 of 2 masks are missing"),
    ):
        if labels is None:
            mask.unlink()
        else:
            picture = Image.fromarray(labels)
            picture.putpalette(voc_palette().tobytes())
            picture.save(mask)
        with pytest.raises(SystemExit) as stop:
            submit(voc_test, tmp_path)
        assert stop.value.code == 2 and not archive.exists()
        assert message in capsys.readouterr().err
    mask.write_bytes(good)
    submit(voc_test, tmp_path)
    assert archive.exists()


def test_the_archive_is_of_the_test_split(files, tmp_path, capsys):
    refused(files, tmp_path, "--submission s.tar.gz")
    assert "not of custom val" in capsys.readouterr().err
    assert not (tmp_path / "eval_seg").exists()
