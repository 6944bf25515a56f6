"""Every script from end to end on a generated data set of 12 scenes."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.classes import read_class_list
from datasets.demo import generate
from datasets.labels import read_csv_labels
from datasets.palette import voc_palette
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from tests.calling import REPOSITORY, call
from utils import checkpoints
from utils.training.supervision import SupervisedNetwork

SMALL = (
    "--backbone resnet18 --backbone_weights none --epochs 2 --batch 4 --crop 96 --long_side 96 112"
)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(root, images=12, validation=4, size=64, seed=0)
    return root


@pytest.fixture(scope="session")
def trained(scenes, tmp_path_factory):
    """Folder of runs in which everything was trained and evaluated."""
    runs = tmp_path_factory.mktemp("experiments")
    data = f"--dataset custom --root {scenes} --experiments {runs} --device cpu --workers 1"
    call("train_scn.py", f"{data} --epochs 1 --batch 4 --crop 64 --long_side 64 80 --lr 1e-3")
    for kind in ("image", "sal"):
        call(
            f"train_cls_{kind}.py",
            f"{data} {SMALL} --scn {runs}/scn/last.pt --score_images 4",
        )
        call(
            f"evaluator_cls_{kind}.py",
            f"{data} --checkpoint {runs}/cls_{kind}/best.pt --save_cams npz irn psa --scales 0.5 1",
        )
    return runs


def test_superpixels_by_clustering_on_a_folder(scenes, tmp_path, capsys):
    call(
        "train_scn.py",
        f"--images {scenes}/JPEGImages --objective clustering --chroma_weight 4 --amp --epochs 2 "
        f"--batch 4 --crop 64 --long_side 64 80 --lr 1e-3 --experiments {tmp_path} --device cpu "
        "--workers 0",
    )
    checkpoint = torch.load(tmp_path / "scn" / "last.pt", weights_only=True)
    assert (checkpoint["kind"], checkpoint["epoch"]) == ("scn", 2)
    log = (tmp_path / "scn" / "log.txt").read_text()
    epochs = re.findall(r"epoch ./2: loss ([0-9.]+)", log)
    assert float(epochs[1]) < float(epochs[0])
    assert "colour" not in log


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["scn", "cls_image", "cls_sal"])
def test_what_a_training_leaves(trained, tag):
    names = {path.name for path in (trained / tag).iterdir()}
    assert {"options.json", "log.txt", "last.pt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    options = json.loads((trained / tag / "options.json").read_text())
    assert options["script"].startswith("train_") and options["batch"] == 4
    log = (trained / tag / "log.txt").read_text()
    assert "epoch 1/" in log and "next: python" in log and "nan" not in log
    assert ("saliency maps: 12 of 12 photographs, covering" in log) == (tag == "cls_sal")


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["eval_image", "eval_sal"])
def test_what_an_evaluator_leaves(trained, scenes, tag):
    folder = trained / tag
    ids = (scenes / "ImageSets/Segmentation/train.txt").read_text().split()
    result = json.loads((folder / "result.json").read_text())
    assert result["images"] == len(ids) == 12
    assert [row["threshold"] for row in result["thresholds"]] == [
        0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4,
    ]  # fmt: skip
    assert result["best"]["miou"] == max(row["miou"] for row in result["thresholds"])
    classes = len(result["classes"])
    for row in result["thresholds"]:
        confusion = np.zeros((classes, classes), np.int64)
        for name in ids:
            label = Image.open(folder / "pseudo_labels" / f"{row['threshold']:g}" / f"{name}.png")
            truth = Image.open(scenes / "SegmentationClassAug" / f"{name}.png")
            assert label.mode == "P" and label.size == truth.size
            assert (np.array(label.getpalette()) == voc_palette().ravel()).all()
            np.add.at(confusion, (np.asarray(truth).ravel(), np.asarray(label).ravel()), 1)
        assert confusion.tolist() == row["confusion"]
    cams = np.load(folder / "cams" / f"{ids[0]}.npz")
    assert cams["cams"].dtype == np.float16 and len(cams["cams"]) == len(cams["classes"])
    assert Image.open(folder / "contact_sheet.png").width > 800
    page = (folder / "report.html").read_text()
    assert f"{100 * result['best']['miou']:.1f}" in page
    assert all(name in page for name in ids) and page.count("<img") > 4 * len(ids)


@pytest.mark.slow
def test_a_folder_of_photographs_without_masks(trained, scenes, tmp_path, capsys):
    photographs = tmp_path / "photos"
    photographs.mkdir()
    for i, path in enumerate(sorted((scenes / "JPEGImages").iterdir())[:3]):
        (photographs / f"my photo {i}.jpg").write_bytes(path.read_bytes())
    names = (scenes / "labels.txt").read_text().split()
    rows = [f"my photo {i},{names[0]},{names[1]}" for i in range(3)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    argv = [
        "evaluator_cls_image.py", "--images", str(photographs),
        "--labels", str(tmp_path / "labels.csv"), "--experiments", str(tmp_path),
        "--checkpoint", str(trained / "cls_image/best.pt"), "--threshold", "0.3",
        "--scales", "1", "--no_flip", "--workers", "0", "--device", "cpu",
    ]  # fmt: skip
    before, sys.argv = sys.argv, argv
    try:
        runpy.run_path(str(REPOSITORY / argv[0]), run_name="__main__")
    finally:
        sys.argv = before
    out = capsys.readouterr().out
    assert f"pseudo labels for 3 photographs of {photographs} from " in out and "not scored" in out
    page = (tmp_path / "eval_image/report.html").read_text()
    assert f"<dt>data set</dt> <dd>{photographs}</dd>" in page
    written = sorted((tmp_path / "eval_image/pseudo_labels").rglob("*.png"))
    assert [str(p.relative_to(tmp_path / "eval_image/pseudo_labels")) for p in written] == [
        f"0.3/my photo {i}.png" for i in range(3)
    ]
    assert "thresholds" not in json.loads((tmp_path / "eval_image/result.json").read_text())
    drawn = tmp_path / "eval_image/overlays/my photo 1.jpg"
    assert Image.open(drawn).size == Image.open(photographs / "my photo 1.jpg").size


def evaluate(trained, folder, arguments):
    call(
        "evaluator_cls_image.py",
        f"--experiments {folder} --checkpoint {trained}/cls_image/best.pt --scales 1 --workers 0 "
        f"--device cpu {arguments}",
    )
    return json.loads((folder / "eval_image/result.json").read_text())


@pytest.mark.slow
def test_predicted_labels_and_named_labels(trained, scenes, tmp_path):
    result = evaluate(
        trained, tmp_path, f"--images {scenes}/JPEGImages --labels predicted --score_threshold 0.4"
    )
    assert result["labels"] == "predicted" and result["score_threshold"] == 0.4
    assert result["images"] == 16 and "thresholds" not in result
    written = tmp_path / "eval_image/predicted.csv"
    _, predicted = read_csv_labels(written, read_class_list(scenes / "labels.txt"))
    assert len(predicted) == 16 and any(vector.any() for vector in predicted.values())
    evaluate(trained, tmp_path / "again", f"--images {scenes}/JPEGImages --labels {written}")
    for path in (tmp_path / "eval_image/pseudo_labels").rglob("*.png"):
        same = tmp_path / "again" / path.relative_to(tmp_path)
        assert path.read_bytes() == same.read_bytes()
    names = (scenes / "labels.txt").read_text().split()
    result = evaluate(
        trained,
        tmp_path,
        f"--images {scenes}/JPEGImages --labels {names[2]},{names[0]} --threshold 0 --overwrite",
    )
    assert result["labels"] == f"{names[2]},{names[0]}"
    for path in (tmp_path / "eval_image/pseudo_labels/0").iterdir():
        assert set(np.unique(np.asarray(Image.open(path)))) <= {0, 1, 3}


@pytest.mark.slow
def test_thresholds_without_masks(trained, scenes, tmp_path, capsys):
    """Those that are given are written; pictures show the one nearest to the best in training."""
    photograph = min((scenes / "JPEGImages").iterdir())
    images = f"--images {photograph} --labels predicted --max_side 40"
    evaluate(trained, tmp_path, f"{images} --score_threshold 1")
    usual = checkpoints.read(trained / "cls_image/best.pt")["threshold"]
    [folder] = (tmp_path / "eval_image/pseudo_labels").iterdir()
    assert folder.name == f"{usual:g}"
    said = capsys.readouterr().out
    one = f"1 photograph ({photograph.stem})"
    assert f"scaled down to 40 pixels for inference (--max_side): {one}" in said
    assert f"no class reaches --score_threshold: {one}" in said
    near, far = usual + 0.01, usual + 0.3
    found = evaluate(trained, tmp_path, f"{images} --thresholds {far} {near} --overwrite")
    folders = {folder.name for folder in (tmp_path / "eval_image/pseudo_labels").iterdir()}
    assert folders == {f"{near:g}", f"{far:g}"}
    assert found["threshold"] == near and found["best_labels"] == f"pseudo_labels/{near:g}"
    more = f"--thresholds {near} --threshold {far} --overwrite"
    found = evaluate(trained, tmp_path, f"{images} {more}")
    assert found["threshold"] == far and found["max_side"] == 40


@pytest.mark.slow
def test_uncertain_pixels_leave_the_scores_alone(trained, scenes, tmp_path, capsys):
    """tests/utils/labels/test_uncertain.py looks at the pixels: cams here are empty."""
    folder, data = tmp_path / "uncertain", f"--dataset custom --root {scenes} --thresholds 0.2"
    plain = evaluate(trained, tmp_path / "plain", data)
    found = evaluate(trained, folder, f"{data} --uncertain 0.1 0.3")
    assert found["thresholds"] == plain["thresholds"] and found["uncertain"] == [0.1, 0.3]
    assert "scores are those of the labels without 255" in capsys.readouterr().out
    assert (folder / "eval_image/report.html").is_file()


@pytest.mark.slow
def test_a_checkpoint_that_does_not_name_its_classes(trained, scenes, tmp_path):
    """As published ones: their order is the data set's, not that of the names in a CSV."""
    content = torch.load(trained / "cls_image/best.pt", weights_only=True)
    (tmp_path / "cls_image").mkdir()
    del content["classes"]
    torch.save(content, tmp_path / "cls_image/best.pt")
    names = (scenes / "labels.txt").read_text().split()
    rows = [f"{path.stem},{names[4]}" for path in (scenes / "JPEGImages").iterdir()]
    (tmp_path / "labels.CSV").write_text("\n".join(rows))
    evaluate(
        tmp_path,
        tmp_path,
        f"--images {scenes}/JPEGImages --labels {tmp_path}/labels.CSV --dataset custom "
        f"--root {scenes} --threshold 0",
    )
    for path in (tmp_path / "eval_image/pseudo_labels/0").iterdir():
        assert set(np.unique(np.asarray(Image.open(path)))) <= {0, 5}


@pytest.mark.slow
def test_masks_for_some_photographs_only(trained, scenes, tmp_path, capsys):
    """The last photographs have masks, the first do not: scored is what can be scored."""
    root = tmp_path / "partly"
    shutil.copytree(scenes, root)
    for path in sorted((root / "SegmentationClassAug").glob("scene_*"))[:9]:
        path.unlink()
    call(
        "train_cls_image.py",
        f"--dataset custom --root {root} --experiments {tmp_path} --device cpu --workers 0 "
        f"--scn {trained}/scn/last.pt {SMALL} --epochs 1 --score_images 2",
    )
    out = capsys.readouterr().out
    assert "training on 12 photographs" in out and "masks of 2 training images" in out
    assert "mIoU nan" not in out
    result = evaluate(tmp_path, tmp_path, f"--dataset custom --root {root}")
    assert "9 photographs have no mask" in capsys.readouterr().out
    assert len(list((tmp_path / "eval_image/pseudo_labels/0.1").iterdir())) == 12
    assert 0 <= result["best"]["miou"] <= 1


@pytest.mark.slow
def test_photographs_without_masks_are_shown_all_the_same(trained, scenes, tmp_path):
    root = tmp_path / "unmasked"
    shutil.copytree(scenes, root)
    shutil.rmtree(root / "SegmentationClassAug")
    call(
        "train_cls_image.py",
        f"--dataset custom --root {root} --experiments {tmp_path} --device cpu --workers 0 "
        f"--scn {trained}/scn/last.pt {SMALL} --epochs 1",
    )
    folder = tmp_path / "cls_image"
    (events,) = folder.glob("events.out.tfevents*")
    assert b"panels" in events.read_bytes() and b"score/miou" not in events.read_bytes()
    assert not (folder / "best.pt").exists()


@pytest.mark.slow
def test_the_last_checkpoint_uses_no_masks(trained):
    last, best = (
        torch.load(trained / f"cls_image/{name}.pt", weights_only=True) for name in ("last", "best")
    )
    assert (last["miou"], last["threshold"]) == (None, None)
    assert 0 <= best["miou"] <= 1 and 0 < best["threshold"] < 1


@pytest.mark.slow
def test_an_evaluation_that_went_on_says_what_its_seconds_are_of(trained, scenes, tmp_path):
    arguments = f"--dataset custom --root {scenes}"
    page = tmp_path / "eval_image/report.html"
    assert evaluate(trained, tmp_path, arguments)["inferred"] == 12
    assert "<dt>seconds</dt>" in page.read_text()
    (tmp_path / "eval_image/result.json").unlink()
    result = evaluate(trained, tmp_path, arguments)
    assert (result["images"], result["inferred"]) == (12, 8)  # those of the contact sheet
    assert "<dt>seconds, the last 8 of them</dt>" in page.read_text()


@pytest.mark.slow
def test_nothing_to_score_is_valid_json(trained, scenes, tmp_path):
    root = tmp_path / "void"
    shutil.copytree(scenes, root)
    for path in (root / "SegmentationClassAug").iterdir():
        with Image.open(path) as mask:
            Image.new("L", mask.size, 255).save(path)
    result = evaluate(trained, tmp_path, f"--dataset custom --root {root}")
    assert result["best"]["miou"] is None


@pytest.mark.slow
def test_a_list_of_ones_own_is_kept_by_the_next_command(scenes, tmp_path, capsys):
    """It is a split, and what all its stages are told."""
    root = tmp_path / "scenes"
    shutil.copytree(scenes, root)
    ids = sorted(path.stem for path in (root / "JPEGImages").iterdir())
    (root / "ImageSets/Segmentation/fold.txt").write_text("\n".join(ids[:4]))
    data = f"--dataset custom --root {root} --split fold --experiments {tmp_path}/e --device cpu"
    for script, options, following in (
        ("train_scn.py", "--crop 64 --long_side 64 80", "train_cls_image.py --scn"),
        ("train_cls_image.py", f"{SMALL} --score_images 0", "evaluator_cls_image.py --checkpoint"),
        ("evaluator_cls_image.py", "--scales 1 --no_flip", "train_seg.py --labels_from eval_image"),
    ):
        more = "" if script.startswith("evaluator") else "--epochs 1 --batch 4"
        call(script, f"{data} --workers 0 {options} {more}")
        [line] = re.findall("next: .*", capsys.readouterr().out)
        assert line.startswith(f"next: python {following}") and " --split fold" in line


@pytest.mark.slow
def test_refined_and_exported(trained, scenes, tmp_path, capsys):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is an optional package")
    arguments = (
        f"--dataset custom --root {scenes} --split val --thresholds 0.2 0.6 --crf --crf_workers 1"
    )
    evaluate(trained, tmp_path, arguments)
    assert "next:" not in capsys.readouterr().out, "nothing learns from validation photographs"
    # Asked for later, the export needs no inference.
    before = (tmp_path / "eval_image/result.json").stat().st_mtime_ns
    result = evaluate(trained, tmp_path, f"{arguments} --export_deeplab {tmp_path}/tree")
    assert (tmp_path / "eval_image/result.json").stat().st_mtime_ns == before
    assert len(result["thresholds"]) == len(result["crf"]["thresholds"]) == 2
    mious = {"pseudo_labels": result["best"], "pseudo_labels_crf": result["crf"]["best"]}
    folder = max(mious, key=lambda name: mious[name]["miou"])
    root = tmp_path / "tree/VOC2012"
    lines = (root / "ImageSets/SegmentationAug/train_aug.txt").read_text().splitlines()
    assert len(lines) == 4
    for line in lines:
        image, label = (root / part[1:] for part in line.split(" "))
        chosen = tmp_path / "eval_image" / folder / f"{mious[folder]['threshold']:g}" / label.name
        assert label.read_bytes() == chosen.read_bytes()
        assert Image.open(image).size == Image.open(label).size


@pytest.mark.slow
def test_the_summary(trained, tmp_path, capsys):
    before, sys.argv = (
        sys.argv,
        ["summary", str(trained / "eval_image"), str(trained / "eval_sal")],
    )
    sys.argv += ["--sheet", str(tmp_path / "sheet.png")]
    try:
        runpy.run_module("utils.pictures.summary", run_name="__main__")
    finally:
        sys.argv = before
    out = capsys.readouterr().out
    assert "eval_image" in out and "best" in out and " on train\n" in out
    assert Image.open(tmp_path / "sheet.png").height > 1000


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(trained, scenes, tmp_path):
    weights = []
    for run, (seed, workers) in enumerate([(5, 0), (5, 2), (6, 0)]):
        call(
            "train_cls_image.py",
            f"--dataset custom --root {scenes} --experiments {tmp_path} --tag r{run} --device cpu "
            f"--scn {trained}/scn/last.pt {SMALL} --epochs 1 --score_images 0 --seed {seed} "
            f"--workers {workers}",
        )
        weights.append(torch.load(tmp_path / f"r{run}/last.pt", weights_only=True)["model"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["classifier.weight"], weights[2]["classifier.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train_scn.py", "--voc_root {tmp}/nowhere", "nowhere: no such folder"),
        ("train_scn.py", "--dataset custom --root {root} --crop 100", "--crop 100: must be a mult"),
        ("train_scn.py", "--dataset custom --root {root} --split test", "--split test"),
        ("train_scn.py", "--dataset custom --root {root} --device tpu", "--device tpu"),
        ("train_scn.py", "--dataset custom --root {root} --lr -1", "--lr: -1 must be above"),
        ("train_scn.py", "--dataset custom --root {root} --lr nan", "argument --lr: nan must be"),
        ("train_cls_image.py", "--dataset custom --root {root} --scn no.pt", "--scn no.pt"),
        (
            "train_cls_image.py",
            "--dataset custom --root {root} --scn {runs}/scn/last.pt --backbone_weights no.pth",
            "--backbone_weights no.pth: no such file",
        ),
        (
            "train_cls_image.py",
            "--dataset custom --root {root} --scn {runs}/scn/last.pt --patches 5 "
            "--backbone_weights none",
            "--patches 5: must be a square",
        ),
        ("evaluator_cls_sal.py", "--dataset custom --root {root} --checkpoint no.pt", "no.pt: no"),
        (
            "train_cls_image.py",
            "--dataset custom --root {root} --scn {runs}/scn/last.pt --crop 64 "
            "--patches 9 --backbone_weights none",
            "--crop 64: too small for --patches 9",
        ),
        ("train_scn.py", "--dataset custom --root {root} --seed 99999999999999999999", "--seed"),
        ("train_scn.py", "--dataset custom --root {root} --tag=", "--tag"),
        (
            "evaluator_cls_sal.py",
            "--dataset custom --root {root} --checkpoint {runs}/cls_sal/best.pt "
            "--thresholds 0.3 0.3000000001",
            "--thresholds: two of them agree",
        ),
        (
            "evaluator_cls_sal.py",
            "--images {root}/JPEGImages --checkpoint {runs}/cls_sal/best.pt --labels ,",
            "names no class",
        ),
        (
            "evaluator_cls_sal.py",
            "--images {root}/JPEGImages --labels dragon --score_threshold 0.3",
            "--score_threshold 0.3: needs --labels predicted",
        ),
        (
            "evaluator_cls_sal.py",
            "--images {root}/JPEGImages --checkpoint {runs}/cls_sal/best.pt --labels predicted "
            "--labels_file {root}/labels.csv",
            "labels.csv: is of a data set; leave it or --images out",
        ),
        (
            "evaluator_cls_sal.py",
            "--images {root}/JPEGImages --split val --labels dragon",
            "--split val: is of a data set; leave it or --images out",
        ),
        ("evaluator_cls_sal.py", "--images {root} --checkpoint {runs}/cls_sal/best.pt", "--labels"),
        (
            "evaluator_cls_sal.py",
            "--images {root}/JPEGImages --checkpoint {runs}/cls_sal/best.pt --labels dragon",
            "--labels: no class 'dragon'",
        ),
        (
            "evaluator_cls_sal.py",
            "--dataset custom --root {root} --checkpoint {runs}/scn/last.pt",
            "a superpixel network",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_answered_in_one_line(
    trained, scenes, tmp_path, capsys, script, arguments, message
):
    with pytest.raises(SystemExit) as stop:
        call(
            script,
            f"{arguments} --experiments {tmp_path}/e",
            root=scenes,
            runs=trained,
            tmp=tmp_path,
        )
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2
    assert "error: " in error and message in error
    assert not (tmp_path / "e").exists()


def test_nobody_must_train_superpixels_first(scenes, tmp_path, capsys):
    own = tmp_path / "own"
    shutil.copytree(scenes, own)
    (own / "labels.txt").write_text((own / "labels.txt").read_text() + "dragon\n")
    call(
        "train_cls_image.py",
        f"--dataset custom --root {own} --experiments {tmp_path} --device cpu --workers 0 "
        f"{SMALL} --epochs 1 --score_images 0 --patches 9",
    )
    out = capsys.readouterr().out
    assert f"superpixel network {REPOSITORY / 'data/scn_bsds500.pt'}" in out
    assert "note: no photograph to train on for 1 of 7 classes: dragon" in out
    assert "note: --patches 9 cuts crops of 96 into patches of 2 x 2 superpixels" in out
    content = torch.load(tmp_path / "cls_image/last.pt", weights_only=True)
    shipped = torch.load(REPOSITORY / "data/scn_bsds500.pt", weights_only=True)["model"]
    assert all(
        torch.equal(content["scn"][n], shipped[n].to(content["scn"][n].dtype)) for n in shipped
    )
    assert content["scn"]["conv0a.0.weight"].dtype == torch.float32


@pytest.mark.slow
def test_bfloat16_and_accumulation_train_too(trained, scenes, tmp_path):
    call(
        "train_cls_image.py",
        f"--dataset custom --root {scenes} --experiments {tmp_path} --device cpu --workers 0 "
        f"--scn {trained}/scn/last.pt {SMALL} --score_images 2 --amp --accumulate 2",
    )
    weights = torch.load(tmp_path / "cls_image/last.pt", weights_only=True)["model"]
    assert all(value.dtype != torch.bfloat16 for value in weights.values())
    assert all(torch.isfinite(value).all() for value in weights.values())


@pytest.mark.slow
def test_missing_saliency_maps_are_counted_before_training(trained, scenes, tmp_path, capsys):
    (tmp_path / "sal").mkdir()
    for path in sorted((scenes / "saliency_map").iterdir())[2:]:
        (tmp_path / "sal" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(SystemExit) as stop:
        call(
            "train_cls_sal.py",
            f"--dataset custom --root {scenes} --sal_root {tmp_path}/sal {SMALL} "
            f"--scn {trained}/scn/last.pt --experiments {tmp_path}/e",
        )
    assert stop.value.code == 2
    assert "2 of 12 photographs have no saliency map" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_that_are_not_forked(trained, scenes, tmp_path):
    """As macOS, Windows and, from Python 3.14 on, Linux start those that read photographs."""
    code = (
        "import multiprocessing, runpy, sys; multiprocessing.set_start_method('spawn'); "
        "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    data = f"--dataset custom --root {scenes} --experiments {tmp_path} --device cpu --workers 1"
    for script, options in (
        ("train_cls_sal.py", f"{SMALL} --epochs 1 --score_images 2 --scn {trained}/scn/last.pt"),
        (
            "evaluator_cls_sal.py",
            f"--checkpoint {tmp_path}/cls_sal/last.pt --scales 1 --no_flip --beta 0",
        ),
    ):
        command = [sys.executable, "-c", code, script, *f"{data} {options}".split()]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_error_shows_no_traceback_in_a_process_of_its_own(tmp_path):
    """Also from another folder: the scripts do not depend on where they are called."""
    command = [sys.executable, str(REPOSITORY / "train_scn.py"), "--voc_root", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: nowhere: no such folder") and "\n" not in done.stderr.strip()
    )


@pytest.mark.parametrize(
    "script",
    [
        *(p.name for p in REPOSITORY.glob("train_*.py")),
        "evaluator_cls_image.py",
        "evaluator_cls_sal.py",
        "evaluator_seg.py",
    ],
)
def test_help(script, capsys):
    with pytest.raises(SystemExit) as stop:
        call(script, "--help")
    out = capsys.readouterr().out
    assert stop.value.code == 0 and "docs/method.md" in out and "(default: " in out
    assert re.search(r"--seed N\s[^-]*\(default: 0\)", out)  # 0 is a default too


def test_a_batch_can_be_split_as_data_parallel_splits_it():
    """Replicas see parts of a batch; the parts' outputs, gathered, are those of the whole."""
    torch.manual_seed(0)
    network = SupervisedNetwork(
        Classifier(build_backbone("resnet18"), 4), SuperpixelNet(), beta=2, gamma=0.6
    ).eval()
    images, target = torch.randn(4, 3, 48, 32), torch.randn(4, 2, 48, 32)
    boxes = torch.tensor([[0, 0, 48, 32], [3, 0, 40, 32], [0, 5, 48, 30], [0, 0, 48, 32]])
    whole = network(images, target, boxes)
    parts = zip(
        *(network(images[i : i + 2], target[i : i + 2], boxes[i : i + 2]) for i in (0, 2)),
        strict=True,
    )
    for one, halves in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, torch.cat(halves), rtol=1e-4, atol=1e-4)
    assert network.train().scn.training is False


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:vit_xsmall_patch16_clip_224", "timm:mobilenetv3_small_050"])
def test_a_backbone_of_timm_in_all_scripts(scenes, tmp_path, name):
    """Trained, reopened by its evaluator, and handed on to the segmentation network."""
    pytest.importorskip("timm")
    data = f"--dataset custom --root {scenes} --experiments {tmp_path} --device cpu --workers 0"
    small = SMALL.replace("resnet18", name)
    call("train_cls_image.py", f"{data} {small} --score_images 4")
    assert torch.load(tmp_path / "cls_image/best.pt", weights_only=True)["backbone"] == name
    call("evaluator_cls_image.py", f"{data} --scales 0.5 1")
    call(
        "train_seg.py",
        f"{data} --split train --backbone {name} --backbone_weights {tmp_path}/cls_image/last.pt "
        "--crop 65 --batch 4 --steps 2 --score_every 2 --score_images 2",
    )
    call("evaluator_seg.py", f"{data} --split val")
    assert len(list((tmp_path / "eval_seg/masks").glob("*.png"))) == 4
