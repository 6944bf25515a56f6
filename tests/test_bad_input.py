"""The table in docs/errors.md, row by row: a script meets a data set that is broken in one way, and
answers with the row's message in one line on stderr and exit status 2."""

import argparse
import errno
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from datasets import check, demo, prepare
from datasets.files import InputError
from datasets.scenes import CLASSES
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.deeplab import DeepLab
from networks.superpixel import SuperpixelNet
from utils import checkpoints

REPOSITORY = Path(__file__).parents[1]
MODULES = {"datasets.prepare": prepare, "datasets.check": check}

RUN = "--experiments {runs} --tag new --device cpu --workers 0"
OWN = f"--dataset custom --root {{root}} {RUN}"
SHORT = "--epochs 1 --batch 2"
SMALL = "--backbone resnet18 --backbone_weights none --crop 96 --long_side 96 112"
INFER = "--scales 0.5 --no_flip"
COMMANDS = {
    "train_scn": f"train_scn.py {OWN} {SHORT} --crop 64 --long_side 64 80",
    "train_image": f"train_cls_image.py {OWN} {SHORT} {SMALL} --score_images 9",
    "train_sal": f"train_cls_sal.py {OWN} {SHORT} {SMALL} --score_images 0",
    "evaluate": f"evaluator_cls_image.py {OWN} {INFER} --thresholds 0.3",
    "train_seg": f"train_seg.py {OWN} --split train --pseudo_labels masks --backbone resnet18 "
    "--backbone_weights none --stride 16 --crop 64 --batch 2 --accumulate 1 --steps 2 "
    "--score_every 2 --score_images 0",
    "evaluate_seg": f"evaluator_seg.py {OWN} --split train",
    "folder": f"evaluator_cls_image.py --images {{root}}/JPEGImages --labels ball {RUN} {INFER}",
    "prepare": "datasets.prepare custom --root {root} --workers 1",
    "check": "datasets.check --dataset custom --root {root} --workers 1",
    "scores": "utils.scores --pred {root}/labels --gt {root}/SegmentationClassAug "
    "--list {root}/ImageSets/Segmentation/train.txt --classes {root}/labels.txt",
    "cams": "utils.labels.from_cams --cams {root}/cams --classes {root}/labels.txt "
    "--out {runs}/new",
    "superpixels": "utils.pictures.superpixels --images {root}/ids --out {root} --device cpu",
}
TRAIN_CLS = ("train_image", "train_sal")
LABELLED = (*TRAIN_CLS, "evaluate")
SEGMENTING = ("train_seg", "evaluate_seg")
SCORED = ("train_image", "evaluate", *SEGMENTING)
PHOTOGRAPHS = ("train_scn", *LABELLED, *SEGMENTING, "folder")
LISTS = ("train_scn", *LABELLED, "prepare")

PHOTO = "JPEGImages/scene_0002.jpg"
MASK = "SegmentationClassAug/scene_0002.png"
SALIENCY = "saliency_map/scene_0002.png"
XML = "Annotations/scene_0002.xml"
LIST = "ImageSets/Segmentation/train.txt"
SCN, CLASSIFIER = "../runs/scn/last.pt", "../runs/cls_image/best.pt"
SEGMENTATION = "../runs/seg/last.pt"


# --- ways to break a file -------------------------------------------------------------------------


def text(content: str) -> Callable[[Path], None]:
    return lambda path: replace(path, content.encode())


def replace(path, content):
    """A new file: checkpoints are links to those that all tests share."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def cut(path):
    replace(path, path.read_bytes()[: path.stat().st_size * 9 // 10])


def huge(path):
    """A PNG whose header promises 50000 x 50000 pixels."""
    Image.new("L", (1, 1)).save(path, "PNG")
    content = bytearray(path.read_bytes())
    content[16:24] = (50000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def resized(path):
    with Image.open(path) as mask:
        mask.resize((9, 9)).save(path)


def class_200(path):
    with Image.open(path) as mask:
        Image.new("L", mask.size, 200).save(path)


def coloured(path):
    with Image.open(path) as mask:
        colours = mask.convert("RGB")
    colours.save(path)


def fractions(path):
    """A TIFF of grey values from 0 to 1 under the photograph's name."""
    with Image.open(path) as photograph:
        grey = np.asarray(photograph.convert("L"), np.float32) / 255
    Image.fromarray(grey).save(path, "TIFF")


def only_gifs(folder):
    for path in folder.iterdir():
        path.rename(path.with_suffix(".gif"))


def separated_by(sign):
    def damage(root):
        csv_labels(f"scene_0002{sign}box")(root)
        table = root / "labels.csv"
        table.write_text(table.read_text().replace(",", sign))

    return damage


def latin(root):
    csv_labels("scene_0002,box")(root)
    table = root / "labels.csv"
    table.write_bytes(table.read_bytes() + "#é".encode("latin-1"))


def background_last(path):
    path.write_text(path.read_text() + "background\n")


def without_labels(root):
    shutil.rmtree(root / "Annotations")


def without_objects(path):
    path.write_text(re.sub(r"(?s)<object>.*</object>", "", path.read_text()))


def zebra(path):
    path.write_text(re.sub(r"(?s)(<object>\s*<name>)\w+", r"\1zebra", path.read_text()))


def same_id(path):
    shutil.copy(path, path.with_suffix(".jpeg"))


def space_at_the_end(path):
    shutil.copy(path, path.with_name("scene .jpg"))


def csv_labels(*lines: str) -> Callable[[Path], None]:
    """labels.csv instead of the XML files: a class for all scenes, but `lines` for their own."""

    def damage(root: Path) -> None:
        shutil.rmtree(root / "Annotations")
        own = {line.partition(",")[0] for line in lines}
        ids = [path.stem for path in (root / "JPEGImages").iterdir()]
        rest = [f"{identifier},{CLASSES[0]}" for identifier in ids if identifier not in own]
        (root / "labels.csv").write_text("\n".join([*rest, *lines]))

    return damage


CSV_TWICE = csv_labels(f"a,{CLASSES[0]},{CLASSES[1]}", "a")


def npy_labels(classes: int, zeros: str = "") -> Callable[[Path], None]:
    """A published label file, in which one photograph has no class."""

    def damage(root: Path) -> None:
        ids = (root / LIST).read_text().split()
        labels = {i: np.full(classes, i != zeros, np.float32) for i in ids}
        np.save(root / "labels.npy", np.array(labels, dtype=object), allow_pickle=True)

    return damage


def classifier(classes=CLASSES, **changes) -> Callable[[Path], None]:
    """A checkpoint of an untrained classifier; `changes` are made to what it says of itself."""

    def write(path: Path) -> None:
        torch.manual_seed(0)
        path.unlink(missing_ok=True)
        network = Classifier(build_backbone("resnet18"), len(classes) + 1)
        content = {
            "kind": "classifier",
            "backbone": "resnet18",
            "dcr": True,
            "classes": list(classes),
            "threshold": 0.3,
            "model": network.state_dict(),
            "scn": SuperpixelNet().state_dict(),
        }
        checkpoints.save(path, content | changes)

    return write


def giant(path):
    """A small checkpoint that names a network of half a billion weights and more."""
    pytest.importorskip("timm")
    weights = {"classifier.weight": torch.ones(len(CLASSES) + 1, 1280, 1, 1)}
    classifier(backbone="timm:vit_huge_patch14_224", model=weights)(path)


def segmentation(path):
    """Write a segmentation network of the generated data's classes."""
    content = {
        "kind": "segmentation",
        "backbone": "resnet18",
        "trunk": "torchvision",
        "stride": 16,
        "classes": list(CLASSES),
        "model": DeepLab(build_backbone("resnet18"), len(CLASSES) + 1).state_dict(),
    }
    checkpoints.save(path, content)


def labels_but(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    """Label maps of all scenes, of which one is damaged."""

    def write(root: Path) -> None:
        shutil.copytree(root / "SegmentationClassAug", root / "labels")
        damage(root / "labels/scene_0002.png")

    return write


def cams(**arrays) -> Callable[[Path], None]:
    """The cams of one photograph."""

    def write(path: Path) -> None:
        path.parent.mkdir()
        np.savez(path, **arrays)

    return write


def photographs_called_ids(root):
    (root / "JPEGImages").rename(root / "ids")


def earlier_run(path):
    """Files that an earlier run of the tag has left."""
    other_files(path)
    (path.parent / "options.json").write_text("{}")


def other_files(path):
    """A file with the name of a run's, where no run has been."""
    path.parent.mkdir()
    path.write_text("{}")


def nothing(_):
    pass


def with_timm(_):
    pytest.importorskip("timm")


# --- the cases ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A way to break something, and who meets it.

    `name` is the first column of the row in docs/errors.md; `damage` is called with root / `file`;
    `named` is in the answer: the file or option. `options` are added to the command.
    """

    name: str
    file: str
    damage: Callable[[Path], object]
    stages: tuple[str, ...]
    named: str
    options: str = ""


CASES = [
    Case("truncated photograph", PHOTO, cut, PHOTOGRAPHS, PHOTO),
    Case("empty photograph", PHOTO, text(""), PHOTOGRAPHS, PHOTO),
    Case("file that is not a photograph", PHOTO, text("<html>404"), PHOTOGRAPHS, PHOTO),
    Case("huge photograph", PHOTO, huge, PHOTOGRAPHS, PHOTO),
    Case("truncated mask or saliency map", MASK, cut, SCORED, MASK),
    Case("truncated mask or saliency map", SALIENCY, cut, ("train_sal",), SALIENCY),
    Case("mask of another size", MASK, resized, SCORED, MASK),
    Case("class index out of range", MASK, class_200, SCORED, MASK),
    Case("photograph missing", PHOTO, Path.unlink, LISTS[:-1], "scene_0002"),
    Case("label missing", XML, Path.unlink, TRAIN_CLS, PHOTO),
    Case("label missing, evaluator", XML, Path.unlink, ("evaluate",), "scene_0002"),
    Case("photograph without any class", XML, without_objects, LABELLED, PHOTO),
    Case("photograph without any class", "", csv_labels("scene_0002"), LABELLED, PHOTO),
    Case(
        "photograph without any class",
        "",
        npy_labels(len(CLASSES), zeros="scene_0002"),
        LABELLED,
        PHOTO,
        "--labels_file {root}/labels.npy",
    ),
    Case("unknown class in an XML", XML, zebra, LISTS, XML),
    Case("truncated XML", XML, cut, LISTS, XML),
    Case("unknown class in a CSV", "", csv_labels("scene_0002,zebra"), LISTS, "labels.csv, line "),
    Case("empty list", LIST, text("\n"), (*LISTS, "check"), LIST),
    Case("id twice in a list", LIST, text("scene_0001\nscene_0001\n"), (*LISTS, "check"), LIST),
    Case("id twice in a CSV", "", CSV_TWICE, (*LISTS, "check"), "labels.csv, line "),
    Case("two photographs of one id", PHOTO, same_id, (*LISTS, "check"), "JPEGImages"),
    Case(
        "option of a data set beside --images",
        "",
        nothing,
        ("evaluate", "evaluate_seg", "train_scn"),
        "--split trial",
        "--images {root}/JPEGImages --split trial",
    ),
    Case(
        "label file of other classes",
        "",
        npy_labels(7),
        LISTS,
        "labels.npy",
        "--labels_file {root}/labels.npy",
    ),
    Case(
        "file that is not a label file",
        "labels.npy",
        text("id,class"),
        LISTS,
        "labels.npy",
        "--labels_file {root}/labels.npy",
    ),
    Case("checkpoint of another class count", CLASSIFIER, classifier("abc"), ("evaluate",), "best"),
    Case("checkpoint of other classes", CLASSIFIER, classifier("abcdef"), ("evaluate",), "best.pt"),
    Case(
        "checkpoint of another backbone",
        CLASSIFIER,
        classifier(backbone="resnet34"),
        ("evaluate",),
        "best.pt",
    ),
    Case(
        "checkpoint of another backbone",
        "../runs/resnet34.pth",
        lambda path: torch.save(build_backbone("resnet34").state_dict(), path),
        ("train_image",),
        "resnet34.pth",
        "--backbone_weights {runs}/resnet34.pth",
    ),
    Case(
        "network of another backbone to begin with",
        CLASSIFIER,
        classifier(backbone="resnet34"),
        ("train_seg",),
        "holds the backbone 'resnet34', not resnet18; name that with --backbone",
        "--backbone_weights {runs}/cls_image/best.pt",
    ),
    Case(
        "crop too small to learn batch statistics",
        "",
        nothing,
        ("train_seg",),
        "--crop 33: at the smallest scale, 0.5, it is one position of features",
        "--crop 33",
    ),
    Case(
        "network of timm that cannot be cut",
        "",
        with_timm,
        ("train_image", "train_seg"),
        "--backbone timm:swin_tiny_patch4_window7_224",
        "--backbone timm:swin_tiny_patch4_window7_224",
    ),
    Case(
        "network that timm lacks",
        "",
        with_timm,
        ("train_image", "train_seg"),
        "--backbone timm:resnet51",
        "--backbone timm:resnet51",
    ),
    Case("truncated checkpoint", CLASSIFIER, cut, ("evaluate",), "best.pt"),
    Case("truncated checkpoint", SCN, cut, TRAIN_CLS, "scn/last.pt"),
    Case("truncated checkpoint", SEGMENTATION, cut, ("evaluate_seg",), "seg/last.pt"),
    Case(
        "checkpoint of a network larger than itself",
        CLASSIFIER,
        giant,
        ("evaluate",),
        "best.pt",
    ),
    Case(
        "checkpoint of another stage",
        "",
        nothing,
        ("evaluate_seg",),
        "cls_image/best.pt",
        "--checkpoint {runs}/cls_image/best.pt",
    ),
    Case(
        "checkpoint of another stage, classifier",
        "",
        nothing,
        ("evaluate",),
        "seg/last.pt",
        "--checkpoint {runs}/seg/last.pt",
    ),
    Case(
        "training state as a checkpoint",
        "",
        nothing,
        ("evaluate", "evaluate_seg"),
        "seg/training.pt",
        "--checkpoint {runs}/seg/training.pt",
    ),
    Case(
        "folder as a checkpoint",
        "",
        nothing,
        ("evaluate", "evaluate_seg"),
        "runs/seg/last.pt",
        "--checkpoint {runs}/seg",
    ),
    Case(
        "pseudo labels that nobody made",
        "",
        nothing,
        ("train_seg",),
        "runs/eval_image",
        "--pseudo_labels {runs}/eval_image",
    ),
    Case("file that is not a checkpoint", CLASSIFIER, text("<html>"), ("evaluate",), "best.pt"),
    Case("file that is not a checkpoint", SCN, text(""), TRAIN_CLS, "scn/last.pt"),
    Case(
        "file that is not a checkpoint",
        "",
        nothing,
        ("train_image",),
        "labels.txt",
        "--backbone_weights {root}/labels.txt",
    ),
    Case("tag that is taken", "../runs/new/result.json", earlier_run, PHOTOGRAPHS, "runs/new"),
    Case(
        "folder of a run of another kind",
        "../runs/new/evaluation.json",
        earlier_run,
        ("train_scn", "train_image"),
        "runs/new: holds an evaluation",
        "--overwrite",
    ),
    Case(
        "folder of a run of another kind",
        "../runs/new/last.pt",
        earlier_run,
        ("folder",),
        "runs/new: holds a training",
        "--overwrite",
    ),
    Case("folder outside --experiments", "", nothing, ("train_scn",), "'..'", "--tag .."),
    Case(
        "folder that is no run's",
        "../runs/new/result.json",
        other_files,
        PHOTOGRAPHS,
        "result.json",
        "--overwrite",
    ),
    Case("root that does not exist", "", nothing, (*LISTS, "check"), "--root", "--root nowhere"),
    Case("root that does not exist", "", nothing, ("folder",), "--images", "--images nowhere"),
    Case("root that does not exist", "", nothing, ("train_sal",), "_root", "--sal_root nowhere"),
    Case(
        "folder that cannot be written",
        "",
        nothing,
        ("train_scn",),
        "labels.txt/new",
        "--experiments {root}/labels.txt",
    ),
    Case(
        "folder that cannot be written",
        "",
        nothing,
        TRAIN_CLS,
        "labels.txt/new",
        "--experiments {root}/labels.txt --scn {runs}/scn/last.pt",
    ),
    Case(
        "folder that cannot be written",
        "",
        nothing,
        ("evaluate",),
        "labels.txt/new",
        "--experiments {root}/labels.txt --checkpoint {runs}/cls_image/best.pt",
    ),
    Case("option out of range", "", nothing, PHOTOGRAPHS, "argument --seed: -1", "--seed -1"),
    Case(
        "two ways to cut affinities",
        "",
        nothing,
        (*LABELLED, "folder"),
        "argument --gamma_keep",
        "--gamma 0.6 --gamma_keep 0.1",
    ),
    Case(
        "affinity threshold out of range",
        "",
        nothing,
        (*LABELLED, "folder"),
        "argument --gamma: 0.9995",
        "--gamma 0.9995",
    ),
    Case(
        "root of another data set",
        "",
        nothing,
        (*PHOTOGRAPHS[:-1], "check"),
        "--root ",
        "--dataset voc12",
    ),
    Case(
        "root of another data set",
        "",
        nothing,
        ("prepare", "folder"),
        "--coco_sal_root",
        "--coco_sal_root {root}",
    ),
    Case("colour picture as a mask", MASK, coloured, SCORED, MASK),
    Case("photograph of fractions", PHOTO, fractions, PHOTOGRAPHS, PHOTO),
    Case("folder without photographs", "JPEGImages", only_gifs, ("folder",), "JPEGImages"),
    Case("folder without photographs", "JPEGImages", only_gifs, (*LISTS, "check"), "JPEGImages"),
    Case("semicolons or tabs in a CSV", "", separated_by(";"), (*LISTS, "check"), "labels.csv"),
    Case("semicolons or tabs in a CSV", "", separated_by("\t"), (*LISTS, "check"), "labels.csv"),
    Case("CSV in another encoding", "", latin, (*LISTS, "check"), "labels.csv"),
    Case("background among the classes", "labels.txt", background_last, LISTS, "labels.txt"),
    Case("label missing", "", without_labels, TRAIN_CLS, "complete labels.csv"),
    Case("id with a space at an end", PHOTO, space_at_the_end, (*LISTS, "check"), "JPEGImages"),
    Case("label maps missing", "", labels_but(Path.unlink), ("scores",), "labels: 1 of 4 "),
    Case(
        "label map of another size", "", labels_but(resized), ("scores",), "scene_0002.png: 9 x 9"
    ),
    Case("file without cams", "cams/a.npz", cams(cams=np.ones((1, 4, 4))), ("cams",), "a.npz"),
    Case(
        "cams outside 0..1",
        "cams/a.npz",
        cams(cams=np.full((1, 4, 4), 7.0), classes=np.array([0])),
        ("cams",),
        "a.npz: cams from 7 to 7",
    ),
    Case("superpixels over photographs", "", photographs_called_ids, ("superpixels",), "root/ids"),
    Case(
        "export over a data set",
        "VOC2012/own.txt",
        earlier_run,
        ("evaluate",),
        "--export_deeplab",
        "--export_deeplab {root}",
    ),
]


# --- running --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A folder with a good data set `root` and the checkpoints that scripts look for in `runs`."""
    folder = tmp_path_factory.mktemp("originals")
    demo.generate(folder / "root", images=4, validation=2, size=64, seed=0)
    torch.manual_seed(0)
    scn = {"kind": "scn", "epoch": 1, "model": SuperpixelNet().state_dict()}
    checkpoints.save(folder / "runs/scn/last.pt", scn)
    classifier()(folder / "runs/cls_image/best.pt")
    segmentation(folder / "runs/seg/last.pt")
    state = {"kind": "training", "model": checkpoints.read(folder / "runs/seg/last.pt")["model"]}
    checkpoints.save(folder / "runs/seg/training.pt", state)
    (folder / "runs/eval_image/pseudo_labels/0.3").mkdir(parents=True)
    (folder / "runs/eval_image/pseudo_labels/0.3/scene_0001.png").write_bytes(b"earlier")
    return folder


@pytest.fixture
def places(originals, tmp_path):
    """A copy of the originals, to be broken; checkpoints are links."""
    shutil.copytree(originals / "root", tmp_path / "root")
    shutil.copytree(originals / "runs", tmp_path / "runs", copy_function=os.link)
    return {"root": tmp_path / "root", "runs": tmp_path / "runs"}


@pytest.fixture
def answer(places, capsys, monkeypatch):
    """A function (command, further arguments) -> exit status, stderr as a terminal leaves it."""

    def run(command, *more):
        words = f"{command} {' '.join(more)}".split()
        script, *arguments = [word.format(**places) for word in words]
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        status = 0
        try:
            if script in MODULES:
                status = MODULES[script].main(arguments)
            elif script.endswith(".py"):
                runpy.run_path(str(REPOSITORY / script), run_name="__main__")
            else:
                runpy.run_module(script, run_name="__main__")
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        # A bar is overwritten by what follows its carriage return.
        return status, re.sub(r"[^\n]*\r", "", captured.err), captured.out

    return run


def state(folder):
    """What would differ if a file in the folder had been touched."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def half_written(folder):
    return [path for path in folder.rglob(".*") if path.is_file()]


def table():
    """What one sees, by what is wrong, of the table in docs/errors.md."""
    page = (REPOSITORY / "docs/errors.md").read_text()
    rows = re.findall(r"(?m)^\| ([^|]+) \| `([^|]+)` \|", page)
    assert len(rows) == len(dict(rows)) > 20
    return dict(rows)


def assert_one_line(status, error, name, named=""):
    """One line on stderr that agrees with the row's message, `..` and capitals standing for any."""
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n")
    pieces = (re.escape(piece) for piece in re.split(r"\.\.|\b[A-Z]{2,}\b|\bN\b", table()[name]))
    assert re.search(".*".join(pieces), error), error
    assert named in error, error


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    ("case", "stage"),
    [
        pytest.param(
            *(case, stage),
            id=f"{case.name}, {number}, {stage}",
            marks=pytest.mark.slow if stage != case.stages[0] else (),
        )
        for number, case in enumerate(CASES)
        for stage in case.stages
    ],
)
def test_one_line_and_nothing_harmed(answer, places, case, stage):
    case.damage(places["root"] / case.file)
    before = state(places["root"]) | state(places["runs"])
    status, error, _ = answer(COMMANDS[stage], case.options)
    assert_one_line(status, error, case.name, case.named)
    after = state(places["root"]) | state(places["runs"])
    assert before.items() <= after.items()
    assert all(places["runs"] / "new" in path.parents for path in after.keys() - before.keys())
    assert not half_written(places["runs"].parent)


def test_every_row_has_a_case():
    elsewhere = {"full disk", "timm is missing", "COCO masks of other annotations"}
    assert set(table()) == {case.name for case in CASES} | elsewhere


@pytest.mark.parametrize("stage", ["train_image", "train_seg", "evaluate", "evaluate_seg"])
def test_timm_is_missing(answer, places, monkeypatch, stage):
    """For a training the option is named, for an evaluation the checkpoint."""
    monkeypatch.setitem(sys.modules, "timm", None)
    option, named = "", "best.pt" if stage == "evaluate" else "last.pt"
    if stage.startswith("train"):
        option = named = "--backbone timm:resnet50"
    elif stage == "evaluate":
        classifier(backbone="timm:resnet50")(places["root"] / CLASSIFIER)
    else:
        path = places["root"] / SEGMENTATION
        content = checkpoints.read(path) | {"backbone": "timm:resnet50"}
        path.unlink()
        checkpoints.save(path, content)
    status, error, _ = answer(COMMANDS[stage], option)
    assert_one_line(status, error, "timm is missing", named)


def test_debug_shows_the_traceback(answer, places):
    cut(places["root"] / PHOTO)
    status, error, _ = answer(COMMANDS["train_scn"], "--debug")
    assert status == 2 and "Traceback (most recent call last)" in error
    assert re.search(r"InputError: .*scene_0002.jpg: truncated", error)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        answer(COMMANDS["check"], "--root nowhere --debug")


@pytest.mark.slow
def test_a_traceback_ends_the_processes_that_read(places):
    """They wait for minutes when they are told to end while the training is not over."""
    command = [*COMMANDS["train_scn"].format(**places).split(), "--epochs", "3", "--lr", "1e30"]
    command[command.index("--workers") + 1] = "1"
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / command[0]), *command[1:], "--debug"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=120,
    )
    assert done.returncode == 2 and b"Traceback" in done.stderr and b"not finite" in done.stderr


def test_predicted_labels_need_none(answer, places):
    without_objects(places["root"] / XML)
    (places["root"] / "Annotations/scene_0001.xml").unlink()
    status, error, _ = answer(COMMANDS["evaluate"], "--labels predicted")
    assert (status, error) == (0, "")


def test_labels_longer_than_a_file_name(answer, places):
    """Such as the names of all of COCO's classes."""
    images = places["root"] / "JPEGImages"
    names = ",".join(["unicorn"] * 100)
    status, error, _ = answer(COMMANDS["evaluate"], f"--images {images} --labels {names}")
    assert status == 2 and "--labels: no class 'unicorn'; there are" in error


@pytest.mark.parametrize("stage", PHOTOGRAPHS)
def test_every_script_notes_turned_photographs(answer, places, stage):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(places["root"] / PHOTO) as photograph:
        photograph.save(places["root"] / PHOTO, exif=exif)
    status, _, out = answer(COMMANDS[stage])
    assert status == 0
    assert re.search(r"note: EXIF asks 1 of \d photographs to be turned, .*scene_0002.jpg: ", out)


@pytest.mark.parametrize(
    ("kind", "file", "damage"),
    [
        ("photographs that cannot be read", PHOTO, cut),
        ("photographs that cannot be read", PHOTO, text("")),
        ("photographs that cannot be read", PHOTO, text("<html>404")),
        ("photographs that cannot be read", PHOTO, huge),
        ("masks that cannot be read", MASK, cut),
        ("saliency maps that cannot be read", SALIENCY, cut),
        ("masks of another size than their photograph", MASK, resized),
        ("masks with class indices out of range", MASK, class_200),
        ("photographs without image-level label", XML, Path.unlink),
        ("photographs whose label has no class", XML, without_objects),
        ("annotations that cannot be read", XML, cut),
        ("annotations that cannot be read", XML, zebra),
        ("splits that cannot be used", PHOTO, Path.unlink),
    ],
)
def test_check_lists_it_and_goes_on(answer, places, kind, file, damage):
    damage(places["root"] / file)
    cut(places["root"] / "JPEGImages/val_0001.jpg")
    status, error, out = answer(COMMANDS["check"])
    assert status == 2 and "error" not in error
    found = re.search(rf"PROBLEM: \d {kind}\n((?:  .*\n?)+)", out)
    assert found and "scene_0002" in found[1]
    assert "val_0001.jpg: truncated" in out


def test_check_in_vocs_layout(answer, voc_root):
    """Of three bad annotations all are listed, where a training names one and counts the rest."""
    for number, content in ((1, "<annotation>"), (2, "<a/>"), (3, "")):
        (voc_root / f"Annotations/2007_00000{number}.xml").write_text(content)
    status, _, out = answer(f"datasets.check --voc_root {voc_root} --workers 1")
    assert status == 2 and "PROBLEM: 3 annotations that cannot be read" in out
    assert all(f"2007_00000{number}.xml: " in out for number in (1, 2, 3))
    status, error, _ = answer(f"train_scn.py --voc_root {voc_root}", RUN)
    assert status == 2 and "2007_000001.xml" in error and "(and 2 more annotations)" in error


def test_coco_has_photographs_without_objects(answer, coco_root):
    status, _, out = answer(f"datasets.check --dataset coco --coco_root {coco_root} --workers 1")
    assert status == 0 and "note: 1 photographs without any object" in out


def test_masks_with_an_ending_in_capitals_are_found(answer, places):
    for folder in ("SegmentationClassAug", "saliency_map"):
        for path in (places["root"] / folder).iterdir():
            path.rename(path.with_suffix(".PNG"))
    status, _, out = answer(COMMANDS["check"])
    assert status == 0 and "no problems" in out and "no masks" not in out
    class_200(places["root"] / "SegmentationClassAug/scene_0002.PNG")
    status, error, _ = answer(COMMANDS["evaluate"])
    assert_one_line(status, error, "class index out of range", "scene_0002.PNG")


# --- full disks -----------------------------------------------------------------------------------


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def full_disk(monkeypatch):
    """A function (pattern, after): writing files of that name fails after so many of them."""

    def fill(pattern, after=0):
        make, open_file, met = tempfile.mkstemp, open, []

        def meets(path):
            met.extend([path] if re.search(pattern, os.path.basename(str(path))) else [])
            return met and met[-1] == path and len(met) > after

        def mkstemp(suffix, prefix, folder):
            descriptor, path = make(suffix, prefix, folder)
            if meets(path):
                os.close(descriptor)
                descriptor = os.open("/dev/full", os.O_WRONLY)
            return descriptor, path

        def opened(path, *arguments, **named):
            file = open_file(path, *arguments, **named)
            if meets(path):
                file.write = file.flush = no_space
            return file

        monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
        monkeypatch.setattr("builtins.open", opened)

    return fill


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    ("stage", "pattern", "after", "kept"),
    [
        pytest.param("train_scn", r"^\.last\.pt", 1, ["new/last.pt"], marks=pytest.mark.slow),
        pytest.param(
            *("train_image", r"^\.last\.pt", 1, ["new/last.pt", "new/best.pt"]),
            marks=pytest.mark.slow,
        ),
        ("evaluate", r"^\.scene_\d+\.png", 1, ["new/pseudo_labels/0.3/scene_0001.png"]),
        ("evaluate", r"^\.result\.json", 0, ["new/pseudo_labels/0.3/scene_0004.png"]),
        ("train_scn", r"^log\.txt$", 0, []),
        ("evaluate", r"^log\.txt$", 0, []),
        ("train_scn", r"\.tfevents\.", 0, []),
        ("prepare", r"^\.val\.txt", 0, []),
        ("prepare", r"^\.labels\.json", 0, []),
    ],
)
def test_a_full_disk(answer, places, full_disk, stage, pattern, after, kept):
    before = state(places["root"]) | state(places["runs"])
    full_disk(pattern, after)
    more = "--epochs 3" if stage.startswith("train") else ""
    status, error, _ = answer(COMMANDS[stage], more)
    assert_one_line(status, error, "full disk")
    assert before.items() <= (state(places["root"]) | state(places["runs"])).items()
    assert not half_written(places["runs"])
    for name in kept:
        path = places["runs"] / name
        assert Image.open(path).load() if path.suffix == ".png" else checkpoints.read(path)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of the size of files are Unix's")
def test_a_limit_to_the_size_of_files(places):
    """A process of its own, in which no file grows beyond a megabyte: no checkpoint fits."""
    limited = (
        "import resource, runpy, sys; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
        "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = COMMANDS["train_scn"].format(**places).split()
    script = str(REPOSITORY / command[0])
    done = subprocess.run(
        [sys.executable, "-c", limited, script, *command[1:]],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    error = re.sub(r"[^\n]*\r", "", done.stderr.decode())
    assert_one_line(done.returncode, error, "full disk", ".pt: File too large")
    assert not half_written(places["runs"]) and not list((places["runs"] / "new").glob("*.pt"))


# --- options out of range -------------------------------------------------------------------------

SCRIPTS = (
    "train_scn.py", "train_cls_image.py", "train_cls_sal.py", "evaluator_cls_image.py",
    "evaluator_cls_sal.py", "train_seg.py", "evaluator_seg.py", "datasets.prepare coco",
    "datasets.check",
)  # fmt: skip
ZERO = {
    "--seed", "--workers", "--power", "--position_weight", "--weight_decay", "--momentum", "--beta",
    "--beta_train", "--gamma", "--ipc_weight", "--ipc_threshold", "--score_images",
    "--report_images", "--score_threshold", "--threshold", "--thresholds", "--checkpoint_minutes",
    "--uncertain", "--warmup", "--max_side",
}  # fmt: skip
"""The options that may be 0."""
SHARES = {
    "--momentum", "--gamma", "--gamma_keep", "--ipc_threshold", "--score_threshold", "--threshold",
    "--thresholds", "--crf_confidence", "--uncertain",
}  # fmt: skip
"""The options that may not exceed 1."""


def parser_of(script, monkeypatch):
    """The parser of a script, at the moment it is asked to parse."""
    found = []

    def parse_args(parser, *_):
        found.append(parser)
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", [script])
        if script.endswith(".py"):
            runpy.run_path(str(REPOSITORY / script), run_name="__main__")
        runpy.run_module(script, run_name="__main__")
    return found[0]


def numeric_options(parser):
    return [action for action in parser._actions if action.type not in (None, str, Path)]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("script", SCRIPTS)
def test_numbers_out_of_range(script, monkeypatch, capsys):
    parser = parser_of(script.split()[0], monkeypatch)
    assert numeric_options(parser)
    accepted = []
    for action in numeric_options(parser):
        option = action.option_strings[0]
        values = ["-1", "nan", "inf", "-inf", "x", "1e999", ""]
        values += [] if option in ZERO else ["0"]
        values += ["1.5"] if option in SHARES else []
        for value in values:
            count = action.nargs if isinstance(action.nargs, int) else 1
            try:
                parser.parse_args([*script.split()[1:], option, *[value] * count])
                accepted.append((option, value))
            except SystemExit as stop:
                assert stop.code == 2
                error = capsys.readouterr().err
                assert error.startswith(f"error: argument {option}: "), value
                assert error.count("\n") == 1
    assert not accepted
