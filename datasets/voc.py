"""PASCAL VOC 2012 as it is downloaded, and what all data sets in its layout share.

root/JPEGImages/<id>.jpg
root/Annotations/<id>.xml                     image-level labels
root/ImageSets/Segmentation/{train,val}.txt   lists
root/ImageSets/Segmentation/train_aug.txt     optional; otherwise SegmentationClassAug tells
root/ImageSets/Segmentation/<split>.txt       any others, such as test.txt
root/SegmentationClassAug/<id>.png            label maps; SegmentationClass without that folder
root/saliency_map/<id>.png                    saliency maps, unless they lie elsewhere
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from datasets.classes import voc_classes
from datasets.collection import Collection, Index, Note, Progress, collect, png_ids
from datasets.files import InputError
from datasets.labels import xml_labels
from datasets.listing import list_ids, list_photographs, read_id_list

NAME = "voc12"
EXPECTED = ("JPEGImages", "ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt")
"""What a root must hold."""

ROOT_OPTION = "--voc_root or VOC_ROOT"
SALIENCY_OPTION = "--voc_sal_root or VOC_SAL_ROOT"

TRAIN_AUG, MAY_BE_EMPTY = True, False
"""There is a split train_aug; every photograph shows at least one class."""


def sources(root: Path) -> list[Path]:
    """The files and folders that lists and labels are made from."""
    lists = [list_path(root, split) for split in ("train", "val", "train_aug")]
    return [*lists, root / "JPEGImages", root / "Annotations", root / "SegmentationClassAug"]


def build_index(root: Path, progress: Progress) -> Index:
    """Lists and labels of VOC 2012.

    train_aug is its own list; without that, every id of SegmentationClassAug that is not in val;
    without that folder, train.
    """
    train, val = (read_id_list(list_path(root, split)) for split in ("train", "val"))
    train_aug, notes = augmented_list(root, train, val)
    ids = sorted({*train, *val, *train_aug})
    labels, missing = read_labels(root, ids, voc_classes(), progress)
    lists = {"train": train, "val": val, "train_aug": train_aug}
    return Index(voc_classes(), lists, labels, (*notes, *missing))


def build_collection(root: Path, split: str, index: Index, saliency: Path | None) -> Collection:
    """The collection of one split."""
    photographs = list_photographs(root / "JPEGImages")
    return collect(NAME, split, index, photographs, mask_folder(root), saliency)


def list_path(root: Path, split: str) -> Path:
    """Where VOC's layout has the list of a split."""
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


def mask_folder(root: Path) -> Path | None:
    """SegmentationClassAug if it is there, else SegmentationClass, else None."""
    folders = (root / "SegmentationClassAug", root / "SegmentationClass")
    return next((folder for folder in folders if folder.is_dir()), None)


def augmented_list(
    root: Path, train: tuple[str, ...], val: tuple[str, ...]
) -> tuple[tuple[str, ...], list[Note]]:
    """The ids of train_aug, and a note where it is not what its name says."""
    path, folder = list_path(root, "train_aug"), root / "SegmentationClassAug"
    if path.is_file():
        listed = read_id_list(path, list_photographs(root / "JPEGImages"))
        return listed, about_overlap(path, listed, val, "train_aug")
    augmented = png_ids(folder) - set(val)
    if not augmented:
        text = f"no masks <id>.png in {folder}: train_aug is the train list"
        return train, [Note(text, "train_aug")]
    left_out = len(set(train) - augmented)
    text = f"{left_out} photographs of train have no mask in {folder}: not in train_aug"
    return tuple(sorted(augmented)), [Note(text, "train_aug")] if left_out else []


def about_overlap(
    path: Path, ids: Iterable[str], val: Iterable[str], split: str = ""
) -> list[Note]:
    """A note on photographs that a list has in common with val.txt, if there are any."""
    both = {*ids} & {*val}
    if not both:
        return []
    where = f"both {path.name} and val.txt, on which scores are then too high"
    return [Note(f"photographs in {where}: {len(both)}, such as {min(both)}", split)]


def read_labels(
    root: Path, ids: Iterable[str], classes: tuple[str, ...], progress: Progress
) -> tuple[dict[str, np.ndarray], list[Note]]:
    """Labels of the photographs that have an XML file, and notes.

    There is a note on the photographs that have none, and one on every file that cannot be read.
    """
    folder = root / "Annotations"
    annotated = list_ids(folder, ".xml")
    known = [identifier for identifier in ids if identifier in annotated]
    labels, notes = {}, []
    for identifier in progress(known):
        try:
            labels[identifier] = xml_labels(folder / f"{identifier}.xml", classes)
        except InputError as error:
            notes.append(Note(str(error), unreadable=True))
    missing = [identifier for identifier in ids if identifier not in annotated]
    if missing:
        text = f"{len(missing)} photographs have no XML in {folder}, such as {missing[0]}"
        notes.append(Note(text))
    return labels, notes
