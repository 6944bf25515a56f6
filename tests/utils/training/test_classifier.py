from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from datasets.collection import Collection
from datasets.command_line import new_parser
from networks.superpixel import SuperpixelNet
from train_cls_image import DEFAULTS
from utils import checkpoints
from utils.training.classifier import (
    LOOKED_AT,
    about_passes,
    about_patches,
    about_saliency,
    about_superpixels,
)
from utils.training.classifier_options import add_options, settings_of


def said(about, *args):
    lines = []
    run = SimpleNamespace(say=lines.append, note=lambda *notes: lines.extend(notes))
    about(run, *args)
    return lines


def settings_for(options):
    parser = new_parser("")
    add_options(parser, **DEFAULTS)
    return settings_of(parser.parse_args(options.split()))


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        ("", False),
        ("--epochs 99", False),
        ("--epochs 100", True),
        ("--epochs 100 --ipc_weight 0", False),
    ],
)
def test_many_passes_are_noted(options, noted):
    lines = said(about_passes, settings_for(options))
    assert len(lines) == noted
    assert all("100 passes over the photographs" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "side"),
    [
        ("", None),  # the paper's
        ("--crop 128", None),  # one patch, which the default makes of it
        ("--crop 128 --patches 4", None),
        ("--crop 128 --patches 9", 2),
        ("--crop 112 --patches 4", 3),
        ("--crop 128 --patches 9 --ipc_weight 0", None),
    ],
)
def test_small_patches_are_noted(options, side):
    lines = said(about_patches, settings_for(options))
    assert len(lines) == (side is not None)
    assert all(f"patches of {side} x {side} superpixels, too small" in line for line in lines)


def test_a_superpixel_network_that_nobody_named(tmp_path):
    """One of another data set, of an unfinished training, or of an unknown one is said."""

    def of(path, name="custom"):
        return said(about_superpixels, path, SimpleNamespace(name=name))

    path = tmp_path / "last.pt"
    model = SuperpixelNet().state_dict()
    finished = {"kind": "scn", "dataset": "custom", "epoch": 5, "epochs": 5, "model": model}
    torch.save(finished, path)
    assert of(path) == []
    assert "was trained on custom and is in epoch 5 of 5" in of(path, "voc12")[0]
    torch.save({**finished, "epoch": 3}, path)
    assert "is in epoch 3 of 5; --scn FILE names another" in of(path)[0]
    torch.save({"kind": "scn", "model": model}, path)
    assert "an unknown data set and is in epoch ? of ?" in of(path)[0]
    assert of(checkpoints.SHIPPED) == []


def test_what_saliency_maps_cover_is_said(tmp_path):
    """Of many maps some are looked at; one that cannot be read is left to the loader."""

    def of(count):
        ids = tuple(f"{number:03}" for number in range(count))
        photographs = Collection("custom", "train", (), ids, {}, {}, saliency=tmp_path)
        return said(about_saliency, photographs)

    for number in range(LOOKED_AT + 50):
        cv2.imwrite(str(tmp_path / f"{number:03}.png"), np.eye(4, dtype=np.uint8) * 255)
    (tmp_path / "001.png").write_bytes(b"")
    assert of(1) == [
        "saliency maps: 1 of 1 photographs, covering 25.0 % of a photograph on average "
        "(25.0 to 25.0 %)"
    ]
    assert of(5)[0].endswith("(of 4 looked at)")
    line = of(LOOKED_AT + 50)[0]
    assert "250 of 250 photographs" in line and int(line.split()[-3]) in (199, 200)
    cv2.imwrite(str(tmp_path / "000.png"), np.zeros((4, 4), np.uint8))
    assert "cover 0.0 % of their photographs" in of(1)[1]
