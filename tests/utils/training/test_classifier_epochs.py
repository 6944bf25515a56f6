"""Cams that collapse are said at the end of an epoch; those of an ordinary training are not."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets.command_line import new_parser
from datasets.demo import generate
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from tests.calling import call
from train_cls_image import DEFAULTS, SUPERVISION
from utils import checkpoints
from utils.runs.data import open_split
from utils.runs.reader import Reader
from utils.training.classifier_epochs import (
    ClassifierEpochs,
    collapsed,
    idle_until,
    loss_of_frequencies,
    photographs_held_back,
    stands_still,
)
from utils.training.classifier_options import add_options, settings_of
from utils.training.loop import plan_of


@pytest.mark.parametrize(
    ("means", "said"),
    [
        ([0.0] * 10, "of 10, 10 are empty and 0 lie all over"),
        ([0.95] * 10, "of 10, 0 are empty and 10 lie all over"),
        ([0.0] * 6 + [0.95] * 3 + [0.3], "of 10, 6 are empty and 3 lie all over"),
        ([0.0] * 8 + [0.3] * 2, None),
        ([0.1, 0.3, 0.6], None),
        ([], None),
    ],
)
def test_what_is_said_of_cams(means, said):
    notes = collapsed(means)
    assert len(notes) == (said is not None)
    assert all(said in note and "docs/backbones.md" in note for note in notes)


def test_the_loss_of_frequencies_is_that_of_the_best_constant_scores():
    """Against torch's loss, minimised over scores that are the same for all photographs."""
    labels = torch.tensor([[1, 0, 0, 1], [1, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 1]])
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([scores], max_iter=200)

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.multilabel_soft_margin_loss(scores.expand(4, 4), labels.double())
        loss.backward()
        return loss

    for _ in range(5):
        optimiser.step(closure)
    ours = loss_of_frequencies(list(labels.to(torch.uint8).numpy()))
    assert ours == pytest.approx(closure().item(), abs=1e-4)


@pytest.mark.parametrize(("loss", "said"), [(0.27, True), (0.25, True), (0.18, False)])
def test_what_is_said_of_a_loss(loss, said):
    """Losses of trainings that stood still and of one that did not, where frequencies give 0.254"""
    notes = stands_still(loss, 0.2536)
    assert len(notes) == said
    assert all("0.254" in note and "docs/backbones.md" in note for note in notes)


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "warmup", "after"),
    [
        (10582, 16, 12, 0, 3),  # the paper's on VOC: 661 steps an epoch
        (118, 8, 22, 42, 11),  # half of a short training
        (118, 8, 193, 42, 25),  # 342 steps of 14 an epoch
        (118, 8, 193, 0, 22),
        (118, 8, 2, 0, 3),  # never: too short
    ],
)
def test_when_it_is_looked_at(images, batch, epochs, warmup, after):
    assert idle_until(plan_of(images, batch, epochs), warmup) == after


def test_where_there_is_nothing_to_learn():
    """Every photograph shows the one class that there is."""
    assert loss_of_frequencies([np.ones(1)] * 4) == 0 and stands_still(1e-6, 0.0) == []


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(root, images=48, validation=2, size=96, seed=0)
    return root


def options_of(scenes, folder, more=""):
    return (
        f"--dataset custom --root {scenes} --split train --experiments {folder} --device cpu "
        f"--workers 0 --backbone resnet18 --backbone_weights none --crop 96 {more}"
    )


def told(scenes, folder, more):
    parser = new_parser("")
    add_options(parser, **DEFAULTS)
    return settings_of(parser.parse_args(options_of(scenes, folder, more).split()))


def listening_run(folder, notes, lines, scalars=lambda *_: None):
    return SimpleNamespace(
        folder=folder,
        device=torch.device("cpu"),
        reader=Reader(torch.device("cpu"), 0, print),
        note=lambda *texts: notes.extend(texts),
        say=lines.append,
        scalars=scalars,
        picture=lambda *_: None,
        bad=None,
    )


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(
    ("weight", "said"), [(-1, "and 0 lie all over"), (1, " 0 are empty"), (None, None)]
)
def test_an_epoch_says_it(scenes, tmp_path, weight, said, masks):
    """Features that are the same everywhere, under negative or positive weights."""
    torch.manual_seed(0)
    classifier = Classifier(build_backbone("resnet18"), 7, dcr=False)
    if weight is None:
        torch.nn.init.normal_(classifier.classifier.weight)
    else:
        torch.nn.init.zeros_(classifier.backbone.layer4[1].bn2.weight)
        torch.nn.init.zeros_(classifier.backbone.layer4[0].bn2.weight)
        torch.nn.init.zeros_(classifier.backbone.layer4[0].downsample[1].weight)
        torch.nn.init.ones_(classifier.backbone.layer4[0].downsample[1].bias)
        torch.nn.init.constant_(classifier.classifier.weight, weight)
    settings = told(scenes, tmp_path, "--score_images 4 --beta 0")
    photographs = open_split(settings.data)
    if not masks:
        photographs = replace(photographs, masks=None)
    notes, lines = [], []
    run = listening_run(tmp_path, notes, lines)
    scn = SuperpixelNet().eval()
    checkpoints.load_scn(scn, checkpoints.SHIPPED)
    networks = (classifier, scn)
    plan = plan_of(len(photographs.ids), settings.schedule.batch, settings.schedule.epochs)
    kept = ClassifierEpochs(run, settings, plan, SUPERVISION, networks, {}, photographs, None)
    kept.after_epoch(0, {"loss": 1.0})
    assert notes == []
    kept.after_epoch(1, {"loss": 1.0})
    assert len(notes) == (said is not None) and len(lines) == 2
    assert all(said in note for note in notes)
    half_way = settings.schedule.epochs // 2
    for epoch in (half_way - 1, half_way):  # once only
        kept.after_epoch(epoch, {"loss": 1.0, "classification": 1.0})
    assert sum("nothing has been learnt" in note for note in notes) == 1


@pytest.mark.parametrize(
    ("options", "count"),
    [("", 2), ("--score_images 1", 1), ("--score_images 0", None), ("--split val", None)],
)
def test_photographs_of_val_are_held_back(scenes, tmp_path, options, count):
    notes = []
    held = photographs_held_back(
        listening_run(tmp_path, notes, []), told(scenes, tmp_path, options)
    )
    assert notes == [] and (held is None) == (count is None)
    if held is not None:
        val = (scenes / "ImageSets/Segmentation/val.txt").read_text().split()
        assert list(held.ids) == val[:count]
        assert held.masks is None  # not one that does not fit may stop the training


def test_none_are_held_back_without_labels_or_val(tmp_path):
    generate(tmp_path, images=6, validation=2, size=64, seed=0)
    notes = []
    run, settings = listening_run(tmp_path, notes, []), told(tmp_path, tmp_path, "")
    lists = tmp_path / "ImageSets/Segmentation"
    first, second = (lists / "val.txt").read_text().split()
    (tmp_path / f"Annotations/{first}.xml").unlink()
    assert photographs_held_back(run, settings).ids == (second,) and notes == []
    (tmp_path / f"Annotations/{second}.xml").unlink()
    assert photographs_held_back(run, settings) is None and notes == []
    (lists / "val.txt").unlink()
    assert photographs_held_back(run, settings) is None
    assert len(notes) == 1 and "no photographs are held back" in notes[0]


def test_the_map_of_photographs_held_back_is_said_and_logged(scenes, tmp_path):
    """Photographs in which every class is: any ranking of them is perfect."""
    settings = told(scenes, tmp_path, "--score_images 0")
    photographs = open_split(settings.data)
    labels = {i: np.ones_like(label) for i, label in photographs.labels.items()}
    held = replace(photographs.subset(photographs.ids[:2]), labels=labels)
    lines, scalars = [], []
    run = listening_run(tmp_path, [], lines, lambda *found: scalars.append(found))
    classifier = Classifier(build_backbone("resnet18"), 7, dcr=False)
    networks = (classifier, SuperpixelNet().eval())
    plan = plan_of(len(photographs.ids), settings.schedule.batch, settings.schedule.epochs)
    epochs = ClassifierEpochs(run, settings, plan, SUPERVISION, networks, {}, photographs, held)
    epochs.after_epoch(0, {"loss": 1.0})
    assert lines[0].endswith("; mAP on 2 photographs of val, not trained on, 100.00")
    assert scalars == [({"score/map_held_back": 1.0}, 0)]


@pytest.mark.slow
def test_an_ordinary_training_raises_no_alarm(scenes, tmp_path):
    """From scratch, in 48 steps."""
    call(
        "train_cls_image.py",
        options_of(scenes, tmp_path, "--epochs 4 --batch 4 --long_side 96 112 --score_images 24")
        + " --beta 0 --beta_train 0",
    )
    log = (tmp_path / "cls_image/log.txt").read_text()
    assert "epoch 4/4" in log and "collapsed" not in log
    assert "nothing has been learnt" not in log
