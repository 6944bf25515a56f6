"""Class activation maps of whole collections."""

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from datasets.collection import Collection
from datasets.loading import Photographs, photograph_loader
from networks.normalisation import normalise
from utils.inference.cams import MAX_SIDE, SCALES, infer_batch, predict_labels, shrinking
from utils.inference.label_maps import label_map
from utils.inference.photographed import Photographed
from utils.inference.superpixels import at_size, superpixel_ids
from utils.runs.progress import progress

BATCHES_AHEAD = 4
"""Photographs are read until they fill about so many batches, and then inferred as a block. The
cams of a whole block are held in memory; on a GPU those of the block before too."""


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
        max_side: a longer side of a photograph is inferred as if it were so long; None for none.
    """

    scales: Sequence[float] = SCALES
    flip: bool = True
    beta: int = 8
    gamma: float = 0.6
    predict_from: float | None = None
    keep: float | None = None
    max_side: int | None = MAX_SIDE


@dataclass(frozen=True)
class Inferred(Photographed):
    """What is known about one photograph after inference.

    Attributes:
        classes: (n,) foreground class indices, 0-based, of the classes in it.
        cams: (n, H, W) float32 in 0..1.
        scores: (K,) classification scores.
        mask: (H, W) uint8 ground truth, or None.
        superpixels: (H, W) int32 ids, or None where they were not wanted.
    """

    classes: np.ndarray
    cams: np.ndarray
    scores: np.ndarray
    mask: np.ndarray | None
    superpixels: np.ndarray | None = None


Found = tuple[Tensor, Tensor, Tensor]
"""Classes (n,), cams (n, H, W) and scores (K,) of a photograph, on the device."""

Infer = Callable[[list[dict]], list[Found]]
"""Infers photographs of one size, items of the loader."""


def infer_collection(
    collection: Collection,
    classifier: nn.Module,
    scn: nn.Module,
    settings: InferenceSettings,
    device: torch.device,
    workers: int,
    title: str,
    bad: Callable[[str], None],
    with_superpixels: Callable[[str], bool] = lambda _: False,
) -> Iterator[Inferred]:
    """Infer the cams of every photograph, in order, under a progress bar.

    The networks must be in evaluation mode on the device. A photograph whose labels are unknown is
    inferred for all classes. One that cannot be read, or whose mask cannot, is left out after
    `bad(message)`, which may raise. Superpixels come with the ids for which `with_superpixels`
    says so. A GPU takes several photographs of one size together.
    """
    loader = photograph_loader(Photographs(collection), workers, pin=device.type == "cuda")
    items = readable(progress(loader, title, "image"), bad)
    infer = partial(infer_group, networks=(classifier, scn), settings=settings, device=device)
    outline = partial(superpixel_ids, scn=scn, max_side=settings.max_side)
    count, pixels = taken_together(device)
    begun = (
        Block(block, pixels, infer, device, outline, with_superpixels)
        for block in read_ahead(items, count, BATCHES_AHEAD * pixels)
    )
    # A GPU infers a block while the photographs of the one before are labelled and written; where
    # labels are predicted, the last of its groups.
    for block in kept_behind(begun, 1 if device.type == "cuda" else 0):
        yield from block.inferred()


def taken_together(device: torch.device) -> tuple[int, int]:
    """How many photographs are read before some are inferred, and pixels of a batch of them.

    A GPU is not kept busy by one of VOC's photographs and its mirror image; it takes eight, and
    reads 44 to find some of one size.
    """
    return (44, 2**21) if device.type == "cuda" else (1, 0)


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
    """Groups of photographs of one size: one each, or a power of two with no more pixels together.

    cuDNN prepares for every shape, and forgets what it has prepared beyond some thousands.
    """
    by_size: dict[torch.Size, list[dict]] = {}
    for item in items:
        by_size.setdefault(item["image"].shape, []).append(item)
    for size, alike in by_size.items():
        first, most = 0, max(1, pixels // (size[1] * size[2]))
        while first < len(alike):
            count = 2 ** int(math.log2(min(most, len(alike) - first)))
            yield alike[first : first + count]
            first += count


T = TypeVar("T")


def kept_behind(begun: Iterable[T], count: int) -> Iterator[T]:
    """The items in order, each delayed until `count` later ones have been begun, or the end."""
    waiting: deque[T] = deque()
    for one in begun:
        waiting.append(one)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


class Block:
    """Photographs whose inference is begun: a GPU computes on while the caller does other work.

    Args:
        items: of the loader.
        pixels: of photographs of one size that are inferred together.
        infer: infers such photographs.
        device: where.
        outline: from a photograph (3, H, W), its superpixels' ids.
        with_superpixels: whether they are wanted, by id.
    """

    def __init__(
        self,
        items: list[dict],
        pixels: int,
        infer: Infer,
        device: torch.device,
        outline: Callable[[Tensor], Tensor],
        with_superpixels: Callable[[str], bool],
    ) -> None:
        self.items = items
        self.found: dict[str, list[Tensor]] = {}
        for group in of_one_size(items, pixels):
            for item, found in zip(group, in_halves(group, infer), strict=True):
                if with_superpixels(item["id"]):
                    found = (*found, outline(item["image"]))
                self.found[item["id"]] = [one.to("cpu", non_blocking=True) for one in found]
        self.done = torch.cuda.Event() if device.type == "cuda" else None
        if self.done is not None:
            self.done.record(torch.cuda.current_stream(device))

    def inferred(self) -> Iterator[Inferred]:
        """All photographs in their order, once they are there."""
        if self.done is not None:
            self.done.synchronize()
        for item in self.items:
            found = self.found.pop(item["id"])
            # Copied out of pinned memory, which the system gives out slowly and in large pieces.
            classes, cams, scores = (one.numpy().copy() for one in found[:3])
            ids = at_size(found[3], item["image"].shape[1:]) if len(found) > 3 else None
            yield Inferred(
                id=item["id"],
                image=item["image"],
                classes=classes,
                cams=cams,
                scores=scores,
                mask=item["mask"],
                superpixels=ids,
            )


def in_halves(items: list[dict], infer: Infer) -> list[Found]:
    """`infer(items)`, in halves where a GPU's memory does not hold the whole."""
    try:
        return infer(items)
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    # Not above: until here the error holds on to what is in the way.
    warnings.warn(
        "a GPU's memory does not hold all photographs of a batch; taking halves, which is slower",
        stacklevel=2,
    )
    half = len(items) // 2
    return in_halves(items[:half], infer) + in_halves(items[half:], infer)


def infer_group(
    items: list[dict],
    networks: tuple[nn.Module, nn.Module],
    settings: InferenceSettings,
    device: torch.device,
) -> list[Found]:
    """`infer_batch` of photographs of one size; `networks` are the classifier and the SCN."""
    images = [normalise(item["image"].to(device, non_blocking=True)) for item in items]
    labels = [item["labels"] for item in items]
    if settings.predict_from is not None:
        given = (*networks, settings.predict_from, settings.max_side)
        labels = [predict_labels(image, *given) for image in images]
    factor = shrinking(images[0], settings.max_side)
    found = infer_batch(
        torch.stack(images),
        labels,
        *networks,
        [factor * scale for scale in settings.scales],
        settings.flip,
        settings.beta,
        settings.gamma,
        settings.keep,
    )
    return [(classes, cams.float(), scores.float()) for classes, cams, scores in found]


def labels_at(threshold: float) -> Callable[[Inferred], np.ndarray]:
    """The pseudo labels (H, W) of what was inferred, at a background threshold."""
    return lambda found: label_map(found.classes, found.cams, threshold)
