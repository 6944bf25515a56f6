"""Class activation maps of whole collections."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from datasets.collection import Collection
from datasets.loading import Photographs, photograph_loader
from networks.normalisation import normalise
from utils.inference.cams import SCALES, infer_batch, predict_labels
from utils.inference.label_maps import label_map
from utils.runs.progress import progress

BATCHES_AHEAD = 8
"""About so many batches' pixels are read before some are inferred: their cams are all held."""


@dataclass(frozen=True)
class InferenceSettings:
    """How cams are inferred.

    Attributes:
        scales: of the sides.
        flip: mirror images too.
        beta: steps of affinity propagation.
        gamma: affinities below this are cut.
        predict_from: None takes the labels that are given; a probability takes the classes that
            reach it instead.
        keep: in place of gamma: the share of affinities that are kept, or None.
    """

    scales: Sequence[float] = SCALES
    flip: bool = True
    beta: int = 8
    gamma: float = 0.6
    predict_from: float | None = None
    keep: float | None = None


@dataclass(frozen=True)
class Inferred:
    """What is known about one photograph after inference.

    Attributes:
        id: of the photograph.
        image: (3, H, W) uint8 on the CPU.
        classes: (n,) foreground class indices, 0-based, of the classes in it.
        cams: (n, H, W) float32 in 0..1.
        scores: (K,) classification scores.
        mask: (H, W) uint8 ground truth, or None.
    """

    id: str
    image: Tensor
    classes: np.ndarray
    cams: np.ndarray
    scores: np.ndarray
    mask: np.ndarray | None


def infer_collection(
    collection: Collection,
    classifier: nn.Module,
    scn: nn.Module,
    settings: InferenceSettings,
    device: torch.device,
    workers: int,
    title: str,
    bad: Callable[[str], None],
) -> Iterator[Inferred]:
    """Infer the cams of every photograph, in order, under a progress bar.

    The networks must be in evaluation mode on the device. A photograph whose labels are unknown is
    inferred for all classes. One that cannot be read, or whose mask cannot, is left out after
    `bad(message)`, which may raise. A GPU takes several photographs of one size together.
    """
    loader = photograph_loader(Photographs(collection), workers, pin=device.type == "cuda")
    items = readable(progress(loader, title, "image"), bad)
    networks = classifier, scn
    count, pixels = taken_together(device)
    for ahead in read_ahead(items, count, BATCHES_AHEAD * pixels):
        found = {}
        for group in of_one_size(ahead, pixels):
            found |= {one.id: one for one in infer_group(group, networks, settings, device)}
        yield from (found[item["id"]] for item in ahead)


def taken_together(device: torch.device) -> tuple[int, int]:
    """How many photographs are read before some are inferred, and pixels of a batch of them.

    A GPU is not kept busy by one of VOC's photographs and its mirror image; it takes five.
    """
    return (32, 2**20) if device.type == "cuda" else (1, 0)


def readable(items: Iterable[dict], bad: Callable[[str], None]) -> Iterator[dict]:
    """The photographs among a loader's items; the messages of the others go to `bad`."""
    for item in items:
        if "error" in item:
            bad(item["error"])
        else:
            yield item


def read_ahead(items: Iterable[dict], count: int, pixels: int) -> Iterator[list[dict]]:
    """Photographs in their order: `count` each time, or fewer that have `pixels` together."""
    ahead, held = [], 0
    for item in items:
        ahead.append(item)
        held += item["image"].shape[1] * item["image"].shape[2]
        if len(ahead) == count or held >= pixels:
            yield ahead
            ahead, held = [], 0
    if ahead:
        yield ahead


def of_one_size(items: Iterable[dict], pixels: int) -> Iterator[list[dict]]:
    """Groups of photographs of one size: one each, or as many as have no more pixels together."""
    by_size: dict[torch.Size, list[dict]] = {}
    for item in items:
        by_size.setdefault(item["image"].shape, []).append(item)
    for size, alike in by_size.items():
        most = max(1, pixels // (size[1] * size[2]))
        for first in range(0, len(alike), most):
            yield alike[first : first + most]


def infer_group(
    items: list[dict],
    networks: tuple[nn.Module, nn.Module],
    settings: InferenceSettings,
    device: torch.device,
) -> Iterator[Inferred]:
    """Infer photographs of one size together; `networks` are the classifier and the SCN."""
    images = [normalise(item["image"].to(device, non_blocking=True)) for item in items]
    labels = [item["labels"] for item in items]
    if settings.predict_from is not None:
        labels = [predict_labels(image, *networks, settings.predict_from) for image in images]
    inferred = infer_batch(
        torch.stack(images),
        labels,
        *networks,
        settings.scales,
        settings.flip,
        settings.beta,
        settings.gamma,
        settings.keep,
    )
    for item, (classes, cams, scores) in zip(items, inferred, strict=True):
        yield Inferred(
            id=item["id"],
            image=item["image"],
            classes=classes.cpu().numpy(),
            cams=cams.float().cpu().numpy(),
            scores=scores.float().cpu().numpy(),
            mask=item["mask"],
        )


def labels_at(threshold: float) -> Callable[[Inferred], np.ndarray]:
    """The pseudo labels (H, W) of what was inferred, at a background threshold."""
    return lambda found: label_map(found.classes, found.cams, threshold)
