"""The readers that are fuzzed, each as a function of a file and a folder it may write into."""

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from datasets import coco
from datasets.classes import read_class_list
from datasets.coco_masks import mask_tasks, render_mask
from datasets.files import read_json
from datasets.images import image_header, is_turned, read_label_map, read_photograph, read_saliency
from datasets.labels import read_csv_labels, read_labels_json, xml_labels
from datasets.listing import read_id_list
from datasets.loading import Plan
from datasets.published_labels import read_published_labels
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from tests.fuzz.make_seeds import SEEDS
from utils import checkpoints
from utils.checkpoints.beginning import Beginning, ResumeSettings
from utils.checkpoints.training_state import TrainingState
from utils.pictures.summary import read_result
from utils.runs.options import RunSettings
from utils.scores.label_folders import score_one
from utils.training.losses import LossReader

CLASSES = ("person", "cat", "dog")


def photograph(path, folder):
    height, width, _ = read_photograph(path).shape
    # Two decoders read photographs; what one was asked about must be what the other decodes.
    assert image_header(path)[1] == (height, width)


def score(path, folder):
    """Damaged predictions and damaged ground truth."""
    truth = SEEDS / "image" / "grey.png"
    for one, two in ((path, truth), (truth, path)):
        for name, source in (("pred", one), ("gt", two)):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "a.png").write_bytes(source.read_bytes())
        score_one("a", folder / "pred", folder / "gt", 21)


def class_csv(path, folder):
    for classes in (None, CLASSES):
        names, labels = read_csv_labels(path, classes)
        assert all(vector.shape == (len(names),) for vector in labels.values())


def instances(path, folder):
    """Read, then render, into a folder that nothing may leave."""
    target = coco.instances_path(folder, "train")
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(path.read_bytes())
    ids = list(coco.read_instances(target).images)
    for task in mask_tasks(folder, "train", ids):
        render_mask(task)


# --- checkpoints ----------------------------------------------------------------------------------


@cache
def superpixel_network():
    return SuperpixelNet()


@cache
def backbone():
    return build_backbone("resnet18")


@cache
def classifier():
    return Classifier(build_backbone("resnet18"), len(CLASSES) + 1)


def hollow(model):
    """A state dict in which every tensor is a view of one number, so that its file is small."""
    zeros = {}
    return {
        name: zeros.setdefault(value.dtype, torch.zeros((), dtype=value.dtype)).expand(value.shape)
        for name, value in model.state_dict().items()
    }


def written(content, zipped):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def both_formats(content):
    return [written(content, zipped) for zipped in (True, False)]


@cache
def network_seeds(kind):
    """Checkpoints of whole networks, which are made here: they are too large for the repository."""
    if kind == "scn":
        state = hollow(superpixel_network())
        published = {f"module.{k}": v for k, v in state.items() if not k.startswith("input_")}
        ours = {"kind": "scn", "model": state}
        return [d for c in (ours, published, {"state_dict": published}) for d in both_formats(c)]
    if kind == "training":
        return both_formats(training_state())
    if kind == "backbone":
        return both_formats(hollow(nn.ModuleDict({"fc": nn.Linear(512, 10)})) | hollow(backbone()))
    content = {
        "kind": "classifier",
        "backbone": "resnet18",
        "dcr": True,
        "classes": list(CLASSES),
        "threshold": 0.3,
        "model": hollow(classifier()),
        "scn": hollow(superpixel_network()),
    }
    return both_formats(content)


@cache
def learning():
    """A small network and its optimiser under training: what takes a state as its own."""
    torch.manual_seed(0)
    learner = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.1)
    learner(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    settings = RunSettings(experiments="", tag="a", options={"batch": 2})
    run = SimpleNamespace(settings=settings, folder=Path(), skipped={}, say=lambda text: None)
    plan = Plan(images=4, batch=2, epochs=3)
    return run, plan, learner, optimizer, LossReader(run, plan, optimizer, 1)


def training_state():
    """The state of such a training, as its file holds it."""
    with pytest.MonkeyPatch.context() as patch:
        kept = []
        patch.setattr("utils.checkpoints.files.save", lambda path, content: kept.append(content))
        run, *rest = learning()
        beginning = Beginning(run.settings, ResumeSettings(), {})
        TrainingState(beginning, run, *rest).save(1, 1)
    return kept[0]


def resume(path, folder):
    """Find the state, compare its options, take it up."""
    run, plan, *rest = learning()
    resuming = ResumeSettings(resume=str(path), force=True)
    beginning = Beginning(run.settings, resuming, {"photographs": "0"})
    assert all(number >= 0 for number in beginning.place(plan))
    TrainingState(beginning, run, plan, *rest)


def result(path, folder):
    """What the summary reads of an evaluator's folder."""
    (folder / "result.json").write_bytes(path.read_bytes())
    read_result(str(folder))


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        kind: the folder of its seeds, or the kind of checkpoint that network_seeds makes.
        read: the function, of the file and of a folder it may write into.
        share: how many of every round's files it is given.
    """

    kind: str
    read: object
    share: int = 4

    def seeds(self):
        """Good files for it."""
        files = sorted((SEEDS / self.kind).glob("*"))
        return [path.read_bytes() for path in files] or network_seeds(self.kind)

    def mutated_as(self):
        """The kind of damage that fits."""
        return self.kind if (SEEDS / self.kind).is_dir() else "checkpoint"


READERS = {
    "read_photograph": Reader("image", photograph, 12),
    "read_label_map": Reader("image", lambda path, _: read_label_map(path)),
    "read_saliency": Reader("image", lambda path, _: read_saliency(path, (20, 30)), 6),
    "image_header": Reader("image", lambda path, _: image_header(path), 2),
    "is_turned": Reader("image", lambda path, _: is_turned(path)),
    "score_one": Reader("image", score, 2),
    "read_id_list": Reader("list", lambda path, _: read_id_list(path), 2),
    "read_class_list": Reader("classes", lambda path, _: read_class_list(path), 2),
    "read_json": Reader("json", lambda path, _: read_json(path), 2),
    "read_labels_json": Reader("labels_json", lambda path, _: read_labels_json(path)),
    "read_csv_labels": Reader("csv", class_csv),
    "xml_labels": Reader("xml", lambda path, _: xml_labels(path, CLASSES), 6),
    "read_published_labels": Reader("npy", lambda path, _: read_published_labels(path), 8),
    "coco": Reader("instances", instances, 10),
    "checkpoints.read": Reader("checkpoint", lambda path, _: checkpoints.read(path), 10),
    "load_scn": Reader("scn", lambda p, _: checkpoints.load_scn(superpixel_network(), p), 3),
    "load_backbone": Reader("backbone", lambda p, _: checkpoints.load_backbone(backbone(), p), 3),
    "load_classifier": Reader(
        "classifier", lambda p, _: checkpoints.load_classifier(classifier(), p), 3
    ),
    "resume": Reader("training", resume, 5),
    "summary": Reader("result", result, 2),
    "open_trained": Reader("classifier", lambda path, _: checkpoints.open_trained(path), 2),
}
"""Every reader of files that come from a user."""


def scratch_file(folder):
    """Where a file is put to be read."""
    return Path(folder) / "fuzzed"
