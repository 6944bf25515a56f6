import dataset_root
from utils.runs.run import same_place


def test_the_next_command_finds_the_same_data(monkeypatch):
    monkeypatch.setattr(dataset_root, "VOC_ROOT", "data/VOC2012")
    usual = {"dataset": "voc12", "experiments": "experiments", "root": None, "lr": 0.1}
    usual |= {"voc_root": "data/VOC2012", "coco_root": "", "labels_file": None}
    assert same_place(usual) == ""
    assert same_place(usual | {"voc_root": "/VOC"}) == " --voc_root /VOC"
    own = usual | {"dataset": "custom", "root": "my photos", "experiments": "runs"}
    assert same_place(own) == " --dataset custom --root 'my photos' --experiments runs"
    assert same_place({"tag": "a"}) == ""
