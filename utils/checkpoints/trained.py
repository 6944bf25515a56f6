"""A trained classification network, as its checkpoint describes it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets.classes import DATA, MAX_CLASSES, check_classes
from datasets.files import InputError
from networks.backbone import build_backbone
from networks.classifier import Classifier
from networks.superpixel import SuperpixelNet
from utils.checkpoints.files import read
from utils.checkpoints.weights import (
    built_from_file,
    fill,
    fill_classifier,
    load_scn,
    refuse_training_state,
    weights_in,
)

SHIPPED = DATA / "scn_bsds500.pt"
"""The superpixel network that comes with the project; data/scn_bsds500.md describes it."""


@dataclass(frozen=True)
class Trained:
    """A trained classification network, ready for inference, and what its checkpoint says.

    Attributes:
        classifier: in evaluation mode.
        scn: the superpixel network it was trained with, or the one named; in evaluation mode.
        classes: foreground class names, or None where the checkpoint does not say.
        threshold: its best background threshold in training, or None.
        shipped_scn: the superpixel network is the shipped one, for want of another.
    """

    classifier: Classifier
    scn: SuperpixelNet
    classes: tuple[str, ...] | None
    threshold: float | None
    shipped_scn: bool = False


def open_scn(path: str | os.PathLike = SHIPPED) -> SuperpixelNet:
    """The superpixel network in a file that `load_scn` reads, in evaluation mode.

    Raises:
        InputError: the file does not hold such weights.
    """
    scn = SuperpixelNet()
    load_scn(scn, path)
    return scn.eval()


def open_trained(path: str | os.PathLike, scn_path: str | os.PathLike | None = None) -> Trained:
    """The networks in a checkpoint of a train_cls script, or in a published one with an SCN file.

    Published classifiers are ResNet-50s under their own names; they hold no superpixel network:
    `scn_path` should name the one they were trained with, else it is the shipped one.

    Raises:
        InputError: not such a checkpoint, or no superpixel network.
    """
    content = read(path)
    refuse_training_state(content, path)
    if content.get("kind") == "scn":
        raise InputError(f"{path}: a superpixel network; a classifier of train_cls_* is needed")
    weights = weights_in(content, path)
    last = weights.get("classifier.weight", weights.get("classifier.0.weight"))
    if last is None or last.ndim != 4:
        raise InputError(
            f"{path}: holds no classification network; name a file of train_cls_image.py or "
            "train_cls_sal.py"
        )
    # A tensor can claim a size without holding it; the network built for it would hold it.
    if not 2 <= len(last) <= MAX_CLASSES + 1:
        raise InputError(
            f"{path}: a classifier of {len(last)} classes; 2 to {MAX_CLASSES + 1} work"
        )
    name, dcr, classes, threshold = _described(content, path)
    backbone = built_from_file(partial(build_backbone, name), path)
    classifier = Classifier(backbone, len(last), dcr=dcr)
    fill_classifier(classifier, content, path)
    holds_scn = isinstance(content.get("scn"), Mapping)
    if scn_path is None and holds_scn:
        scn = SuperpixelNet()
        fill(scn, weights_in(content["scn"], path), path, "the superpixel network (SCN)")
    else:
        scn = open_scn(SHIPPED if scn_path is None else scn_path)
    shipped = scn_path is None and not holds_scn
    return Trained(classifier.eval(), scn.eval(), classes, threshold, shipped)


def _described(
    content: Mapping[str, Any], path: str | os.PathLike
) -> tuple[str, bool, tuple[str, ...] | None, float | None]:
    """What a checkpoint says of its network: backbone, DCR or not, classes and threshold.

    Raises:
        InputError: one of them is something else.
    """
    dcr, threshold = content.get("dcr"), content.get("threshold")
    backbone = content.get("backbone", "resnet50")
    if type(backbone) is not str:
        raise InputError(f"{path}: 'backbone' is not a name")
    if dcr is not None and type(dcr) is not bool:
        raise InputError(f"{path}: 'dcr' is neither true nor false")
    if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
        raise InputError(f"{path}: 'threshold' is not a number from 0 to 1")
    return backbone[:80], dcr is not False, classes_of(content, path), threshold


def classes_of(content: Mapping[str, Any], path: str | os.PathLike) -> tuple[str, ...] | None:
    """The foreground classes that a checkpoint names, or None.

    Raises:
        InputError: they are no list of names.
    """
    classes = content.get("classes")
    if classes is None:
        return None
    if not isinstance(classes, list | tuple) or not all(type(c) is str for c in classes):
        raise InputError(f"{path}: 'classes' is not a list of names")
    return check_classes(classes, path)
