"""train_seg.py from end to end: labels, resuming, processes, errors."""

import argparse
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.demo import generate
from datasets.files import InputError
from datasets.images import read_label_map, write_label_map
from datasets.loading import SegmentationCrops
from datasets.prepared import load_collection
from datasets.transforms import PADDING_COLOUR, augment_labelled
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.deeplab import DeepLab, segmentation_loss
from networks.dilated import build_trunk
from tests.calling import call
from utils.checkpoints import open_deeplab
from utils.checkpoints.beginning import Beginning, ResumeSettings
from utils.checkpoints.training_state import TrainingState
from utils.runs.best_labels import best_labels, require_same_classes
from utils.runs.options import RunSettings
from utils.training import segmentation
from utils.training.segmentation import SummedLoss, mean_over_pixels
from utils.training.segmentation_options import add_options, settings_of

SMALL = (
    "--device cpu --workers 0 --steps 4 --score_every 2 --batch 4 --accumulate 2 --crop 48 "
    "--backbone resnet18 --backbone_weights none --stride 16 --lr 0.01 --score_images 2"
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(root, images=8, validation=3, size=64, seed=1)
    return root


def arguments(scenes, runs, more="--pseudo_labels masks"):
    return f"--dataset custom --root {scenes} --split train --experiments {runs} {SMALL} {more}"


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    runs = tmp_path_factory.mktemp("whole")
    call("train_seg.py", arguments(scenes, runs))
    return runs / "seg"


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def stopped(line):
    with pytest.raises(SystemExit) as stop:
        call("train_seg.py", line)
    return stop.value.code


def test_what_a_training_writes(whole):
    content = torch.load(whole / "last.pt", weights_only=True)
    assert (content["kind"], content["step"], content["stride"]) == ("segmentation", 4, 16)
    assert content["miou"] is None  # the last checkpoint uses no masks
    assert torch.load(whole / "best.pt", weights_only=True)["miou"] > 0
    log = (whole / "log.txt").read_text()
    assert "labels from the masks (full supervision)" in log
    assert "step 4/4: loss " in log and "photographs of custom val" in log
    assert "best.pt has the best mIoU on 2 photographs of val" in log
    assert f"next: python evaluator_seg.py --checkpoint {whole}/last.pt --dataset custom " in log
    network = open_deeplab(whole / "best.pt")
    assert network(torch.zeros(1, 3, 40, 50)).shape[2:] == (3, 4)


def test_photographs_that_are_learnt_choose_nothing(scenes, tmp_path):
    call("train_seg.py", arguments(scenes, tmp_path).replace("--split train", "--split val"))
    assert "nothing is scored while training (val is" in (tmp_path / "seg/log.txt").read_text()
    assert not (tmp_path / "seg/best.pt").exists()


def test_the_next_command_takes_a_split_that_is_there(scenes, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(scenes, own)
    (own / "ImageSets/Segmentation/val.txt").unlink()
    call("train_seg.py", arguments(own, tmp_path))
    [line] = [
        line
        for line in (tmp_path / "seg/log.txt").read_text().splitlines()
        if line.startswith("next: python ")
    ]
    script, *options = line.removeprefix("next: python ").split()
    assert "--split train" in line
    call(script, " ".join([*options, "--device cpu --workers 0 --report_images 0"]))
    assert (tmp_path / "eval_seg/result.json").is_file()


def test_photographs_of_many_crops_are_noted(scenes, tmp_path, capsys, monkeypatch):
    """Of 64 pixels, 96 when they are scaled up; the crops have 48."""
    said = "photographs have up to 96 pixels in training (1.5 times their size), and crops 48"
    for crops, noted in ((2, False), (1.9, True)):
        monkeypatch.setattr(segmentation, "LARGE", crops)
        call("train_seg.py", f"{arguments(scenes, tmp_path)} --overwrite")
        assert (said in capsys.readouterr().out) == noted


def test_label_maps_that_teach_something_else_are_noted(scenes, tmp_path, capsys):
    empty = damaged(scenes, tmp_path / "empty", lambda truth: np.where(truth, 255, 0).astype("u1"))
    first = min(empty.iterdir())
    with Image.open(first) as picture:
        picture.putpalette([200, 0, 0, *[0] * 765])
        picture.save(first)
    call("train_seg.py", arguments(scenes, tmp_path, f"--pseudo_labels {empty}"))
    said = capsys.readouterr().out
    assert "note: most label maps hold no object: 8 photographs (" in said
    assert "note: index 0 is background, and its colour is not black" in said
    assert f"order: 1 photograph ({first.stem}) of 8 looked at" in said


def test_the_longest_side_in_training_is_kept(scenes, whole):
    """Photographs of 64 pixels, scaled by 1.5 at most."""
    assert torch.load(whole / "last.pt", weights_only=True)["max_side"] == 96


class Split(torch.nn.Module):
    """As DataParallel does on two GPUs: halves of a batch, results one after the other."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *inputs):
        halves = zip(*(given.chunk(2) for given in inputs), strict=True)
        return torch.cat([self.module(*half) for half in halves])


def test_several_gpus_make_the_loss_of_one():
    torch.manual_seed(0)
    loss = SummedLoss(DeepLab(build_trunk("resnet18"), 3))
    torch.nn.init.normal_(loss.network.head.branches[0].weight, std=0.05)
    loss.network.trunk.freeze_statistics()
    batch = {"image": torch.randint(0, 256, (4, 48, 48, 3), dtype=torch.uint8)}
    batch["mask"] = torch.randint(0, 3, (4, 48, 48), dtype=torch.uint8)
    batch["mask"][:2, 5:] = 255  # a mean of the halves' means would be another
    found = []
    for model in (loss, Split(loss)):
        loss.zero_grad()
        losses = mean_over_pixels(model, loss.names)(batch)
        losses["loss"].backward()
        gradient = torch.cat([p.grad.flatten() for p in loss.parameters() if p.requires_grad])
        found.append((torch.stack([*losses.values()]).detach(), gradient))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((batch["image"] / 255 - mean) / deviation).permute(0, 3, 1, 2)
    expected = segmentation_loss(loss.network(images), batch["mask"].long())
    torch.testing.assert_close(found[0][0], torch.stack(expected).detach(), rtol=1e-4, atol=1e-6)
    assert list(losses) == list(loss.names) and found[0][1].abs().max() > 1e-3


def test_resumed_bit_for_bit(scenes, whole, tmp_path, monkeypatch):
    real, seen = TrainingState.after_step, []

    def after_step(state, epoch, position):
        seen.append(position)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        real(state, epoch, position)

    monkeypatch.setattr(TrainingState, "after_step", after_step)
    assert stopped(arguments(scenes, tmp_path)) == 128 + signal.SIGTERM
    monkeypatch.undo()
    call("train_seg.py", arguments(scenes, tmp_path, "--pseudo_labels masks --resume"))
    one, other = weights(whole / "last.pt"), weights(tmp_path / "seg/last.pt")
    assert all(torch.equal(one[name], other[name]) for name in one)


def evaluation(folder, scenes, left_out=()):
    """What an evaluator leaves of the training photographs: labels at two thresholds."""
    masks = sorted((scenes / "SegmentationClassAug").glob("*.png"))
    for threshold in ("0.2", "0.3"):
        for path in masks:
            if path.stem not in left_out:
                target = folder / "pseudo_labels" / threshold / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    (folder / "result.json").write_text(json.dumps({"best_labels": "pseudo_labels/0.3"}))


def test_the_best_labels_are_found_and_missing_ones_counted(scenes, tmp_path, capsys):
    first = (scenes / "ImageSets/Segmentation/train.txt").read_text().split()[0]
    evaluation(tmp_path / "eval_image", scenes, left_out=[first])
    more = "--steps 2 --score_every 2 --score_images 0"
    call("train_seg.py", arguments(scenes, tmp_path, more))
    out = capsys.readouterr().out
    assert f"labels from {tmp_path}/eval_image/pseudo_labels/0.3 (the choice of eval_image)" in out
    assert "training on 7 photographs" in out
    assert f"1 of 8 photographs have no label map, such as {first}" in out
    folder = tmp_path / "eval_image"
    call("train_seg.py", arguments(scenes, tmp_path, f"{more} --tag b --labels_from {folder}"))
    assert f"labels from {folder}/pseudo_labels/0.3 (" in capsys.readouterr().out


def test_labels_of_other_classes_are_refused(tmp_path):
    """Such as after labels.txt was put into another order: every dog would be learnt as a cat."""
    found = {"best_labels": "pseudo_labels/0.3", "classes": ["background", "dog", "cat"]}
    (tmp_path / "result.json").write_text(json.dumps(found))
    (tmp_path / "evaluation.json").write_text("{}")
    assert best_labels(tmp_path) == tmp_path / "pseudo_labels/0.3"
    require_same_classes(tmp_path, ("dog", "cat"))
    require_same_classes(tmp_path / "pseudo_labels", ("cow",))  # no evaluation
    for others, differ in (
        (("cat", "dog"), "class 1 is dog there and cat here"),
        (("dog",), "class 2 is cat there and nothing here"),
        (("dog", "cat", "cow"), "class 3 is nothing there and cow here"),
        (("dog", "cat", "nothing"), "class 3 is nothing there and nothing here"),
    ):
        with pytest.raises(InputError, match=f"other classes than the data set's .{differ}"):
            require_same_classes(tmp_path, others)


@pytest.mark.parametrize("content", ["[]", "{}", '{"best_labels": 3}'])
def test_a_result_that_no_evaluator_wrote(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(InputError, match="not what an evaluator wrote"):
        best_labels(tmp_path)


def evaluated(folder, labels="pseudo_labels/0.3"):
    """A folder as an evaluator leaves it, of the class dog alone."""
    found = {"best_labels": labels, "classes": ["background", "dog"]}
    (folder / labels).mkdir(parents=True)
    for name, content in (("result", found), ("evaluation", {}), ("options", {})):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / labels


@pytest.mark.parametrize("labels", ["pseudo_labels/0.3", "masks"])
def test_the_classes_of_a_named_folder_count_too(scenes, tmp_path, capsys, labels):
    folder = evaluated(tmp_path / "round2", labels)
    assert stopped(arguments(scenes, tmp_path, f"--pseudo_labels {folder}")) == 2
    assert "round2: its labels are of other classes" in capsys.readouterr().err


def test_an_evaluation_is_not_trained_over(scenes, tmp_path, capsys):
    """--overwrite would remove the labels that are to be learnt."""
    evaluated(tmp_path / "seg")
    assert stopped(arguments(scenes, tmp_path, "--pseudo_labels masks --overwrite")) == 2
    assert "seg: holds an evaluation, and a training has a folder" in capsys.readouterr().err
    assert (tmp_path / "seg/pseudo_labels/0.3").is_dir()


def test_a_training_that_was_begun_there_goes_on(tmp_path):
    """Earlier versions trained over evaluations with --overwrite."""
    evaluated(tmp_path / "seg")
    beginning = Beginning(RunSettings(str(tmp_path), "seg", overwrite=True), ResumeSettings(), {})
    with pytest.raises(InputError, match="holds an evaluation"):
        beginning.open_run(torch.device("cpu"))
    beginning.content = {"options": {}, "step": 1}
    with beginning.open_run(torch.device("cpu")) as run:
        assert run.folder == tmp_path / "seg"


def damaged(scenes, folder, labels):
    """A folder of label maps, the last of which is `labels`."""
    for path in sorted((scenes / "SegmentationClassAug").glob("*.png")):
        truth = read_label_map(path)
        write_label_map(folder / path.name, labels(truth))
    return folder


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda truth: truth[:-1], "but the photograph has"),
        (lambda truth: np.where(truth == 0, 99, truth).astype(np.uint8), "holds class 99"),
    ],
)
def test_labels_that_cannot_be(scenes, tmp_path, capsys, labels, message):
    folder = damaged(scenes, tmp_path / "labels", labels)
    assert stopped(arguments(scenes, tmp_path, f"--pseudo_labels {folder}")) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", "eval_image: holds no finished evaluation"),
        ("--pseudo_labels none_such", "none_such: no such folder"),
        ("--pseudo_labels masks --labels_from eval_image", "not allowed with argument --pseudo_l"),
        ("--pseudo_labels .", "holds no label map <id>.png of custom train; evaluate"),
        ("--pseudo_labels {scenes}", "custom train (but {scenes}/SegmentationClassAug does);"),
        ("--pseudo_labels masks --steps 5", "--score_every 2: must divide --steps 5; leave it"),
        ("--pseudo_labels masks --backbone_weights none.pth", "none.pth: no such file"),
    ],
)
def test_refused_in_one_line(scenes, tmp_path, capsys, more, message):
    more, message = (text.replace("{scenes}", str(scenes)) for text in (more, message))
    assert stopped(arguments(scenes, tmp_path, more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_labels_that_never_count_train_nothing_but_do_not_fail(scenes, tmp_path):
    """A crop of ignored pixels gives 0, not NaN."""
    folder = damaged(scenes, tmp_path / "labels", lambda truth: np.full_like(truth, 255))
    more = f"--pseudo_labels {folder} --steps 2 --score_every 2 --score_images 0"
    call("train_seg.py", arguments(scenes, tmp_path, more))
    state = weights(tmp_path / "seg/last.pt")
    assert all(torch.isfinite(value).all() for value in state.values())
    assert "loss 0," in (tmp_path / "seg/log.txt").read_text()


def test_a_whole_network_to_begin_with(scenes, whole, tmp_path):
    more = f"--pseudo_labels masks --backbone_weights {whole}/last.pt --lr 1e-9 --steps 2"
    call("train_seg.py", arguments(scenes, tmp_path, more))
    one, other = weights(whole / "last.pt"), weights(tmp_path / "seg/last.pt")
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)


def test_a_classifier_to_begin_with(scenes, tmp_path):
    """Its backbone is taken; what pretrained weights of one's own are."""
    backbone = build_backbone("resnet18")
    torch.nn.init.constant_(backbone.bn1.weight, 0.3)
    classifier = Classifier(backbone, 5)
    content = {"kind": "classifier", "backbone": "resnet18", "model": classifier.state_dict()}
    torch.save(content, tmp_path / "cls.pt")
    more = f"--pseudo_labels masks --backbone_weights {tmp_path}/cls.pt --lr 1e-9 --steps 2"
    call("train_seg.py", arguments(scenes, tmp_path, more))
    state = weights(tmp_path / "seg/last.pt")
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(state[f"trunk.{name}"], value, rtol=1e-5, atol=1e-6)


# --- crops ----------------------------------------------------------------------------------------


def test_crops_and_their_labels_lie_on_each_other():
    """Scaling by 1 or 2 keeps values; the mask is the first channel, so both must agree."""
    random = np.random.default_rng(0)
    mask = np.kron(random.integers(0, 21, (20, 30), np.uint8), np.ones((4, 4), np.uint8))
    image = np.repeat(mask[..., None], 3, axis=2)
    mirrored = 0
    for number in range(20):
        rng = np.random.default_rng(number)
        pixels, labels = augment_labelled(image, mask, 64, (1.0,), rng)
        assert pixels.shape == (64, 64, 3) and labels.shape == (64, 64)
        assert (pixels[..., 0] == labels).all()
        at = [(labels == mask[y : y + 64, x : x + 64]).all() for y in range(17) for x in range(57)]
        mirrored += not any(at)
    assert 4 < mirrored < 16


def test_padding_lies_right_and_below_or_left_when_mirrored():
    mask = np.zeros((20, 30), np.uint8)
    image = np.zeros((20, 30, 3), np.uint8)
    for number in range(10):
        rng = np.random.default_rng(number)
        pixels, labels = augment_labelled(image, mask, 64, (0.5, 1.5), rng)
        counting = labels != 255
        rows, columns = counting.any(1), counting.any(0)
        size = (int(rows.sum()), int(columns.sum()))
        assert size in ((10, 15), (30, 45))
        assert rows[: size[0]].all() and (columns[: size[1]].all() or columns[-size[1] :].all())
        assert (pixels[~counting] == PADDING_COLOUR).all() and (pixels[counting] == 0).all()


def test_crops_of_a_collection(scenes):
    photographs = load_collection("custom", str(scenes), "train", quiet=True)
    crops = SegmentationCrops(photographs, 48, (0.5, 1.0), seed=3)
    one, again = crops[2, 5], crops[2, 5]
    assert torch.equal(one["mask"], again["mask"]) and torch.equal(one["image"], again["image"])
    assert one["image"].shape == (48, 48, 3) and one["mask"].dtype == torch.uint8
    nowhere = replace(photographs, masks=Path("nowhere"))
    assert "nowhere" in SegmentationCrops(nowhere, 48, (1.0,), 0)[0, 0]["error"]


@pytest.mark.parametrize(("steps", "every"), [(2000, 1000), (6, 6), (1500, 1500)])
def test_a_network_is_scored_at_its_end_at_least(steps, every):
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert settings_of(parser.parse_args(["--steps", str(steps)])).score_every == every
