import shlex

import pytest
import torch

import dataset_root
from datasets.files import InputError
from utils.runs.options import RunSettings
from utils.runs.run import Run, same_place


def test_the_next_command_finds_the_same_data(monkeypatch):
    monkeypatch.setattr(dataset_root, "VOC_ROOT", "data/VOC2012")
    usual = {"dataset": "voc12", "experiments": "experiments", "root": None, "lr": 0.1}
    usual |= {"voc_root": "data/VOC2012", "coco_root": "", "labels_file": None}
    assert same_place(usual) == ""
    assert same_place(usual | {"voc_root": "/VOC"}) == " --voc_root /VOC"
    own = usual | {"dataset": "custom", "root": "my photos", "experiments": "runs"}
    assert same_place(own) == " --dataset custom --root 'my photos' --experiments runs"
    assert same_place({"tag": "a"}) == ""


def test_the_next_command_can_be_pasted(tmp_path, capsys):
    settings = RunSettings(str(tmp_path / "my runs"), "a", options={"dataset": "voc12"})
    with Run(settings, torch.device("cpu")) as run:
        run.say_next("train_cls_image.py", "--scn", run.folder / "last.pt")
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    command = ["python", "train_cls_image.py", "--scn", str(tmp_path / "my runs/a/last.pt")]
    assert shlex.split(line.removeprefix("next: ")) == command


@pytest.mark.parametrize("tag", ["", ".", "./", "..", "a/../../b", "/tmp/a"])
def test_a_run_stays_in_its_folder(tmp_path, tag):
    with pytest.raises(InputError, match="--tag .*must name a folder inside --experiments"):
        RunSettings(str(tmp_path), tag)


@pytest.mark.parametrize("name", ["log.txt", "events.out.tfevents.1", "masks", "last.pt"])
def test_files_that_no_run_has_written_stay(tmp_path, name):
    path = tmp_path / "a" / name
    path.parent.mkdir()
    path.mkdir() if name == "masks" else path.write_text("mine")
    with pytest.raises(InputError, match=f"a: holds {name} but no options.json"):
        Run(RunSettings(str(tmp_path), "a", overwrite=True), torch.device("cpu"))
    assert [one.name for one in path.parent.iterdir()] == [name]
    (path.parent / "options.json").write_text("{}")
    with Run(RunSettings(str(tmp_path), "a", overwrite=True), torch.device("cpu")):
        assert name == "log.txt" or not path.exists()
