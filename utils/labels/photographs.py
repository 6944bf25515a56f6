"""Which photographs an evaluator takes, and what is known to be in them."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from datasets import folder
from datasets.classes import FIXED_CLASSES, first_difference, read_class_list
from datasets.collection import (
    Collection,
    missing_labels,
    missing_masks,
    require_classes,
    without_class,
)
from datasets.files import InputError
from datasets.prepared import LAYOUTS
from utils.runs import options
from utils.runs.data import (
    DataSettings,
    add_data_options,
    data_settings,
    open_split,
    refuse_beside_images,
)
from utils.runs.fingerprints import fingerprint, sizes
from utils.runs.run import Run
from utils.runs.wording import counted, counted_ids

PREDICTED = "predicted"
"""The value of --labels that takes the classes the network itself finds."""


@dataclass(frozen=True)
class PhotographSettings:
    """A split of a data set, or a folder, or a photograph.

    Attributes:
        data: the split; with `images` it names the classes of a checkpoint that does not.
        images: a folder of photographs, or one, instead of the split.
        labels: FILE.csv, class names separated by commas, `predicted`, or None for the split's.
    """

    data: DataSettings
    images: str | None = None
    labels: str | None = None


def add_photograph_options(
    parser: argparse.ArgumentParser, split: str, labels: str, meaning: str
) -> argparse._ArgumentGroup:
    """Which photographs an evaluator takes.

    Args:
        parser: takes the options.
        split: by default.
        labels: what --labels may be.
        meaning: of --labels.

    Returns:
        The group of one's own photographs.
    """
    add_data_options(parser, split)
    group = parser.add_argument_group("your own photographs instead of a split")
    group.add_argument(
        "--images", metavar="DIR|FILE", help="a folder of photographs, or one; without masks"
    )
    group.add_argument("--labels", metavar=labels, help=meaning)
    return group


def add_report_option(group: argparse._ArgumentGroup) -> None:
    """How many photographs the report shows."""
    group.add_argument(
        "--report_images",
        type=options.natural,
        default=300,
        help="photographs in report.html, evenly spread; 1500 make it 25 to 30 MB",
    )


def photograph_settings(args: argparse.Namespace, split: str) -> PhotographSettings:
    """What the options of `add_photograph_options` say.

    Raises:
        InputError: options of a data set are given beside a folder.
    """
    refuse_beside_images(args, split)
    return PhotographSettings(data_settings(args), args.images, args.labels)


@dataclass(frozen=True)
class KnownClasses:
    """What a checkpoint says of the classes it was trained on.

    Attributes:
        checkpoint: the file.
        names: of the foreground classes, or None.
        count: C, background included.
    """

    checkpoint: Path
    names: tuple[str, ...] | None
    count: int


def open_photographs(
    settings: PhotographSettings,
    known: KnownClasses,
    needs_labels: bool = True,
    predictable: bool = True,
) -> Collection:
    """The photographs to infer, of the classes that the network was trained on.

    Args:
        settings: which photographs.
        known: the network's classes.
        needs_labels: whether image-level labels must be known (or be `predicted`).
        predictable: whether they can be.

    Raises:
        InputError: there are none, their classes are others, or labels are missing.
    """
    if settings.images is None:
        photographs = _split(settings, predictable)
    else:
        if needs_labels and settings.labels is None:
            predicted = " or --labels predicted" if predictable else ""
            raise InputError(
                f"--images {settings.images}: name their classes with --labels FILE.csv, or "
                f'--labels "dog,sofa" (in all of them){predicted}'
            )
        photographs = _folder(settings, known.names)
    _require_same_classes(photographs, known)
    if needs_labels and settings.labels != PREDICTED:
        _require_labels(photographs, predictable)
    return photographs


def say_what_is_odd(run: Run, photographs: Collection) -> None:
    """Say the notes on photographs, and which of them will not be scored."""
    run.note(*photographs.notes)
    unmasked = missing_masks(photographs)
    if photographs.has_masks and unmasked:
        without = counted(len(unmasked), "photograph has", "photographs have")
        run.say(f"{without} no mask, such as {unmasked[0]}: not scored")


def require_some(count: int) -> None:
    """Refuse to call an evaluation done in which no photograph could be read.

    Raises:
        InputError: the count of those that could is 0.
    """
    if not count:
        raise InputError("no photograph could be read: nothing is written")


def fingerprints(photographs: Collection, networks: Mapping[str, nn.Module]) -> dict[str, str]:
    """Of what an evaluation is made from, by name; networks by the options that name them."""
    found = {"photographs": fingerprint(photographs)}
    found |= {name: fingerprint(network.state_dict()) for name, network in networks.items()}
    if photographs.has_masks:
        found["masks"] = sizes(map(photographs.mask_path, photographs.ids))
    return found


def _split(settings: PhotographSettings, predictable: bool) -> Collection:
    if settings.labels not in (None, PREDICTED):
        raise InputError(
            f"--labels {settings.labels}: goes with --images; a split has labels of its own"
            f"{' (or give --labels predicted)' if predictable else ''}"
        )
    return open_split(settings.data)


def _folder(settings: PhotographSettings, classes: tuple[str, ...] | None) -> Collection:
    """A folder or a photograph with labels, one set for all, or none."""
    images, labels = settings.images, settings.labels
    if not Path(images).exists():
        raise InputError(f"{images}: no such folder or photograph; set --images")
    classes = classes or _classes_of(settings.data)
    if labels is not None and _is_file(labels, classes):
        return _those_in(labels, folder.folder_collection(images, labels, classes))
    photographs = folder.folder_collection(images, None, classes)
    if labels in (None, PREDICTED):
        return photographs
    vector = _named_labels(labels, classes)
    return replace(photographs, labels=dict.fromkeys(photographs.ids, vector))


def _is_file(labels: str, classes: tuple[str, ...]) -> bool:
    """Whether --labels names a CSV file, and not a class whose name a file happens to have."""
    return labels.lower().endswith(".csv") or (labels not in classes and os.path.isfile(labels))


def _those_in(file: str, photographs: Collection) -> Collection:
    """The photographs for which a CSV has a line; notes say for which it has none, or no class."""
    missing, empty, notes = missing_labels(photographs), without_class(photographs), ()
    if missing:
        notes += (f"left out, as {file} has no line for them: {counted_ids(missing)}",)
    if empty:
        notes += (f"all background, as {file} names no class: {counted_ids(empty)}",)
    photographs = photographs.subset(i for i in photographs.ids if i in photographs.labels)
    return replace(photographs, notes=(*photographs.notes, *notes))


def _classes_of(data: DataSettings) -> tuple[str, ...]:
    """The classes of the data options, for published checkpoints, which do not name theirs."""
    if data.dataset in FIXED_CLASSES:
        return FIXED_CLASSES[data.dataset]()
    if not data.root:
        raise InputError("--root: the checkpoint does not name its classes; give the data set's")
    return read_class_list(Path(data.root) / "labels.txt")


def _named_labels(names: str, classes: tuple[str, ...]) -> np.ndarray:
    """The label vector (K,) uint8 of class names separated by commas."""
    vector = np.zeros(len(classes), np.uint8)
    for name in filter(None, map(str.strip, names.split(","))):
        if name not in classes:
            raise InputError(f"--labels: no class {name!r}; there are {', '.join(classes)}")
        vector[classes.index(name)] = 1
    if not vector.any():
        raise InputError(f"--labels {names!r}: names no class")
    return vector


def _require_same_classes(photographs: Collection, known: KnownClasses) -> None:
    """Refuse a checkpoint that was trained on other classes."""
    path, has, needs = known.checkpoint, known.count - 1, len(photographs.classes)
    if has != needs:
        raise InputError(
            f"{path}: trained on {has} classes, but {photographs.name} has {needs}; "
            "name the data set it was trained on"
        )
    if known.names is not None and known.names != photographs.classes:
        raise InputError(
            f"{path}: trained on other classes than those of {photographs.name} "
            f"({first_difference(known.names, photographs.classes)}); "
            "name the data set it was trained on"
        )


def _require_labels(photographs: Collection, predictable: bool) -> None:
    """Refuse photographs without labels, or labelled with no class, before any is inferred."""
    missing = missing_labels(photographs)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(photographs.ids)} photographs have no image-level labels, "
            f"such as {', '.join(missing[:5])}; complete them"
            f"{', or give --labels predicted' if predictable else ''}"
        )
    if photographs.name != folder.NAME and not LAYOUTS[photographs.name].MAY_BE_EMPTY:
        require_classes(photographs)
