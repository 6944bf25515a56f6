"""--resume and --skip_bad from end to end, on the superpixel network and one classifier."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from datasets.demo import generate
from tests.calling import call
from utils.checkpoints import files
from utils.checkpoints.training_state import TrainingState
from utils.runs.interruption import Interruption, Stopped

pytestmark = pytest.mark.slow

SMALL = "--device cpu --workers 0 --epochs 3 --batch 4 --crop 64 --long_side 64 80 --lr 1e-3"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(root, images=12, validation=2, size=64, seed=1)
    return root


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    """Runs that were never stopped: the superpixel network and a classifier."""
    runs = tmp_path_factory.mktemp("whole")
    call("train_scn.py", f"--dataset custom --root {scenes} --experiments {runs} {SMALL}")
    call("train_cls_image.py", classifier_arguments(scenes, runs, runs))
    return runs


def classifier_arguments(scenes, scn_runs, runs):
    return (
        f"--dataset custom --root {scenes} --experiments {runs} --scn {scn_runs}/scn/last.pt "
        "--backbone resnet18 --backbone_weights none --device cpu --workers 1 --epochs 2 --batch 4 "
        "--crop 96 --long_side 96 112 --score_images 3 --momentum 0.9 --lr 0.01"
    )


@pytest.fixture
def stop_after(monkeypatch):
    """A function that lets a signal arrive after so many steps of this process."""

    def arrange(count, number=signal.SIGTERM):
        real, seen = TrainingState.after_step, []

        def after_step(state, epoch, position):
            seen.append(position)
            if len(seen) == count:
                os.kill(os.getpid(), number)
            real(state, epoch, position)

        monkeypatch.setattr(TrainingState, "after_step", after_step)

    yield arrange
    monkeypatch.undo()


def stopped(script, arguments):
    with pytest.raises(SystemExit) as stop:
        call(script, arguments)
    return stop.value.code


def same_weights(one, other):
    one, other = (torch.load(path, weights_only=True)["model"] for path in (one, other))
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("steps", "number"), [(1, signal.SIGTERM), (5, signal.SIGINT)])
def test_stopped_inside_an_epoch_and_gone_on(
    scenes, whole, tmp_path, capsys, stop_after, monkeypatch, steps, number
):
    arguments = f"--dataset custom --root {scenes} --experiments {tmp_path} {SMALL}"
    stop_after(steps, number)
    assert stopped("train_scn.py", arguments) == 128 + number
    error = capsys.readouterr().err
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert f"stopped by {name}; " in error and "--resume goes on" in error
    state = torch.load(tmp_path / "scn/training.pt", weights_only=True)
    assert (state["epoch"], state["position"]) == divmod(steps, 3)
    monkeypatch.undo()
    call("train_scn.py", f"{arguments} --resume")
    assert same_weights(whole / "scn/last.pt", tmp_path / "scn/last.pt")
    ended = torch.load(tmp_path / "scn/training.pt", weights_only=True)
    expected = torch.load(whole / "scn/training.pt", weights_only=True)
    assert ended["losses"] == expected["losses"]  # means over the epoch, also of its first part
    log = (tmp_path / "scn/log.txt").read_text()
    assert "stopped by" in log and "going on after step" in log and "epoch 3/3" in log


def test_a_classifier_stopped_while_it_is_scored(scenes, whole, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("the signal should have struck at once")

    arguments = classifier_arguments(scenes, whole, tmp_path)
    monkeypatch.setattr("utils.training.classifier_epochs.validate", stop)
    assert stopped("train_cls_image.py", arguments) == 128 + signal.SIGTERM
    assert "the training of epoch 1 is saved; " in capsys.readouterr().err
    assert not (tmp_path / "cls_image/last.pt").exists()
    monkeypatch.undo()
    call("train_cls_image.py", f"{arguments} --resume")
    for name in ("last.pt", "best.pt"):
        one, other = (folder / "cls_image" / name for folder in (whole, tmp_path))
        assert same_weights(one, other)
        one, other = (torch.load(path, weights_only=True) for path in (one, other))
        assert (one["miou"], one["epoch"]) == (other["miou"], other["epoch"])


def test_a_finished_run_has_nothing_left_to_do(scenes, whole, capsys):
    before = (whole / "scn/last.pt").read_bytes()
    call("train_scn.py", f"--dataset custom --root {scenes} --experiments {whole} {SMALL} --resume")
    assert torch.load(whole / "scn/last.pt", weights_only=True)["epoch"] == 3
    assert (whole / "scn/last.pt").read_bytes() == before
    assert "all steps are done: only what follows" in capsys.readouterr().out


def test_changed_options_are_named_and_refused(scenes, whole, tmp_path, capsys):
    data = f"--dataset custom --root {scenes} --experiments {tmp_path} {SMALL}"
    other = f"{data} --resume {whole}/scn/training.pt --batch 3 --seed 7 --workers 1"
    assert stopped("train_scn.py", other) == 2
    error = capsys.readouterr().err
    assert "--batch was 4, is 3; --seed was 0, is 7" in error and "--force" in error
    assert "workers" not in error and not (tmp_path / "scn").exists()
    spelt_out = f"{data} --split train_aug --resume {whole}/scn"
    assert stopped("train_scn.py", f"{spelt_out} --seed 7") == 2
    assert "--split" not in capsys.readouterr().err  # the default, here as there
    few = tmp_path / "few"
    generate(few, images=8, validation=2, size=64, seed=2)
    other = f"--dataset custom --root {few} --experiments {tmp_path} {SMALL}"
    assert stopped("train_scn.py", f"{other} --resume {whole}/scn") == 2
    assert (
        "photographs, or their image-level labels: the content differs" in capsys.readouterr().err
    )
    call("train_scn.py", f"{data} --resume {whole}/scn --epochs 4 --force")
    assert torch.load(tmp_path / "scn/last.pt", weights_only=True)["epoch"] == 4


def test_options_are_compared_before_weights_are_fetched(scenes, whole, capsys, monkeypatch):
    def fetched(*_):
        raise AssertionError("the network of other options is built")

    monkeypatch.setattr("utils.training.classifier.build_networks", fetched)
    again = classifier_arguments(scenes, whole, whole).replace("resnet18", "resnet50")
    assert stopped("train_cls_image.py", f"{again} --resume") == 2
    assert "--backbone was resnet18, is resnet50" in capsys.readouterr().err


def test_another_superpixel_network_is_refused(scenes, whole, tmp_path, capsys):
    content = torch.load(whole / "scn/last.pt", weights_only=True)
    content["model"] = {name: value + 1 for name, value in content["model"].items()}
    torch.save(content, tmp_path / "other.pt")
    again = classifier_arguments(scenes, whole, whole)
    again = again.replace(f"{whole}/scn/last.pt", str(tmp_path / "other.pt"))
    assert stopped("train_cls_image.py", f"{again} --resume") == 2
    assert "--scn: the content differs" in capsys.readouterr().err


def test_what_cannot_be_resumed(scenes, whole, tmp_path, capsys):
    data = f"--dataset custom --root {scenes} --experiments {tmp_path} {SMALL}"
    (tmp_path / "scn").mkdir()
    (tmp_path / "scn/last.pt").write_bytes(b"mine")
    state = torch.load(whole / "scn/training.pt", weights_only=True)
    torch.save({**state, "optimizer": {"state": 3}}, tmp_path / "damaged.pt")
    torch.save({**state, "model": {}}, tmp_path / "empty.pt")
    torch.save({**state, "options": []}, tmp_path / "options.pt")
    cases = {
        "--resume": "training.pt: no such file",
        "--resume --overwrite": "--overwrite: removes",
        f"--resume {tmp_path}/no.pt": "no.pt: no such file",
        f"--resume {whole}/scn/last.pt": "last.pt: not a training state",
        f"--resume {tmp_path}/options.pt --tag a": "options.pt: a damaged training state",
        f"--resume {tmp_path}/damaged.pt --tag b": "damaged.pt: a damaged training state",
        f"--resume {tmp_path}/empty.pt --tag c": "empty.pt: not the weights of",
    }
    for arguments, message in cases.items():
        assert stopped("train_scn.py", f"{data} {arguments}") == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error, arguments
    assert (tmp_path / "scn/last.pt").read_bytes() == b"mine"


def test_resume_at_the_very_beginning_starts(scenes, tmp_path, capsys):
    """For schedulers that always give the same command."""
    data = f"--dataset custom --root {scenes} --experiments {tmp_path} {SMALL}"
    call("train_scn.py", f"{data} --epochs 1 --resume")
    assert "starting at the beginning" in capsys.readouterr().out
    assert (tmp_path / "scn/last.pt").is_file()


def test_a_full_disk_keeps_the_state_before(scenes, whole, tmp_path, monkeypatch, capsys):
    data = f"--dataset custom --root {scenes} --experiments {tmp_path} {SMALL}"
    real, kept = files.write_bytes, []

    def full(path, content, durable=False):
        if Path(path).name == "training.pt":
            kept.append(content)
            if len(kept) == 2:
                monkeypatch.setattr(os, "fsync", no_room)
        real(path, content, durable=durable)

    def no_room(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.checkpoints.files.write_bytes", full)
    assert stopped("train_scn.py", data) == 2
    assert "training.pt: No space left on device" in capsys.readouterr().err
    assert (tmp_path / "scn/training.pt").read_bytes() == kept[0]
    assert not list((tmp_path / "scn").glob(".*"))
    monkeypatch.undo()
    call("train_scn.py", f"{data} --resume")
    assert same_weights(whole / "scn/last.pt", tmp_path / "scn/last.pt")


def test_the_state_is_kept_every_some_minutes(scenes, tmp_path, stop_after):
    data = f"--dataset custom --root {scenes} --experiments {tmp_path} {SMALL}"
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        save = TrainingState.save
        patch.setattr(TrainingState, "save", lambda k, *a: (kept.append(a), save(k, *a)))
        call("train_scn.py", f"{data} --epochs 1 --checkpoint_minutes 1e-9")
        assert kept == [(0, 1), (0, 2), (0, 3), (0, 3)]
        kept.clear()
        call("train_scn.py", f"{data} --epochs 1 --checkpoint_minutes 0 --tag other")
        assert kept == [(0, 3)]


def test_two_runs_do_not_write_into_one_folder(scenes, tmp_path, capsys):
    data = f"--dataset custom --root {scenes} --experiments {tmp_path} {SMALL}"
    (tmp_path / "scn").mkdir()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time\n"
            f"log = open({str(tmp_path / 'scn/log.txt')!r}, 'a')\n"
            "fcntl.lockf(log, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        assert stopped("train_scn.py", f"{data} --overwrite") == 2
        assert "another process writes there" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.wait()


def test_a_second_signal_strikes_at_once(monkeypatch):
    with Interruption() as interruption:
        interruption.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # as srun and torchrun both send it: one wish
        assert interruption.wished == signal.SIGTERM
        monkeypatch.setattr("utils.runs.interruption.SECONDS_OF_ONE_WISH", 0.0)
        with pytest.raises(Stopped, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped, match="all is kept"):
            interruption.at_once("all is kept")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    in_thread = []
    thread = threading.Thread(target=lambda: in_thread.append(Interruption().__enter__()))
    thread.start()
    thread.join()
    assert len(in_thread) == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# --- photographs that cannot be read --------------------------------------------------------------


@pytest.fixture
def broken(scenes, tmp_path):
    """The scenes, two of whose photographs are cut off; (root, names)."""
    root = tmp_path / "broken"
    for path in scenes.rglob("*.*"):
        copy = root / path.relative_to(scenes)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    listed = (root / "ImageSets/Segmentation/train.txt").read_text().split()[3:5]
    bad = [path for path in (root / "JPEGImages").iterdir() if path.stem in listed]
    for path in bad:
        path.write_bytes(path.read_bytes()[:300])
    return root, sorted(path.name for path in bad)


def test_training_without_bad_photographs(broken, tmp_path, capsys):
    root, names = broken
    data = f"--dataset custom --root {root} --experiments {tmp_path} {SMALL} --workers 2"
    assert stopped("train_scn.py", f"{data} --tag strict") == 2
    assert not multiprocessing.active_children()  # an interpreter that ends would wait for them
    assert "--skip_bad" in capsys.readouterr().err
    call("train_scn.py", f"{data} --skip_bad")
    out = capsys.readouterr().out
    listed = out.split("2 photographs were skipped because they cannot be read:\n")[1]
    assert [Path(line.split(": ")[0]).name for line in listed.splitlines()[:2]] == names
    assert out.count("skipped: ") == 2  # each once, though every epoch meets them


def test_evaluating_without_bad_photographs(broken, whole, tmp_path, capsys):
    root, names = broken
    data = (
        f"--dataset custom --root {root} --experiments {tmp_path} --device cpu --workers 0 "
        f"--checkpoint {whole}/cls_image/last.pt --scales 1 --no_flip"
    )
    assert stopped("evaluator_cls_image.py", f"{data} --tag strict") == 2
    call("evaluator_cls_image.py", f"{data} --skip_bad")
    result = json.loads((tmp_path / "eval_image/result.json").read_text())
    assert result["images"] == 10
    assert [Path(line.split(": ")[0]).name for line in result["skipped"]] == names
    assert len(list((tmp_path / "eval_image/pseudo_labels/0.1").iterdir())) == 10


def test_nothing_readable_at_all(scenes, tmp_path, capsys):
    root = tmp_path / "none"
    generate(root, images=4, validation=2, size=64, seed=1)
    for path in (root / "JPEGImages").iterdir():
        path.write_bytes(b"")
    data = f"--dataset custom --root {root} --experiments {tmp_path} {SMALL} --skip_bad"
    assert stopped("train_scn.py", data) == 2
    assert "none of 4 photographs can be read" in capsys.readouterr().err


# --- evaluations that go on -----------------------------------------------------------------------


def test_an_evaluation_goes_on_where_it_stopped(scenes, whole, tmp_path, capsys, monkeypatch):
    from utils.labels import pseudo_labels

    def arguments(folder, more=""):
        return (
            f"--dataset custom --root {scenes} --experiments {folder} --device cpu --workers 0 "
            f"--checkpoint {whole}/cls_image/last.pt --scales 1 --no_flip --save_cams npz {more}"
        )

    call("evaluator_cls_image.py", arguments(tmp_path / "whole"))
    real, taken = pseudo_labels.PseudoLabelWriter.take, []

    def take(writer, found):
        taken.append(found.id)
        if len(taken) == 7:
            raise KeyboardInterrupt
        real(writer, found)

    monkeypatch.setattr(pseudo_labels.PseudoLabelWriter, "take", take)
    assert stopped("evaluator_cls_image.py", arguments(tmp_path)) == 130
    assert stopped("evaluator_cls_image.py", arguments(tmp_path, "--gamma 0.5")) == 2
    assert "--gamma was 0.6, is 0.5" in capsys.readouterr().err
    folder = tmp_path / "eval_image"
    lost = next((folder / "pseudo_labels/0.1").iterdir())  # a file that went missing is made again
    lost.unlink()
    with open(folder / "done-0.jsonl", "ab") as journal:
        journal.write(b'{"id": "half a li')
    taken.clear()
    monkeypatch.setattr(
        pseudo_labels.PseudoLabelWriter, "take", lambda la, f: (taken.append(f.id), real(la, f))
    )
    call("evaluator_cls_image.py", arguments(tmp_path))
    assert "photographs are done; going on" in capsys.readouterr().out
    assert lost.stem in taken and 6 <= len(taken) < 12
    results = [
        json.loads((f / "eval_image/result.json").read_text())
        for f in (tmp_path, tmp_path / "whole")
    ]
    for result in results:
        del result["seconds"], result["images_per_second"], result["inferred"]
    assert results[0] == results[1]
    names = [
        {str(p.relative_to(f)): p.read_bytes() for p in f.rglob("*.*") if p.suffix in (".png",)}
        for f in (folder, tmp_path / "whole/eval_image")
    ]
    assert names[0] == names[1]


def test_a_finished_evaluation_prints_its_result_again(scenes, whole, tmp_path, capsys):
    """So that a job script can repeat itself; another evaluation is refused as any other run."""
    arguments = (
        f"--dataset custom --root {scenes} --experiments {tmp_path} --device cpu --workers 0 "
        f"--checkpoint {whole}/cls_image/last.pt --scales 1 --no_flip --report_images 0"
    )
    call("evaluator_cls_image.py", arguments)
    printed = capsys.readouterr().out
    table = printed[printed.index("IoU (%)") : printed.index("best: mIoU")]
    written = sorted((tmp_path / "eval_image").rglob("*"))
    times = [path.stat().st_mtime_ns for path in written]
    call("evaluator_cls_image.py", arguments)
    again = capsys.readouterr().out
    assert table in again and "holds this evaluation, finished" in again
    assert written == sorted((tmp_path / "eval_image").rglob("*"))
    assert times == [path.stat().st_mtime_ns for path in written]
    assert stopped("evaluator_cls_image.py", f"{arguments} --gamma 0.5") == 2
    assert "holds a finished evaluation that was started otherwise: --gamma was 0.6, is 0.5" in (
        capsys.readouterr().err
    )
    (tmp_path / "eval_image/result.json").write_text('{"thresholds": [{}]}')
    assert stopped("evaluator_cls_image.py", arguments) == 2
    assert "not what an evaluator wrote" in capsys.readouterr().err
