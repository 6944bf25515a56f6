"""Segmentation networks in files: our own, and published ones of the Caffe kind.

A file of ours holds

    kind      "segmentation"
    backbone  its name (networks/backbone.py)
    trunk     torchvision or caffe: the kind of ResNet (networks/dilated.py); else torchvision
    stride    8 (also where it is not said), or 16
    classes   names of the foreground classes
    model     the state dict of networks.deeplab.DeepLab

A published file is a bare state dict, or one under `model` or `state_dict`. Its kind, backbone and
number of classes show in its names and shapes.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from datasets.classes import MAX_CLASSES
from datasets.files import InputError
from networks.backbone import NAMES, is_backbone
from networks.deeplab import DeepLab
from networks.dilated import KINDS, build_trunk, strides_of
from networks.resnet import WEIGHTS
from utils.checkpoints.files import read
from utils.checkpoints.trained import classes_of
from utils.checkpoints.weights import (
    built_from_file,
    fill,
    fill_published,
    refuse_training_state,
    weights_in,
)

WRAPPERS = re.compile(r"^((module|scale|base)\.)+")
"""What names in published files may begin with."""

BLOCK = re.compile(r"layer([2-5])\.block(\d{1,3})\.(reduce|conv3x3|increase|shortcut)\.(conv|bn)\.")
"""How the names of a residual block's layers begin in published files."""

CONVOLUTIONS = {"reduce": 1, "conv3x3": 2, "increase": 3}
"""A block's convolutions in published files, and their number in torchvision's."""

PUBLISHED = {6: "resnet50", 23: "resnet101"}
"""Published networks, by the number of blocks in their third stage."""

CLASSES = "head.branches.0.bias"
"""A parameter with one value a class."""


@dataclass(frozen=True)
class TrainedSegmentation:
    """A segmentation network, ready for inference, and what its file says.

    Attributes:
        network: in evaluation mode; batch normalisation keeps its statistics.
        classes: foreground class names, or None where the file does not say.
        backbone: its name.
        trunk: torchvision or caffe, the kind of ResNet; torchvision for other backbones.
    """

    network: DeepLab
    classes: tuple[str, ...] | None
    backbone: str
    trunk: str


def open_deeplab(path: str | os.PathLike) -> DeepLab:
    """The segmentation network in a file of train_seg.py, or in a published one of the Caffe kind.

    Returns:
        In evaluation mode, built as the file says.

    Raises:
        InputError: not such a file.
    """
    return open_segmentation(path).network


def open_segmentation(path: str | os.PathLike) -> TrainedSegmentation:
    """As `open_deeplab`, with what the file says of the network.

    Raises:
        InputError: not such a file.
    """
    held = _read(path)
    last = held.weights.get(CLASSES)
    if held.backbone is None or last is None or last.ndim != 1:
        raise InputError(f"{path}: holds no segmentation network; name a file of train_seg.py")
    # A tensor can claim a size without holding it; the network built for it would hold it.
    if not 2 <= len(last) <= MAX_CLASSES + 1:
        raise InputError(f"{path}: a head of {len(last)} classes; 2 to {MAX_CLASSES + 1} work")
    if held.classes is not None and len(held.classes) + 1 != len(last):
        raise InputError(
            f"{path}: names {len(held.classes)} classes, but its head has {len(last) - 1} "
            "besides background; name the file as train_seg.py wrote it"
        )
    build = partial(build_trunk, held.backbone, held.trunk, stride=held.stride)
    trunk = built_from_file(build, path)
    network = DeepLab(trunk, len(last))
    fill(network, held.weights, path, _kind_of(held.backbone, held.trunk))
    network.trunk.freeze_statistics()
    network.max_side = held.max_side
    return TrainedSegmentation(network.eval(), held.classes, held.backbone, held.trunk)


def trunk_kind(path: str | os.PathLike) -> str:
    """The kind of ResNet in a file for `load_trunk`: caffe, or torchvision for all else.

    Raises:
        InputError: the file holds no weights.
    """
    return _read(path).trunk


def load_trunk(model: DeepLab, path: str | os.PathLike) -> bool:
    """Take a file's weights to begin with; the trunk's batch statistics are frozen from then on.

    The file is the published one of the backbone (torchvision's of an ImageNet ResNet), a published
    initialisation of the Caffe kind, a classifier of train_cls_* (its backbone is taken), or a
    whole segmentation network, ours or published.

    Returns:
        Whether the head was taken too: the file has one for as many classes.

    Raises:
        InputError: not such a file, or of another backbone or kind than the model's.
    """
    held = _read(path)
    if held.backbone not in (None, model.trunk.name):
        raise InputError(
            f"{path}: holds the backbone {held.backbone[:80]!r}, not {model.trunk.name}; name that "
            "with --backbone"
        )
    kind = getattr(model.trunk, "kind", "torchvision")
    if held.trunk != kind:
        raise InputError(
            f"{path}: a ResNet of the {held.trunk} kind, but the network's is of the {kind} kind"
        )
    trunk = {
        n.removeprefix("trunk."): v for n, v in held.weights.items() if not n.startswith("head.")
    }
    head = {n.removeprefix("head."): v for n, v in held.weights.items() if n.startswith("head.")}
    if held.by_others:
        fill_published(model.trunk, trunk, path)
    else:
        fill(model.trunk, trunk, path, _kind_of(model.trunk.name, kind))
    model.trunk.freeze_statistics()
    fits = _shapes(head) == _shapes(model.head.state_dict())
    if fits:
        fill(model.head, head, path, "the head")
    return fits


def _kind_of(backbone: str, kind: str) -> str:
    """A trunk in words."""
    return f"{backbone} of the {kind} kind" if backbone in WEIGHTS else backbone


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


@dataclass(frozen=True)
class _Held:
    """What a file holds: weights under `DeepLab`'s names, and what is known of the network.

    `by_others` says that the trunk's names behind `trunk.` are those of a published backbone.
    """

    weights: dict[str, Tensor]
    backbone: str | None
    trunk: str
    classes: tuple[str, ...] | None = None
    stride: int = 8
    max_side: int | None = None
    by_others: bool = False


def _read(path: str | os.PathLike) -> _Held:
    """Read a file of a segmentation network, or of a backbone.

    Raises:
        InputError: it holds no weights, or says something of them that cannot be.
    """
    content = read(path)
    refuse_training_state(content, path)
    weights = weights_in(content, path)
    if content.get("kind") == "segmentation":
        return _Held(weights, *_described(content, path))
    if content.get("kind") == "classifier":
        trunk = {n: v for n, v in weights.items() if n.startswith("backbone.")}
        named = {f"trunk.{n.removeprefix('backbone.')}": v for n, v in trunk.items()}
        backbone = content.get("backbone")
        known = type(backbone) is str and is_backbone(backbone)
        return _Held(named, backbone if known else None, "torchvision")
    if "kind" in content:
        raise InputError(
            f"{path}: of another stage; name a file of train_seg.py (--backbone_weights also takes "
            "the backbone's own, and those of train_cls_*)"
        )
    published = {WRAPPERS.sub("", name): value for name, value in weights.items()}
    blocks = [block for block in map(BLOCK.match, published) if block]
    if not blocks:
        trunk = {f"trunk.{n}": value for n, value in weights.items()}
        return _Held(trunk, None, "torchvision", by_others=True)
    third = max((int(block[2]) for block in blocks if block[1] == "4"), default=0)
    if third not in PUBLISHED:
        raise InputError(
            f"{path}: a ResNet with {third} blocks in its third stage; those with "
            "6 (ResNet-50) and 23 (ResNet-101) can be read"
        )
    ours = {_our_name(name): value for name, value in published.items()}
    return _Held(ours, PUBLISHED[third], "caffe")


def _described(
    content: Mapping[str, Any], path: str | os.PathLike
) -> tuple[str, str, tuple[str, ...] | None, int, int | None]:
    """What a file of ours says of its network: backbone, trunk, classes, stride and longest side.

    Raises:
        InputError: one of them is something else.
    """
    if content.get("head", "v2") != "v2":  # files of earlier versions say so
        raise InputError(f"{path}: of another head than DeepLab-V2's, which is not built any more")
    trunk = content.get("trunk")
    if type(trunk) is not str or trunk not in KINDS:
        raise InputError(f"{path}: 'trunk' is not one of {', '.join(KINDS)}")
    backbone, stride = content.get("backbone"), content.get("stride", 8)
    if type(backbone) is not str or not is_backbone(backbone):
        raise InputError(f"{path}: 'backbone' is not one of {NAMES}")
    if type(stride) is not int or stride not in strides_of(backbone, trunk):
        raise InputError(f"{path}: 'stride' is not one that {backbone[:80]} has")
    max_side = content.get("max_side")
    if max_side is not None and (type(max_side) is not int or max_side < 1):
        raise InputError(f"{path}: 'max_side' is not a number of pixels")
    return backbone, trunk, classes_of(content, path), stride, max_side


def _our_name(published: str) -> str:
    """`layer4.block2.reduce.conv.weight` -> `trunk.layer3.1.conv1.weight`, and so on."""
    block = BLOCK.match(published)
    if block:
        stage, number, layer, kind = block.groups()
        if layer == "shortcut":
            ours = "downsample.0" if kind == "conv" else "downsample.1"
        else:
            ours = f"{kind}{CONVOLUTIONS[layer]}"
        return f"trunk.layer{int(stage) - 1}.{int(number) - 1}.{ours}.{published[block.end() :]}"
    name = re.sub(r"^layer1\.conv1\.(conv|bn)\.", r"trunk.\g<1>1.", published)
    return re.sub(r"^aspp\.c([0-3])\.", r"head.branches.\1.", name)
