"""Class activation maps of whole collections."""

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from datasets.collection import Collection
from networks.normalisation import normalise
from utils.inference.cams import InferenceSettings, infer_batch, predict_labels, resize
from utils.inference.photographed import Photographed, exceeds, shrink
from utils.inference.superpixels import at_size, superpixel_ids
from utils.runs.reader import Reader

BATCHES_AHEAD = 4
"""Photographs are read until they fill about so many batches, and then inferred as a block. The
cams of a whole block are held in memory; on a GPU those of the block before too."""


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


def infer_collection(
    collection: Collection,
    classifier: nn.Module,
    scn: nn.Module,
    settings: InferenceSettings,
    reader: Reader,
    title: str,
    with_superpixels: Callable[[str], bool] = lambda _: False,
) -> Iterator[Inferred]:
    """Infer the cams of every photograph, in order, under a progress bar.

    The networks must be in evaluation mode on the device. A photograph whose labels are unknown is
    inferred for all classes. Superpixels come with the ids for which `with_superpixels` says so. A
    GPU takes several photographs of one size together.
    """
    device = reader.device
    count, pixels = taken_together(device)
    begun = (
        Block(block, pixels, (classifier, scn), settings, device, with_superpixels)
        for block in read_ahead(reader.read(collection, title), count, BATCHES_AHEAD * pixels)
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
        networks: the classifier and the SCN.
        settings: how cams are inferred.
        device: where.
        with_superpixels: whether they are wanted, by id.
    """

    def __init__(
        self,
        items: list[dict],
        pixels: int,
        networks: tuple[nn.Module, nn.Module],
        settings: InferenceSettings,
        device: torch.device,
        with_superpixels: Callable[[str], bool],
    ) -> None:
        self.items, self.max_side = items, settings.max_side
        self.found: dict[str, list[Tensor]] = {}
        infer = partial(infer_group, networks=networks, settings=settings, device=device)
        for group in of_one_size(items, pixels):
            for item, found in zip(group, in_halves(group, infer), strict=True):
                if with_superpixels(item["id"]):
                    seen = shrink(item["image"], self.max_side)
                    found = (*found, superpixel_ids(seen, networks[1]))
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
                shrunk=exceeds(item["image"], self.max_side),
                classes=classes,
                cams=cams,
                scores=scores,
                mask=item["mask"],
                superpixels=ids,
            )


def in_halves(items: list[dict], infer: Callable[[list[dict]], list[Found]]) -> list[Found]:
    """`infer(items)`, in halves where a GPU's memory does not hold the whole.

    Raises:
        torch.OutOfMemoryError: not even one photograph of them; it is named.
    """
    try:
        return infer(items)
    except torch.OutOfMemoryError as error:
        if len(items) == 1:
            height, width = items[0]["image"].shape[1:]
            name = f"{items[0]['id']}, {width} x {height} pixels"
            raise torch.OutOfMemoryError(f"{name}: {error}") from None
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
    """`infer_batch` of photographs of one size; `networks` are the classifier and the SCN.

    Cams have that size, even of photographs that are scaled down for the networks.
    """
    size = items[0]["image"].shape[1:]
    sent = (item["image"].to(device, non_blocking=True) for item in items)
    images = torch.stack([normalise(shrink(image, settings.max_side)) for image in sent])
    labels = [item["labels"] for item in items]
    if settings.predict_from is not None:
        labels = [predict_labels(image, *networks, settings.predict_from) for image in images]
    found = infer_batch(images, labels, *networks, settings)
    return [
        (classes, resize(cams[None].float(), size)[0], scores.float())
        for classes, cams, scores in found
    ]
