from types import SimpleNamespace

import torch

from networks.superpixel import SuperpixelNet
from utils import checkpoints
from utils.training.classifier import about_superpixels


def said(path, name="custom"):
    lines = []
    run = SimpleNamespace(note=lines.append)
    about_superpixels(run, path, SimpleNamespace(name=name))
    return lines


def test_a_superpixel_network_that_nobody_named(tmp_path):
    """One of another data set, of an unfinished training, or of an unknown one is said."""
    path = tmp_path / "last.pt"
    model = SuperpixelNet().state_dict()
    finished = {"kind": "scn", "dataset": "custom", "epoch": 5, "epochs": 5, "model": model}
    torch.save(finished, path)
    assert said(path) == []
    assert "was trained on custom and is in epoch 5 of 5" in said(path, "voc12")[0]
    torch.save({**finished, "epoch": 3}, path)
    assert "is in epoch 3 of 5; --scn FILE names another" in said(path)[0]
    torch.save({"kind": "scn", "model": model}, path)
    assert "an unknown data set and is in epoch ? of ?" in said(path)[0]
    assert said(checkpoints.SHIPPED) == []
