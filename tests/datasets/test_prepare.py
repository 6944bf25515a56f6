import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasets import prepare as module
from datasets.files import InputError
from datasets.prepare import main
from datasets.workers import in_processes
from tests.conftest import write_file

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def prepare():
    def prepare(*options):
        return main([*map(str, options), "--workers", "1"])

    return prepare


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_twice_gives_identical_files(prepare, voc_root, coco_root, custom_root, prepared):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    for _ in range(2):
        assert prepare("voc12", "--voc_root", voc_root) == 0
        assert prepare("coco", "--coco_root", coco_root) == 0
        assert prepare("custom", "--root", custom_root) == 0
        once = contents(prepared)
        assert len(once) == 5 + 4 + 4
        for path in prepared.rglob("*.*"):
            os.utime(path, (0, 0))
    assert contents(prepared) == once


def test_summary(prepare, voc_root, capsys):
    (voc_root / "saliency_map" / "2007_000005.png").unlink()
    assert prepare("voc12", "--voc_root", voc_root) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["split", "images", "with", "label", "with", "mask", "with", "saliency"] in rows
    assert ["train", "2", "2", "2", "2"] in rows
    assert ["train_aug", "4", "4", "4", "3"] in rows
    assert ["person", "1", "1", "1"] in rows and ["bus", "0", "0", "1"] in rows


def test_classes_that_nothing_shows_are_noted(prepare, custom_root, capsys):
    assert prepare("custom", "--root", custom_root) == 0
    assert "no photograph to train on" not in capsys.readouterr().out
    write_file(custom_root / "labels.txt", "leaf\nstem\nbark\n")
    write_file(custom_root / "ImageSets" / "Segmentation" / "val.txt", "IMG-1\nx.y\n")
    assert prepare("custom", "--root", custom_root) == 0
    assert (
        "note: no photograph to train on for 2 of 3 classes: stem, bark" in capsys.readouterr().out
    )
    (custom_root / "labels.csv").unlink()  # then no class has any, which is another note
    assert prepare("custom", "--root", custom_root) == 0
    assert "no photograph to train on" not in capsys.readouterr().out


def test_command(voc_root, tmp_path):
    """No warning of runpy's, no traceback, the environment's root, one line on bad input."""

    def run(*options, **environment):
        command = [sys.executable, "-W", "error", "-m", "datasets.prepare", *options]
        folder = Path(module.__file__).parents[1]
        variables = {**os.environ, **environment}
        return subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, check=False
        )

    good = run("voc12", VOC_ROOT=str(voc_root), PREPARED_ROOT=str(tmp_path / "p"))
    assert good.returncode == 0 and "images per class" in good.stdout
    assert len(list((tmp_path / "p").glob("voc12-*/meta.json"))) == 1
    assert "arning" not in good.stderr
    bad = run("voc12", "--voc_root", "/nowhere")
    assert bad.returncode == 2
    assert bad.stderr == "error: /nowhere: no such folder; set --voc_root or VOC_ROOT\n"
    shown = run("voc12", "--voc_root", "/nowhere", "--debug")
    assert shown.returncode != 0 and "Traceback" in shown.stderr
    assert run("voc12", "--voc_root", str(voc_root), "--workers", "0").returncode == 2


def kill(task):
    os.kill(os.getpid(), 9)


def test_a_killed_process_is_reported():
    with pytest.raises(InputError, match="a worker process was killed"):
        list(in_processes(kill, range(4), workers=2))


def test_tasks_are_taken_as_they_are_worked_off():
    taken = []
    results = in_processes(abs, (taken.append(i) or -i for i in range(100)), workers=2)
    first = next(results)
    assert len(taken) < 10
    assert sorted([first, *results]) == list(range(100))
