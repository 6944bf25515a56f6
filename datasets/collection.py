"""A collection: the photographs of one split and where everything known about them lies."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.files import InputError
from datasets.listing import list_ids


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
        notes: what is missing or was decided about this split, one line each, for the user to read.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    images: dict[str, Path]
    labels: dict[str, np.ndarray]
    masks: Path | None = None
    saliency: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """C: the foreground classes and background."""
        return len(self.classes) + 1

    @property
    def has_masks(self) -> bool:
        """Whether there are ground-truth label maps to score against."""
        return self.masks is not None

    @cached_property
    def masked(self) -> frozenset[str]:
        """The ids that have a ground-truth label map."""
        return frozenset(self.ids) & (png_ids(self.masks) if self.masks else set())

    def mask_path(self, identifier: str) -> Path:
        """Where the ground-truth label map of a photograph lies."""
        return self._png("masks", self.masks, identifier)

    def saliency_path(self, identifier: str) -> Path:
        """Where the saliency map of a photograph lies."""
        return self._png("saliency maps", self.saliency, identifier)

    def _png(self, what: str, folder: Path | None, identifier: str) -> Path:
        if folder is None:
            raise InputError(f"{self.name} {self.split} has no {what}")
        return png_path(folder, identifier)

    def subset(self, ids: Iterable[str]) -> "Collection":
        """The same collection with only these photographs, in this order."""
        return replace(self, ids=tuple(ids))


def evenly_spread(ids: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` of the ids from the first to the last, in their order; all if there are no more."""
    places = np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int)
    return tuple(ids[place] for place in places)


def png_path(folder: Path, identifier: str) -> Path:
    """`<id>.png` in a folder, or `<id>.PNG` where only that is there."""
    usual, upper = (folder / f"{identifier}{ending}" for ending in (".png", ".PNG"))
    return upper if not usual.exists() and upper.exists() else usual


def png_ids(folder: Path) -> set[str]:
    """The ids of which a folder holds `<id>.png` or `<id>.PNG`; empty if there is no folder."""
    return list_ids(folder, ".png") | list_ids(folder, ".PNG")


Progress = Callable[[Iterable], Iterable]
"""Wraps what is gone through one by one, so that the caller can show a bar (tqdm)."""


@dataclass(frozen=True)
class Note:
    """What the user should know of a data set, in one line.

    Attributes:
        text: the line.
        split: the only split that it concerns; empty if it concerns all.
        unreadable: whether it names an annotation that cannot be read, and what is wrong with it.
    """

    text: str
    split: str = ""
    unreadable: bool = False


@dataclass(frozen=True)
class Index:
    """The lists and image-level labels of a whole data set: what prepare writes.

    Attributes:
        classes: names of the K foreground classes.
        lists: the ids of every split.
        labels: (K,) uint8 a photograph, for the photographs whose labels are known; those whose
            annotation cannot be read are not among them.
        notes: what is missing or was decided.
    """

    classes: tuple[str, ...]
    lists: dict[str, tuple[str, ...]]
    labels: dict[str, np.ndarray]
    notes: tuple[Note, ...] = ()

    def texts(self, unreadable: bool = False) -> list[str]:
        """The notes as text: those on annotations that cannot be read, or the others."""
        return [note.text for note in self.notes if note.unreadable == unreadable]


def collect(
    name: str,
    split: str,
    index: Index,
    photographs: dict[str, Path],
    masks: Path | None,
    saliency: Path | None,
) -> Collection:
    """The collection of one split of an index.

    Args:
        name: the data set.
        split: one of the index's lists.
        index: lists and labels.
        photographs: id -> file, of at least the photographs in the list.
        masks: folder of label maps; it may hold none of this split's.
        saliency: folder of saliency maps or None.

    Raises:
        InputError: no such split, or an id without photograph.
    """
    if split not in index.lists:
        why = "".join(f" ({note.text})" for note in index.notes if note.split == split)
        there = ", ".join(sorted(index.lists))
        raise InputError(f"--split {split}: {name} has no such split{why}; it has {there}")
    ids = index.lists[split]
    absent = [identifier for identifier in ids if identifier not in photographs]
    if absent:
        written = {unicodedata.normalize("NFC", known) for known in photographs}
        accents = [one for one in absent if unicodedata.normalize("NFC", one) in written]
        remedy = (
            f"accents of {_some(accents)} are encoded otherwise in the name of the file"
            if accents
            else "complete the photographs or remove the lines from the list"
        )
        raise InputError(f"{name} {split}: no photograph for {_some(absent)} of the list; {remedy}")
    if masks is not None and png_ids(masks).isdisjoint(ids):
        masks = None
    images = {identifier: photographs[identifier] for identifier in ids}
    labels = {i: index.labels[i] for i in ids if i in index.labels}
    notes = tuple(note.text for note in index.notes if note.split in ("", split))
    return Collection(name, split, index.classes, ids, images, labels, masks, saliency, notes)


def _some(ids: list[str], shown: int = 1) -> str:
    """`'a'` or `'a' and 3 more`, with so many ids named."""
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return f"{', '.join(map(repr, ids[:shown]))}{more}"


def missing_masks(collection: Collection) -> list[str]:
    """The ids that have no ground-truth label map, in the order of the list."""
    return [identifier for identifier in collection.ids if identifier not in collection.masked]


def with_masks(collection: Collection) -> list[str]:
    """The ids that have a mask, in the order of the list."""
    return [identifier for identifier in collection.ids if identifier in collection.masked]


def missing_saliency(collection: Collection) -> list[str]:
    """The ids that have no saliency map, in the order of the list."""
    present = png_ids(collection.saliency) if collection.saliency else set()
    return [identifier for identifier in collection.ids if identifier not in present]


def missing_labels(collection: Collection) -> list[str]:
    """The ids whose image-level labels are unknown, in the order of the list."""
    return [identifier for identifier in collection.ids if identifier not in collection.labels]


def without_class(collection: Collection) -> list[str]:
    """The ids whose image-level label is known and holds no class, in the order of the list."""
    labels = collection.labels
    return [i for i in collection.ids if i in labels and not labels[i].any()]


def about_classes(collections: Sequence[Collection]) -> tuple[str, ...]:
    """A note on classes that no label outside val names, which nothing can learn, if there are any.

    No note where there are no labels.
    """
    trained = [c.labels[i] for c in collections if c.split != "val" for i in c.ids if i in c.labels]
    if not trained:
        return ()
    names = collections[0].classes
    unseen = [name for name, there in zip(names, np.any(trained, axis=0), strict=True) if not there]
    if not unseen:
        return ()
    some = ", ".join(unseen[:5]) + (", .." if len(unseen) > 5 else "")
    return (f"no photograph to train on for {len(unseen)} of {len(names)} classes: {some}",)


def require_labels(collection: Collection) -> None:
    """Refuse a collection that cannot be trained on.

    Raises:
        InputError: a photograph's labels are unknown, or it has no class at all.
    """
    where = f"{collection.name} {collection.split}"
    unknown = missing_labels(collection)
    if unknown:
        own = collection.name == "custom"
        source = "labels.csv (or Annotations, if there are any)" if own else "the annotations"
        raise InputError(
            f"{where}: no image-level label for {_some(unknown)} "
            f"({collection.images[unknown[0]]}); complete {source} or shorten the list"
        )
    require_classes(collection)


def require_classes(collection: Collection) -> None:
    """Refuse photographs that are labelled with no class at all.

    Raises:
        InputError: there are some.
    """
    empty = without_class(collection)
    if empty:
        raise InputError(
            f"{collection.name} {collection.split}: no class at all in {_some(empty, 3)} "
            f"({collection.images[empty[0]]}), {len(empty)} of {len(collection.ids)} photographs; "
            "label them or leave them out"
        )
