"""Which photographs a run takes, and where they lie."""

import argparse
from dataclasses import dataclass

from datasets import roots
from datasets.collection import Collection
from datasets.files import InputError
from datasets.prepared import LAYOUTS, load_collection
from utils.runs import distributed
from utils.runs.run import Run

SPLITS = ("train", "train_aug", "val", "test")
"""All others are lists of the user's own; every stage has its default among these."""


@dataclass(frozen=True)
class DataSettings:
    """A split of a data set.

    Attributes:
        dataset: voc12, coco or custom.
        split: train, train_aug, val, or another list.
        root: where the data set lies.
        saliency: folder of its saliency maps; None for the one in the root.
        labels_file: image-level labels in place of the data set's own.
    """

    dataset: str
    split: str
    root: str | None
    saliency: str | None = None
    labels_file: str | None = None


def add_data_options(parser: argparse.ArgumentParser, split: str) -> None:
    """Which photographs, and where they lie."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", choices=LAYOUTS, default="voc12", help="layout of the data")
    group.add_argument(
        "--split",
        default=split,
        help="train, train_aug (of coco: train), val, or (not of coco) NAME: the photographs in "
        "ImageSets/Segmentation/NAME.txt",
    )
    roots.add_options(group)


def data_settings(args: argparse.Namespace) -> DataSettings:
    """What the options of `add_data_options` say; `train` where there is no `train_aug`."""
    root, saliency = roots.chosen(args)
    split = args.split
    if split == "train_aug" and not LAYOUTS[args.dataset].TRAIN_AUG:
        split = "train"
    return DataSettings(args.dataset, split, root, saliency, args.labels_file)


def refuse_beside_images(args: argparse.Namespace, split: str) -> None:
    """Refuse options of a data set beside a folder of photographs, where they have no effect.

    Args:
        args: `images`, and the options of `add_data_options`.
        split: the default, which nobody may have typed.

    Raises:
        InputError: naming the option.
    """
    for name, usual in (("split", split), ("labels_file", None)):
        value = getattr(args, name)
        if args.images is not None and value != usual:
            raise InputError(f"--{name} {value}: is of a data set; leave it or --images out")


def open_split(data: DataSettings) -> Collection:
    """The photographs of a split, prepared by the first process where need be.

    Raises:
        InputError: the data set is not there, or damaged.
    """
    with distributed.first_goes_ahead():
        return load_collection(
            data.dataset,
            data.root,
            data.split,
            saliency=data.saliency,
            labels_file=data.labels_file,
            quiet=not distributed.is_first(),
        )


def own_list(data: DataSettings) -> tuple[str, ...]:
    """The option that names the split to the next stage, if it is a list of the user's own."""
    return () if data.split in SPLITS else ("--split", data.split)


def is_there(data: DataSettings) -> bool:
    """Whether the data set has a split."""
    try:
        open_split(data)
    except InputError:
        return False
    return True


def open_if_there(data: DataSettings, run: Run, without: str) -> Collection | None:
    """A split that data of one's own need not have; None, in all processes, where it has none.

    Args:
        data: the split.
        run: is told why it is not there.
        without: what does not happen then.
    """
    found = None
    try:
        found = open_split(data)
    except InputError as error:
        run.note(f"{without} ({error})")
    return None if distributed.all_reduce_max(int(found is None))[0] else found
