"""What a DataLoader reads: augmented crops for training, whole photographs for inference.

Images stay 8-bit, channels last, until they are on the device. Every random number of a sample
comes from (seed, epoch, index), and the order from (seed, epoch): the same run gives the same
batches with any number of workers, and can go on from any step.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from datasets.collection import Collection
from datasets.files import InputError
from datasets.images import IGNORE, LabelMapError, read_label_map, read_photograph, read_saliency
from datasets.transforms import augment, augment_labelled
from datasets.workers import end_with_parent

LOADER_TIMEOUT = 600
"""Seconds after which a worker that delivers nothing counts as hung."""


class Crops(Dataset, ABC):
    """Augmented crops of a collection; an item is asked for by (epoch, index).

    Args:
        collection: the photographs.
        crop: side of a crop, pixels.
        seed: of all random numbers.
        skip_bad: a photograph that cannot be read is replaced by the next that can, so that
            batches keep their size; the item then also holds `skipped`, messages.
    """

    def __init__(
        self, collection: Collection, crop: int, seed: int, skip_bad: bool = False
    ) -> None:
        self.collection, self.crop, self.seed, self.skip_bad = collection, crop, seed, skip_bad

    def __len__(self) -> int:
        return len(self.collection.ids)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        skipped: list[str] = []
        for number in range(len(self) if self.skip_bad else 1):
            try:
                item = self.crop_of(epoch, (index + number) % len(self))
            except InputError as error:
                skipped.append(str(error))
            else:
                return {**item, "skipped": skipped} if skipped else item
        if self.skip_bad:
            return {"error": f"none of {len(self)} photographs can be read: {skipped[0]}, .."}
        return {"error": f"{skipped[0]} (--skip_bad goes on without such photographs)"}

    @abstractmethod
    def crop_of(self, epoch: int, index: int) -> dict[str, Tensor]:
        """The crop of photograph `index` in `epoch`.

        Raises:
            InputError: a file cannot be read.
        """

    def random(self, epoch: int, index: int) -> np.random.Generator:
        """The random numbers of one crop."""
        return np.random.default_rng((self.seed, epoch, index))


class TrainingCrops(Crops):
    """Crops for superpixels and classification.

    An item is a dict: `image` (S, S, 3) uint8 RGB, `box` (4,) int64 (where the photograph lies in
    the crop: top, left, bottom, right), and, where asked for, `labels` (K,) float32, `saliency`
    (S, S, 1) uint8 and `lab` (S, S, 3) uint8 (OpenCV's 8-bit CIE-Lab).

    Args:
        collection: the photographs.
        crop: side of a crop, pixels.
        long_side: range of the longer side after random resizing, pixels.
        seed: of all random numbers.
        layers: which of `labels`, `saliency` and `lab` an item holds.
        skip_bad: see Crops.
    """

    def __init__(
        self,
        collection: Collection,
        crop: int,
        long_side: tuple[int, int],
        seed: int,
        layers: tuple[str, ...] = (),
        skip_bad: bool = False,
    ) -> None:
        super().__init__(collection, crop, seed, skip_bad)
        self.long_side, self.layers = long_side, layers

    def crop_of(self, epoch: int, index: int) -> dict[str, Tensor]:  # noqa: D102
        identifier = self.collection.ids[index]
        image = _read(read_photograph, self.collection.images[identifier])
        saliency = None
        if "saliency" in self.layers:
            path = self.collection.saliency_path(identifier)
            saliency = _read(read_saliency, path, image.shape[:2])
        rng = self.random(epoch, index)
        image, saliency, box = augment(image, saliency, self.crop, self.long_side, rng)
        item = {"image": torch.from_numpy(image), "box": torch.tensor(box)}
        if saliency is not None:
            item["saliency"] = torch.from_numpy(saliency)[..., None]
        if "lab" in self.layers:
            item["lab"] = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))
        if "labels" in self.layers:
            item["labels"] = torch.from_numpy(self.collection.labels[identifier]).float()
        return item


class SegmentationCrops(Crops):
    """Crops with a label for every pixel. docs/method.md, section 5.

    An item is a dict: `image` (S, S, 3) uint8 RGB and `mask` (S, S) uint8, 255 where no label
    counts, as in the padding.

    Args:
        collection: the photographs; its masks are the labels.
        crop: side of a crop, pixels.
        scales: of a photograph's sides; one is drawn for every crop.
        seed: of all random numbers.
        skip_bad: see Crops.
    """

    def __init__(
        self,
        collection: Collection,
        crop: int,
        scales: Sequence[float],
        seed: int,
        skip_bad: bool = False,
    ) -> None:
        super().__init__(collection, crop, seed, skip_bad)
        self.scales = tuple(scales)

    def crop_of(self, epoch: int, index: int) -> dict[str, Tensor]:  # noqa: D102
        identifier = self.collection.ids[index]
        image = _read(read_photograph, self.collection.images[identifier])
        mask = read_ground_truth(self.collection, identifier, image.shape[:2])
        rng = self.random(epoch, index)
        image, mask = augment_labelled(image, mask, self.crop, self.scales, rng)
        return {"image": torch.from_numpy(image), "mask": torch.from_numpy(mask)}


@dataclass(frozen=True)
class Plan:
    """How long a training takes.

    Attributes:
        images: in the collection.
        batch: images a step.
        epochs: how often the network is scored and saved; passes over the collection, unless
            `length` says otherwise.
        length: steps of an epoch, None for one pass over the collection.
    """

    images: int
    batch: int
    epochs: int
    length: int | None = None

    @property
    def steps_per_pass(self) -> int:
        """Full batches a pass; one smaller batch if there are fewer images than that."""
        return max(1, self.images // self.batch)

    @property
    def steps_per_epoch(self) -> int:
        """Steps from one scoring to the next."""
        return self.length or self.steps_per_pass

    @property
    def steps(self) -> int:
        """All steps of the training."""
        return self.epochs * self.steps_per_epoch


class ShuffledBatches(Sampler):
    """All batches of a whole training, as lists of (pass, index).

    One pass of a DataLoader over it is the whole training, so workers start once and read ahead
    across epochs.

    Args:
        plan: how many.
        seed: of the order.
        start: the step to begin with.
        part: (r, n) takes the r-th of n equal parts of every batch, for process r of n.
    """

    def __init__(
        self, plan: Plan, seed: int, start: int = 0, part: tuple[int, int] = (0, 1)
    ) -> None:
        self.plan, self.seed, self.start, self.part = plan, seed, start, part

    def __len__(self) -> int:
        return self.plan.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        plan = self.plan
        for step in range(self.start, plan.steps):
            number, position = divmod(step, plan.steps_per_pass)
            if position == 0 or step == self.start:
                # Apart from the crops' streams: (seed, pass) and (seed, pass, 0) are one to numpy.
                stream = np.random.SeedSequence(self.seed, spawn_key=(number,))
                order = np.random.default_rng(stream).permutation(plan.images)
            first = position * plan.batch
            batch = order[first : first + plan.batch]
            yield [(number, int(index)) for index in batch[self.part[0] :: self.part[1]]]


class Photographs(Dataset):
    """Whole photographs of a collection for inference, by index.

    An item is a dict: `id`, `image` (3, H, W) uint8 (channels last in memory), `labels` (K,) uint8
    or None, `mask` (H, W) uint8 array or None; or `id` and `error`, a message.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def __len__(self) -> int:
        return len(self.collection.ids)

    def __getitem__(self, index: int) -> dict:
        collection, identifier = self.collection, self.collection.ids[index]
        try:
            image = _read(read_photograph, collection.images[identifier])
            mask = ground_truth_of(collection, identifier, image.shape[:2])
        except InputError as error:
            return {"id": identifier, "error": str(error)}
        labels = collection.labels.get(identifier)
        return {
            "id": identifier,
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "labels": None if labels is None else torch.from_numpy(labels),
            "mask": mask,
        }


def _read(read: Callable[..., np.ndarray], path: Path, *arguments: tuple[int, int]) -> np.ndarray:
    """`read(path, *arguments)`; what it refuses is answered with what to do."""
    try:
        return read(path, *arguments)
    except LabelMapError:  # says so itself
        raise
    except InputError as error:
        raise InputError(f"{error}; replace the file or leave the photograph out") from error


def ground_truth_of(
    collection: Collection, identifier: str, size: tuple[int, int]
) -> np.ndarray | None:
    """What `read_ground_truth` reads; None for a photograph without a mask."""
    if identifier not in collection.masked:
        return None
    return read_ground_truth(collection, identifier, size)


def read_ground_truth(collection: Collection, identifier: str, size: tuple[int, int]) -> np.ndarray:
    """The mask of a photograph, its size and class indices checked.

    Raises:
        InputError: unreadable, of another size than the photograph, or a class out of range.
    """
    path = collection.mask_path(identifier)
    mask = _read(read_label_map, path)
    if mask.shape != tuple(size):
        raise InputError(
            f"{path}: {mask.shape[1]} x {mask.shape[0]} pixels, but the photograph has "
            f"{size[1]} x {size[0]}; a mask must be as large as its photograph; redraw or remove it"
        )
    highest = int(mask[mask != IGNORE].max(initial=0))
    if highest >= collection.num_classes:
        raise InputError(
            f"{path}: holds class {highest}, but {collection.name} has classes 0 to "
            f"{collection.num_classes - 1} (255 for unlabelled); correct or remove it"
        )
    return mask


def _start_worker(_: int) -> None:
    """Workers already use every core; OpenCV's own threads would only get in their way.

    Ctrl-C and SIGTERM can reach all processes at once: the first one decides what they mean, and
    needs its workers alive while it keeps a training's state. PyTorch's workers look whether their
    parent is alive, but not while they wait for a pipe that nobody empties any more.
    """
    cv2.setNumThreads(0)
    end_with_parent()


def _batch(items: list[dict]) -> dict[str, Any]:
    """Items as one batch, with what was `skipped` for them, or the first error among them."""
    for item in items:
        if "error" in item:
            return item
    skipped = [message for item in items for message in item.pop("skipped", ())]
    batch = default_collate(items)
    return {**batch, "skipped": skipped} if skipped else batch


def _loader(dataset: Dataset, workers: int, pin: bool, **how: Any) -> DataLoader:
    return DataLoader(
        dataset,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # so that reading leaves torch's random state alone
        timeout=LOADER_TIMEOUT if workers else 0,
        **how,
    )


def training_loader(crops: Crops, batches: ShuffledBatches, workers: int, pin: bool) -> DataLoader:
    """All batches of a training, in order."""
    return _loader(crops, workers, pin, batch_sampler=batches, collate_fn=_batch)


def photograph_loader(photographs: Photographs, workers: int, pin: bool) -> DataLoader:
    """Photographs one at a time, in order, read ahead by the workers."""
    return _loader(photographs, workers, pin, batch_size=1, collate_fn=itemgetter(0))
