"""From a photograph to its segmentation. docs/method.md, section 5.

from utils.checkpoints import open_deeplab
from utils.inference.segmentation import segment_file

mask = segment_file("dog.jpg", open_deeplab("experiments/seg/last.pt"))
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from datasets.collection import Collection
from datasets.images import read_photograph
from networks.normalisation import normalise
from utils.inference.cams import resize
from utils.inference.photographed import (
    MAX_SIDE,
    Photographed,
    exceeds,
    require_normalised,
    require_scales,
    shrink,
)
from utils.runs.reader import Reader

SCALES = (1.0,)
"""Of the photograph, by default: the network itself looks at three sizes of each."""


@dataclass(frozen=True)
class SegmentationInferenceSettings:
    """How photographs are segmented.

    Attributes:
        scales: of the sides.
        flip: mirror images too.
        restrict: allow only background and the classes in a photograph's image-level labels.
        probabilities: hand on the probabilities, which are large, and not the labels alone.
        max_side: a longer side of a photograph is scaled down to this; None or 0 for never.
    """

    scales: Sequence[float] = SCALES
    flip: bool = False
    restrict: bool = False
    probabilities: bool = False
    max_side: int | None = None


@dataclass(frozen=True)
class Segmented(Photographed):
    """What is known about one photograph after inference.

    Attributes:
        labels: (H, W) uint8 class indices.
        classes: (n,) indices of the classes that were allowed, background first.
        probabilities: of these classes, (n, H, W) float32 that sum to 1; or None.
        mask: (H, W) uint8 ground truth, or None.
    """

    labels: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray | None
    mask: np.ndarray | None


@torch.no_grad()
def segment(
    image: Tensor, network: nn.Module, scales: Sequence[float] = SCALES, flip: bool = False
) -> Tensor:
    """Class probabilities of one photograph: the mean of softmax over the scales and mirroring.

    Args:
        image: ImageNet-normalised, (3, H, W); any size.
        network: networks.deeplab.DeepLab in evaluation mode, on the image's device.
        scales: of the sides.
        flip: mirror images too.

    Returns:
        (C, H, W), float32 or better, summing to 1 over the classes, background first.

    Raises:
        ValueError: the image has another shape or holds integers, or a scale is not above 0.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image must be (3, H, W), got {tuple(image.shape)}")
    require_normalised(image)
    require_scales(scales)
    height, width = image.shape[1:]
    total, views = 0, 0
    for scale in scales:
        view = resize(image[None], (max(1, round(height * scale)), max(1, round(width * scale))))
        logits = network(torch.cat([view, view.flip(3)]) if flip else view)
        found = resize(logits, (height, width)).softmax(1)
        total = total + found[0] + (found[1].flip(2) if flip else 0)
        views += len(found)
    return total / views


def segment_file(
    path: str | os.PathLike,
    network: nn.Module,
    scales: Sequence[float] = SCALES,
    flip: bool = False,
    max_side: int | None = None,
) -> np.ndarray:
    """The label map (H, W) uint8 of the photograph in a file: class indices, background 0.

    The network is one of `utils.checkpoints.open_deeplab`, on any device; `scales` and `flip` as in
    `segment`. A longer side is scaled down to `max_side`, by default that of the training, and the
    probabilities up again; 0 for never.

    Raises:
        InputError: the file cannot be read.
    """
    image = torch.from_numpy(read_photograph(path)).permute(2, 0, 1)
    image = image.to(next(network.parameters()).device)
    seen = shrink(image, side_limit(max_side, network))
    probabilities = segment(normalise(seen), network, scales, flip)
    return resize(probabilities[None], image.shape[1:])[0].argmax(0).byte().cpu().numpy()


def side_limit(asked: int | None, network: nn.Module) -> int:
    """The side to which larger photographs are scaled down; 0 for never.

    What is asked for, else that of the network's training, else MAX_SIDE.
    """
    if asked is not None:
        return asked
    return network.max_side or MAX_SIDE


def allowed_classes(labels: Tensor | None, num_classes: int) -> np.ndarray:
    """Background and the classes in image-level labels (K,); without labels all: (n,) int64."""
    if labels is None:
        return np.arange(num_classes)
    return np.concatenate([[0], np.flatnonzero(labels.numpy()) + 1])


def segment_collection(
    collection: Collection,
    network: nn.Module,
    settings: SegmentationInferenceSettings,
    reader: Reader,
) -> Iterator[Segmented]:
    """Segment every photograph, in order, under a progress bar.

    The network must be in evaluation mode on the device. With `restrict`, a photograph whose labels
    are unknown may hold every class.
    """
    device = reader.device
    for item in reader.read(collection, "masks"):
        image = shrink(item["image"].to(device, non_blocking=True), settings.max_side)
        found = segment(normalise(image), network, settings.scales, settings.flip)
        labels = item["labels"] if settings.restrict else None
        classes = allowed_classes(labels, len(found))
        if len(classes) < len(found):
            found = found[torch.from_numpy(classes).to(device)]
            found = found / found.sum(0).clamp_min(torch.finfo(found.dtype).tiny)
        found = resize(found[None], item["image"].shape[1:])[0]
        yield Segmented(
            id=item["id"],
            image=item["image"],
            shrunk=exceeds(item["image"], settings.max_side),
            labels=classes.astype(np.uint8)[found.argmax(0).cpu().numpy()],
            classes=classes,
            probabilities=found.cpu().numpy() if settings.probabilities else None,
            mask=item["mask"],
        )
