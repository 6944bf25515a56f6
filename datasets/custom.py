"""One's own data in VOC's layout (see voc.py), with its own classes.

root/labels.txt                               one class a line; class index 1 is the first
root/JPEGImages/<id>.*                        photographs of any usual ending
root/Annotations/<id>.xml                     image-level labels, or instead of that folder
root/labels.csv                               lines of id,class,class,..
root/ImageSets/Segmentation/{train,val}.txt   without train.txt, whatever is not in val.txt
root/SegmentationClassAug or SegmentationClass, root/saliency_map      if there are any
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets import voc
from datasets.classes import read_class_list
from datasets.collection import Collection, Index, Note, Progress, collect
from datasets.files import InputError
from datasets.labels import about_unused, read_csv_labels
from datasets.listing import about_others, list_photographs, read_id_list, some_photographs
from datasets.orientation import about_orientation

NAME = "custom"
EXPECTED = ("labels.txt", "JPEGImages")
"""What a root must hold."""

ROOT_OPTION = "--root"
SALIENCY_OPTION = "--sal_root"

TRAIN_AUG, MAY_BE_EMPTY = True, False
"""There is a split train_aug; every photograph shows at least one class."""


def sources(root: Path) -> list[Path]:
    """The files and folders that lists and labels are made from."""
    return [root / "labels.txt", root / "labels.csv", *voc.sources(root)]


def build_index(root: Path, progress: Progress) -> Index:
    """Lists and labels. Without lists, all photographs are train."""
    classes = read_class_list(root / "labels.txt")
    photographs = some_photographs(root / "JPEGImages")
    lists, notes = _lists(root, photographs)
    ids = sorted({identifier for ids in lists.values() for identifier in ids})
    labels, missing = read_labels(root, ids, classes, progress)
    return Index(classes, lists, labels, (*notes, *missing))


def build_collection(root: Path, split: str, index: Index, saliency: Path | None) -> Collection:
    """The collection of one split."""
    photographs = list_photographs(root / "JPEGImages")
    own = collect(NAME, split, index, photographs, voc.mask_folder(root), saliency)
    turned = about_orientation(list(own.images.values()))
    return replace(own, notes=(*own.notes, *turned, *about_others(root / "JPEGImages")))


def _lists(
    root: Path, photographs: dict[str, Path]
) -> tuple[dict[str, tuple[str, ...]], list[Note]]:
    """The ids of every split, and notes on what the lists leave open."""
    train_path, val_path = (voc.list_path(root, split) for split in ("train", "val"))
    val = read_id_list(val_path, photographs) if val_path.exists() else ()
    if train_path.exists():
        train = read_id_list(train_path, photographs)
        notes = voc.about_overlap(train_path, train, val)
    else:
        train = tuple(i for i in photographs if i not in set(val))
        notes = [Note(f"no {train_path}: train is all {len(train)} photographs outside val")]
        if not train:
            raise InputError(f"{val_path}: it lists every photograph; nothing is left for train")
    train_aug, more = train, []
    listed = voc.list_path(root, "train_aug").is_file()
    if listed or train_path.exists():
        train_aug, more = voc.augmented_list(root, train, val)
    if not listed:
        # Masks are not what training needs: those who have a few lose no photograph by them.
        more = more if train_aug == train else []  # on photographs that VOC would leave out
        train_aug = train if {*train_aug} <= {*train} else tuple(sorted({*train, *train_aug}))
    unlisted = {*photographs} - {*train, *train_aug, *val}
    if unlisted:
        where = f"no list for training or val in {val_path.parent}"
        notes.append(Note(f"photographs in {where}: {len(unlisted)}, such as {min(unlisted)}"))
    lists = {"train": train, "train_aug": train_aug}
    return ({**lists, "val": val} if val else lists), [*more, *notes]


def read_labels(
    root: Path, ids: Sequence[str], classes: tuple[str, ...], progress: Progress
) -> tuple[dict[str, np.ndarray], list[Note]]:
    """Labels from Annotations, else from labels.csv, and notes on what either leaves open."""
    table, annotations = root / "labels.csv", root / "Annotations"
    if annotations.is_dir():
        labels, notes = voc.read_labels(root, ids, classes, progress)
        if table.exists():
            notes.append(Note(f"{table} is not read: {annotations} holds the image-level labels"))
        return labels, notes
    if not table.exists():
        text = f"no {table}: no image-level labels; write a line id,class,class,.. per photograph"
        return {}, [Note(text)]
    _, known = read_csv_labels(table, classes)
    photographs = list_photographs(root / "JPEGImages")
    missing = [identifier for identifier in ids if identifier not in known]
    notes = [Note(text) for text in about_unused(known, photographs, table, root / "JPEGImages")]
    if missing:
        notes.append(
            Note(f"photographs that are not in {table}: {len(missing)}, such as {missing[0]}")
        )
    return {identifier: known[identifier] for identifier in ids if identifier in known}, notes
