"""Several processes over gloo: the same losses and scores as one, and one error if one dies."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from datasets.demo import generate
from networks.backbone import ResNetBackbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from utils.checkpoints import training_state

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def command(processes, script, arguments):
    """`python script arguments`, or `torchrun` where there are several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, *(launcher if processes > 1 else []), script, *arguments.split()]


def run(processes, script, arguments):
    """Run a script to its end; its completed process."""
    whole = command(processes, str(REPOSITORY / script), arguments)
    return subprocess.run(whole, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """13 scenes, a superpixel network, ResNet-18 weights, and a classifier drawn at random."""
    folder = tmp_path_factory.mktemp("files")
    generate(folder / "scenes", images=13, validation=2, size=64, seed=3)
    torch.manual_seed(0)
    scn, backbone = SuperpixelNet(), ResNetBackbone("resnet18")
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1)
    torch.save({"kind": "scn", "epoch": 1, "model": scn.state_dict()}, folder / "scn.pt")
    torch.save(backbone.state_dict(), folder / "resnet18.pth")
    classes = (folder / "scenes/labels.txt").read_text().split()
    classifier = Classifier(backbone, len(classes) + 1)
    content = {
        "kind": "classifier",
        "backbone": "resnet18",
        "dcr": True,
        "classes": classes,
        "model": classifier.state_dict(),
        "scn": scn.state_dict(),
    }
    torch.save(content, folder / "classifier.pt")
    return folder


def data_of(files, workers=0):
    return f"--dataset custom --root {files}/scenes --device cpu --workers {workers}"


TRAININGS = {
    "train_scn.py": "--epochs 7 --batch 4 --crop 64 --long_side 64 80 --lr 1e-4",
    "train_cls_image.py": "--backbone resnet18 --backbone_weights {files}/resnet18.pth --epochs 7 "
    "--batch 4 --crop 96 --long_side 64 112 --lr 0.03 --ipc_threshold 0.5 --score_images 0",
    "train_seg.py": "--split train --pseudo_labels masks --backbone resnet18 --stride 16 --batch 4 "
    "--backbone_weights {files}/resnet18.pth --accumulate 1 --steps 20 --score_every 20 --crop 48 "
    "--lr 1e-3 --score_images 0",
}


@pytest.mark.parametrize("script", TRAININGS)
def test_two_processes_follow_the_losses_of_one(files, tmp_path, script):
    losses = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        scn = f"--scn {files}/scn.pt" if "cls" in script else ""
        options = TRAININGS[script].format(files=files)
        arguments = f"{data_of(files)} {scn} {options} --experiments {tmp_path}/{processes}"
        done = run(processes, "tests/recording.py", f"{out} {REPOSITORY / script} {arguments}")
        assert done.returncode == 0, done.stderr
        losses.append([row for row in json.loads(out.read_text()) if "train/loss" in row][:20])
    names = set(losses[0][0]) - {"step", "train/images_per_second", "train/gradient"}
    assert len(losses[0]) == 20 and len(names) in (4, 6)
    for one, two in zip(*losses, strict=True):
        for name in names:
            assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5), (name, one["step"])
        # Adam magnifies what rounding does to weights that hardly matter for the loss.
        assert two["train/gradient"] == pytest.approx(one["train/gradient"], rel=0.05)
    first, last = losses[0][0]["train/loss"], losses[0][-1]["train/loss"]
    assert abs(first - last) > 3e-3  # it moved, so the agreement says something


def test_scores_are_the_same_for_any_number_of_processes(files, tmp_path):
    results = []
    for processes in (1, 2, 3):
        done = run(
            processes,
            "evaluator_cls_image.py",
            f"{data_of(files)} --checkpoint {files}/classifier.pt --scales 1 --no_flip --beta 1 "
            f"--experiments {tmp_path}/{processes} --export_deeplab {tmp_path}/tree{processes}",
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("best: mIoU") == 1
        pairs = tmp_path / f"tree{processes}/VOC2012/ImageSets/SegmentationAug/train_aug.txt"
        assert len(pairs.read_text().splitlines()) == 13
        folder = tmp_path / str(processes) / "eval_image"
        result = json.loads((folder / "result.json").read_text())
        result = {k: v for k, v in result.items() if k not in ("seconds", "images_per_second")}
        table = [line for line in done.stdout.splitlines() if line.startswith(("mIoU", "best"))]
        pictures = {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")
        }
        results.append((result, table, pictures))
    assert results[0] == results[1] == results[2]
    assert results[0][0]["images"] == 13 and len(results[0][2]) == 13 * 7 + 1
    assert sum(iou > 0.05 for iou in results[0][0]["thresholds"][0]["iou"]) > 2


def test_scoring_while_training_shares_the_photographs(files, tmp_path):
    lines = []
    for processes in (1, 3):
        done = run(
            processes,
            "train_cls_image.py",
            f"{data_of(files)} --scn {files}/scn.pt --experiments {tmp_path}/{processes} "
            f"--backbone resnet18 --backbone_weights {files}/resnet18.pth --epochs 1 --batch 12 "
            "--crop 96 --long_side 64 112 --lr 1e-9 --score_images 13 --beta 1",
        )
        assert done.returncode == 0, done.stderr
        lines += [line for line in done.stdout.splitlines() if line.startswith("epoch 1/1")]
    one, three = (line.split("; ", 1)[1] for line in lines)
    assert one == three and "mIoU" in one


def test_the_road_without_masks_in_two_processes(files, tmp_path):
    """Neither masks nor photographs held back: nothing is scored, by any process."""
    scenes = tmp_path / "scenes"
    for name in ("JPEGImages", "Annotations"):
        shutil.copytree(files / "scenes" / name, scenes / name)
    shutil.copy(files / "scenes/labels.txt", scenes)
    common = (
        f"--dataset custom --root {scenes} --device cpu --workers 0 --experiments {tmp_path}/runs"
    )
    backbone = f"--backbone resnet18 --backbone_weights {files}/resnet18.pth"
    training = f"{backbone} --scn {files}/scn.pt --epochs 1 --batch 4 --crop 96 --long_side 64 112"
    learning = f"{backbone} --stride 16 --batch 4 --accumulate 1 --steps 2 --crop 48"
    for script, options in (
        ("train_cls_image.py", training),
        ("evaluator_cls_image.py", "--scales 1 --no_flip --beta 1"),
        ("train_seg.py", learning),
    ):
        done = run(2, script, f"{common} {options}")
        assert done.returncode == 0, done.stderr
        assert "mIoU" not in done.stdout
    runs = tmp_path / "runs"
    for name in ("cls_image", "seg"):
        assert (runs / name / "last.pt").is_file() and not (runs / name / "best.pt").exists()
    assert len(list((runs / "eval_image").glob("pseudo_labels/*/*.png"))) == 15


def start(processes, script, arguments, folder):
    """Start a script; (its process, its error output's file)."""
    error = folder / "stderr.txt"
    with open(folder / "stdout.txt", "w") as out, open(error, "w") as err:
        whole = command(processes, str(REPOSITORY / script), arguments)
        process = subprocess.Popen(
            whole, stdout=out, stderr=err, env=ENVIRONMENT, start_new_session=True
        )
        return process, error


def wait_for(path, process):
    """Wait until a file is there, at most two minutes, and while the process lives."""
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert path.exists()


def workers_of(process):
    """The processes that torchrun has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes under /proc")
def test_a_process_that_dies_ends_the_run_which_can_go_on(files, tmp_path):
    arguments = (
        f"{data_of(files)} --experiments {tmp_path} --epochs 12 --batch 4 --crop 64 "
        "--long_side 64 80 --lr 1e-3"
    )
    process, error = start(2, "train_scn.py", arguments, tmp_path)
    wait_for(tmp_path / "scn/training.pt", process)
    os.kill(workers_of(process)[1], signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    assert error.read_text().count("error: ") <= 1
    assert 'train_scn.py", line' not in error.read_text()  # no traceback of ours
    done = run(2, "train_scn.py", f"{arguments} --resume")
    assert done.returncode == 0, done.stderr
    assert "going on after step" in done.stdout and "epoch 12/12" in done.stdout
    assert torch.load(tmp_path / "scn/last.pt", weights_only=True)["epoch"] == 12


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_to_everything_keeps_the_state(files, tmp_path, processes):
    """As schedulers send it: to all processes, those that read photographs too."""
    arguments = (
        f"{data_of(files, workers=1)} --experiments {tmp_path} --epochs 400 --batch 4 --crop 64 "
        "--long_side 64 80 --checkpoint_minutes 0"
    )
    process, error = start(processes, "train_scn.py", arguments, tmp_path)
    wait_for(tmp_path / "scn/training.pt", process)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=90) != 0
    text = error.read_text()
    said = re.findall(r"stopped by SIGTERM; (.*)", text)
    state = torch.load(tmp_path / "scn/training.pt", weights_only=True)
    place = f"{state['position']} of epoch {state['epoch'] + 1}; "
    inside = f"{tmp_path}/scn/training.pt holds everything up to step {place}"
    between = f"the training of epoch {state['epoch'] + 1} is saved; "  # it was being scored
    assert len(said) == 1
    assert said[0] in (inside + training_state.GO_ON, between + training_state.GO_ON)


def test_more_pictures_when_an_evaluation_goes_on(files, tmp_path):
    arguments = (
        f"{data_of(files)} --checkpoint {files}/classifier.pt --scales 1 --no_flip --beta 1 "
        f"--experiments {tmp_path}"
    )
    folder, results = tmp_path / "eval_image", []
    for processes, pictures in ((2, 2), (3, 13)):
        (folder / "result.json").unlink(missing_ok=True)
        done = run(processes, "evaluator_cls_image.py", f"{arguments} --report_images {pictures}")
        assert done.returncode == 0, done.stderr
        result = json.loads((folder / "result.json").read_text())
        results.append((result["images"], result["thresholds"]))
    assert results[0] == results[1] and results[0][0] == 13
    assert len(list((folder / "report").iterdir())) == 13
    assert len(list((folder / "pseudo_labels/0.1").iterdir())) == 13


def test_an_error_in_one_process_is_shown_once(files, tmp_path):
    scenes = tmp_path / "scenes"
    for path in (files / "scenes").rglob("*.*"):
        copy = scenes / path.relative_to(files / "scenes")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    broken = sorted((scenes / "JPEGImages").iterdir())[4]
    broken.write_bytes(broken.read_bytes()[:200])
    arguments = (
        f"--dataset custom --root {scenes} --device cpu --workers 0 --experiments {tmp_path} "
        "--epochs 2 --batch 2 --crop 64 --long_side 64 80"
    )
    done = run(2, "train_scn.py", arguments)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1 and broken.name in errors[0] and "--skip_bad" in errors[0]
    assert 'Traceback (most recent call last):\n  File "' + str(REPOSITORY) not in done.stderr


def test_what_cannot_be_shared_out(files, tmp_path):
    arguments = f"{data_of(files)} --experiments {tmp_path} --batch 5 --crop 64"
    done = run(2, "train_scn.py", arguments)
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1 and "--batch 5: must be a multiple of the 2 processes" in errors[0]
    done = run(2, "train_scn.py", f"{data_of(files)} --batch 0")
    assert done.stderr.count("--batch") == done.stderr.count("argument --batch") == 1
