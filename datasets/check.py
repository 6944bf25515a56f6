"""Reads a whole data set once before a long training and reports what is wrong with it.

    python -m datasets.check --dataset voc12 --voc_root DIR

Decodes every photograph, label map and saliency map in parallel. Exit status 0 if nothing is wrong
and 2 otherwise; notes are worth knowing and do not count. A list or a label file that cannot be
read ends the check in one line.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
from tqdm import tqdm

from datasets import coco
from datasets.collection import (
    Collection,
    Index,
    missing_labels,
    missing_masks,
    missing_saliency,
    without_class,
)
from datasets.command_line import Parser, run
from datasets.files import (
    IGNORE,
    InputError,
    image_header,
    read_label_map,
    read_photograph,
    read_saliency,
)
from datasets.prepare import (
    LAYOUTS,
    add_common_options,
    build_index,
    images_per_class,
    in_processes,
    roots_of,
    with_labels_of,
)

CHUNK = 16
"""Photographs that are sent to a process at once."""

SHOWN = 20
"""Files listed for each kind of problem."""

UNREADABLE_ANNOTATION = "annotations that cannot be read"
UNREADABLE_PHOTOGRAPH = "photographs that cannot be read"
UNREADABLE_MASK = "masks that cannot be read"
UNREADABLE_SALIENCY = "saliency maps that cannot be read"
MISSING_MASK = "photographs without mask"
MISSING_SALIENCY = "photographs without saliency map"
MISSING_LABEL = "photographs without image-level label"
MASK_SIZE = "masks of another size than their photograph"
MASK_RANGE = "masks with class indices out of range"
NO_CLASS = "photographs whose label has no class"
NO_OBJECT = "photographs without any object"
UNUSABLE_SPLIT = "splits that cannot be used"
NOT_IN_LABEL = "masks with classes that are not in the image-level label"
SALIENCY_SIZE = "saliency maps of another size than their photograph (they are resized)"

NOTES = frozenset({NO_OBJECT, NOT_IN_LABEL, SALIENCY_SIZE})
"""The kinds of findings that are no problems."""


@dataclass(frozen=True)
class Item:
    """The files of one photograph; None for what it has not.

    `label` is its (K,) vector, `classes` the names of the K classes.
    """

    photograph: Path
    mask: Path | None
    saliency: Path | None
    label: np.ndarray | None
    classes: tuple[str, ...]


@dataclass
class Reading:
    """What reading one photograph's files gave.

    `findings` are pairs of a kind and a line naming the file; `mask_classes` are class indices.
    """

    findings: list[tuple[str, str]] = field(default_factory=list)
    mode: str = ""
    size: tuple[int, int] | None = None
    mask_classes: list[int] = field(default_factory=list)


def check_items(items: list[Item]) -> list[Reading]:
    """Read all files of some photographs."""
    return [check_item(item) for item in items]


def check_item(item: Item) -> Reading:
    """Read all files of one photograph."""
    reading = Reading()
    try:
        reading.mode = image_header(item.photograph)[0]
        reading.size = read_photograph(item.photograph).shape[:2]
    except InputError as error:
        reading.findings.append((UNREADABLE_PHOTOGRAPH, str(error)))
    if item.mask is not None:
        _check_mask(item, reading)
    if item.saliency is not None:
        _check_saliency(item, reading)
    return reading


def _check_mask(item: Item, reading: Reading) -> None:
    try:
        mask = read_label_map(item.mask)
    except InputError as error:
        reading.findings.append((UNREADABLE_MASK, str(error)))
        return
    if reading.size not in (None, mask.shape):
        line = f"{item.mask}: {_size(mask.shape)}, the photograph {_size(reading.size)}"
        reading.findings.append((MASK_SIZE, line))
    indices = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
    outside = [i for i in indices if len(item.classes) < i != IGNORE]
    if outside:
        line = f"{item.mask}: {outside}; allowed are 0 to {len(item.classes)} and {IGNORE}"
        reading.findings.append((MASK_RANGE, line))
    reading.mask_classes = [i for i in indices if 1 <= i <= len(item.classes)]
    if item.label is not None:
        names = [item.classes[i - 1] for i in reading.mask_classes if not item.label[i - 1]]
        if names:
            reading.findings.append((NOT_IN_LABEL, f"{item.mask}: {', '.join(names)}"))


def _check_saliency(item: Item, reading: Reading) -> None:
    try:
        size = image_header(item.saliency)[1]
        read_saliency(item.saliency, size)
    except InputError as error:
        reading.findings.append((UNREADABLE_SALIENCY, str(error)))
        return
    if reading.size not in (None, size):
        line = f"{item.saliency}: {_size(size)}, the photograph {_size(reading.size)}"
        reading.findings.append((SALIENCY_SIZE, line))


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


# --- a whole data set -----------------------------------------------------------------------------


@dataclass
class Report:
    """What a check found, kind by kind, and counts over all photographs."""

    findings: dict[str, list[str]] = field(default_factory=dict)
    modes: Counter = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    mask_classes: Counter = field(default_factory=Counter)
    items: int = 0

    def add(self, kind: str, line: str) -> None:
        """Note one finding."""
        self.findings.setdefault(kind, []).append(line)

    def add_reading(self, reading: Reading) -> None:
        """Note what reading one photograph's files gave."""
        self.items += 1
        for kind, line in reading.findings:
            self.add(kind, line)
        if reading.size is not None:
            self.modes[reading.mode] += 1
            self.sizes.append(reading.size)
        self.mask_classes.update(reading.mask_classes)

    @property
    def problems(self) -> int:
        """The number of findings that are problems."""
        return sum(len(lines) for kind, lines in self.findings.items() if kind not in NOTES)


def check_collections(collections: list[Collection], workers: int) -> Report:
    """Read every file of these splits once, with a bar."""
    report = Report()
    items: dict[Path, Item] = {}
    for collection in collections:
        for item in _items(collection, report):
            items.setdefault(item.photograph, item)
    chunks = _chunks(list(items.values()))
    with tqdm(total=len(items), desc="check", unit="img") as bar:
        for readings in in_processes(check_items, chunks, workers):
            for reading in readings:
                report.add_reading(reading)
            bar.update(len(readings))
    # Processes finish in any order, and train_aug repeats what train has.
    report.findings = {kind: sorted(set(lines)) for kind, lines in sorted(report.findings.items())}
    return report


def _items(collection: Collection, report: Report) -> Iterator[Item]:
    """What is to be read of a split; what is not there is noted in the report."""
    without = {
        MISSING_MASK: missing_masks(collection) if collection.masks else [],
        MISSING_SALIENCY: missing_saliency(collection) if collection.saliency else [],
        MISSING_LABEL: missing_labels(collection),
        # COCO has such photographs by nature; anywhere else a label was forgotten.
        NO_OBJECT if collection.name == coco.NAME else NO_CLASS: without_class(collection),
    }
    for kind, ids in without.items():
        for identifier in ids:
            report.add(kind, str(collection.images[identifier]))
    no_mask, no_saliency = set(without[MISSING_MASK]), set(without[MISSING_SALIENCY])
    for identifier in collection.ids:
        label = collection.labels.get(identifier)
        photograph = collection.images[identifier]
        mask = collection.masks and identifier not in no_mask
        saliency = collection.saliency and identifier not in no_saliency
        yield Item(
            photograph,
            collection.mask_path(identifier) if mask else None,
            collection.saliency_path(identifier) if saliency else None,
            label,
            collection.classes,
        )


def _chunks(items: list[Item]) -> Iterable[list[Item]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def format_report(report: Report, collections: list[Collection]) -> str:
    """The report as text."""
    lines = []
    if report.sizes:
        heights, widths = np.array(report.sizes).T
        lines.append(
            f"sizes: height {heights.min()} to {heights.max()}, width {widths.min()} to "
            f"{widths.max()}; modes: {', '.join(f'{m} {n}' for m, n in report.modes.most_common())}"
        )
    columns = "".join(f"{c.split:>12}" for c in collections)
    lines += ["", f"{'images per class':<20}{columns}{'in masks':>12}"]
    counts = [images_per_class(c) for c in collections]
    for k, name in enumerate(collections[0].classes):
        row = "".join(f"{count[k]:>12}" for count in counts)
        lines.append(f"{name:<20}{row}{report.mask_classes[k + 1]:>12}")
    for kind, found in report.findings.items():
        lines += ["", f"{'note' if kind in NOTES else 'PROBLEM'}: {len(found)} {kind}"]
        lines += [f"  {line}" for line in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"  and {len(found) - SHOWN} more")
    return "\n".join(lines)


# --- the command ----------------------------------------------------------------------------------


def open_splits(
    layout: ModuleType, root: Path, splits: list[str], index: Index, saliency: Path | None
) -> tuple[list[Collection], list[str]]:
    """The collections of the splits that can be used, and what is wrong with the others.

    Raises:
        InputError: none can.
    """
    collections, refused = [], []
    for split in splits:
        try:
            collections.append(layout.build_collection(root, split, index, saliency))
        except InputError as error:
            refused.append(str(error))
    if not collections:
        raise InputError(refused[0])
    return collections, refused


def _command(options: argparse.Namespace) -> int:
    layout, root, saliency = roots_of(options)
    index = build_index(layout, root)
    notes, unreadable = index.plain_notes, index.unreadable
    if options.labels_file is not None:
        index = with_labels_of(Path(options.labels_file), layout, index)
    splits = [options.split] if options.split else list(index.lists)
    collections, refused = open_splits(layout, root, splits, index, saliency)
    start = time.perf_counter()
    report = check_collections(collections, options.workers)
    seconds = time.perf_counter() - start
    for kind, lines in ((UNREADABLE_ANNOTATION, unreadable), (UNUSABLE_SPLIT, refused)):
        for line in lines:
            report.add(kind, line)
    print(f"{layout.NAME} {root}: {', '.join(splits)}")
    print(format_report(report, collections))
    print()
    for note in notes:
        print(f"note: {note}")
    for what in ("masks", "saliency"):
        without = [c.split for c in collections if getattr(c, what) is None]
        if without:
            print(f"note: no {what} at all for {', '.join(without)}: not checked")
    print(
        f"{report.items} photographs read in {seconds:.1f} s, {report.items / seconds:.1f} "
        f"images/s ({options.workers} processes)\n"
        f"{f'PROBLEMS: {report.problems}' if report.problems else 'no problems'}"
    )
    return 2 if report.problems else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = Parser(prog="python -m datasets.check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dataset", choices=LAYOUTS, default="voc12")
    parser.add_argument("--split", help="one split (default: all)")
    add_common_options(parser)
    return run(_command, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
