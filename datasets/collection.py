"""A collection: the photographs of one split and where everything known about them lies."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.files import InputError


@dataclass(frozen=True)
class Collection:
    """The photographs of one split, with their labels, masks and saliency maps.

    Attributes:
        name: the data set (`voc12`, `coco`, `custom`, `images`).
        split: the split (`train_aug`, `val`, ..).
        classes: names of the K foreground classes; class index k + 1 in label maps is classes[k].
        ids: the photographs' ids, in the order of the list; an id is a file name without ending.
        images: where each id's photograph lies.
        labels: (K,) uint8 a photograph, 1 where the class is in it; empty if labels are unknown.
        masks: folder of `<id>.png` ground-truth label maps, or None if the split has none.
        saliency: folder of `<id>.png` saliency maps, or None.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    images: dict[str, Path]
    labels: dict[str, np.ndarray]
    masks: Path | None = None
    saliency: Path | None = None

    @property
    def num_classes(self) -> int:
        """C: the foreground classes and background."""
        return len(self.classes) + 1

    def mask_path(self, identifier: str) -> Path:
        """Where the ground-truth label map of a photograph lies."""
        if self.masks is None:
            raise InputError(f"{self.name} {self.split} has no masks")
        return self.masks / f"{identifier}.png"

    def saliency_path(self, identifier: str) -> Path:
        """Where the saliency map of a photograph lies."""
        if self.saliency is None:
            raise InputError(f"{self.name} {self.split} has no saliency maps")
        return self.saliency / f"{identifier}.png"

    def subset(self, ids: Iterable[str]) -> "Collection":
        """The same collection with only these photographs, in this order."""
        return replace(self, ids=tuple(ids))
