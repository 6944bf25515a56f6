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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from datasets import custom
from datasets.collection import (
    Collection,
    Index,
    missing_labels,
    missing_masks,
    missing_saliency,
    without_class,
)
from datasets.command_line import new_parser, print_notes, run
from datasets.files import InputError
from datasets.images import IGNORE, image_header, is_turned, read_label_map, read_photograph
from datasets.listing import about_others
from datasets.orientation import TURNED
from datasets.prepare import add_common_options, class_table, open_layout
from datasets.prepared import LAYOUTS, build_index, with_labels_file, with_list
from datasets.progress import progress_bar
from datasets.saliency import ODD, Look, coverage_of, look_at, suspicions
from datasets.workers import in_processes

SHOWN = 20
"""Files listed for each kind of problem."""

NO_OBJECT = "photographs without any object"
NOT_SCORED = "photographs without mask (they are not scored)"
NOT_IN_LABEL = "masks with classes that are not in the image-level label"
SALIENCY_SIZE = "saliency maps of another size than their photograph (they are resized)"

DARK = (
    "photographs without a value above 15 of 255 (of 16-bit files the high byte is read: stretch "
    "those of 10 or 12 bits first)"
)

NOTES = frozenset({NO_OBJECT, NOT_IN_LABEL, SALIENCY_SIZE, NOT_SCORED, TURNED, DARK}) | ODD
"""The kinds of findings that are not problems."""


@dataclass(frozen=True)
class FilesOfPhotograph:
    """A photograph, and what belongs to it; None for what it has not.

    `label` is its (K,) vector, `classes` the names of the K classes.
    """

    photograph: Path
    mask: Path | None
    saliency: Path | None
    label: np.ndarray | None
    classes: tuple[str, ...]


@dataclass
class Report:
    """What reading files gave, of one photograph or of many.

    `findings` are lines naming a file under their kind, `decoded` the mode, height and width of
    photographs, `mask_classes` how many masks hold a class index, `looks` of the saliency maps.
    """

    photographs: int = 0
    findings: dict[str, list[str]] = field(default_factory=dict)
    decoded: list[tuple[str, int, int]] = field(default_factory=list)
    mask_classes: Counter = field(default_factory=Counter)
    looks: list[Look] = field(default_factory=list)

    def add(self, kind: str, *lines: object) -> None:
        """Note findings."""
        if lines:
            self.findings.setdefault(kind, []).extend(map(str, lines))

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Note what cannot be read in the block, and go on after it."""
        try:
            yield
        except InputError as error:
            self.add(f"{what} that cannot be read", error)

    def add_size(self, kind: str, path: Path, size: tuple[int, int]) -> None:
        """Note a map of another size than its photograph, if that could be read."""
        for _, height, width in self.decoded:
            if size != (height, width):
                self.add(kind, f"{path}: {size[0]} x {size[1]}, the photograph {height} x {width}")

    def merge(self, other: "Report") -> None:
        """Add what reading other photographs gave."""
        self.photographs += other.photographs
        for kind, lines in other.findings.items():
            self.add(kind, *lines)
        self.decoded += other.decoded
        self.mask_classes.update(other.mask_classes)
        self.looks += other.looks

    @property
    def problems(self) -> int:
        """The number of findings that are problems."""
        return sum(len(lines) for kind, lines in self.findings.items() if kind not in NOTES)


# --- one photograph -------------------------------------------------------------------------------


def read_all(files: FilesOfPhotograph) -> Report:
    """Read all files of one photograph."""
    report = Report(photographs=1)
    with report.reading("photographs"):
        mode, _ = image_header(files.photograph)
        photograph = read_photograph(files.photograph)
        report.decoded.append((mode, *photograph.shape[:2]))
        if photograph.max() <= 15:
            report.add(DARK, files.photograph)
        if is_turned(files.photograph):
            report.add(TURNED, files.photograph)
    with report.reading("masks"):
        _read_mask(files, report)
    with report.reading("saliency maps"):
        _read_saliency(files.saliency, report)
    return report


def _read_mask(files: FilesOfPhotograph, report: Report) -> None:
    path, classes, label = files.mask, files.classes, files.label
    if path is None:
        return
    mask = read_label_map(path)
    report.add_size("masks of another size than their photograph", path, mask.shape)
    indices = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
    outside = [i for i in indices if len(classes) < i != IGNORE]
    if outside:
        line = f"{path}: {outside}; allowed are 0 to {len(classes)} and {IGNORE}"
        report.add("masks with class indices out of range", line)
    report.mask_classes.update(i for i in indices if 1 <= i <= len(classes))
    names = [classes[i - 1] for i in report.mask_classes if label is not None and not label[i - 1]]
    if names:
        report.add(NOT_IN_LABEL, f"{path}: {', '.join(names)}")


def _read_saliency(path: Path | None, report: Report) -> None:
    if path is None:
        return
    look = look_at(path)
    report.looks.append(look)
    report.add_size(SALIENCY_SIZE, path, look.size)
    for kind in look.odd:
        report.add(kind, path)


# --- a whole data set -----------------------------------------------------------------------------


def check_collections(collections: list[Collection], workers: int) -> Report:
    """Read every file of these splits once, with a bar."""
    report = Report()
    # train_aug repeats what train has.
    files = {f.photograph: f for c in collections for f in _files(c, report)}
    readings = in_processes(read_all, files.values(), workers, chunk=16)
    for reading in progress_bar(readings, "check", total=len(files)):
        report.merge(reading)
    # Processes finish in any order.
    report.findings = {kind: sorted(set(lines)) for kind, lines in sorted(report.findings.items())}
    return report


def _files(collection: Collection, report: Report) -> Iterator[FilesOfPhotograph]:
    """The files to read of a split; those that are missing are noted in the report."""
    no_mask, no_saliency = set(missing_masks(collection)), set(missing_saliency(collection))
    # COCO has photographs without objects by nature; anywhere else a label was forgotten.
    forgotten = "photographs whose label has no class"
    no_class = NO_OBJECT if LAYOUTS[collection.name].MAY_BE_EMPTY else forgotten
    # Of one's own photographs only some need masks; VOC's and COCO's all have one.
    without_mask = NOT_SCORED if collection.name == custom.NAME else "photographs without mask"
    # VOC's test photographs have no labels, which are needed for training only.
    unlabelled = missing_labels(collection) if collection.split != "test" else ()
    for kind, ids in (
        (without_mask, no_mask if collection.masks else []),
        ("photographs without saliency map", no_saliency if collection.saliency else []),
        ("photographs without image-level label", unlabelled),
        (no_class, without_class(collection)),
    ):
        report.add(kind, *(collection.images[identifier] for identifier in ids))
    for i in collection.ids:
        yield FilesOfPhotograph(
            collection.images[i],
            None if i in no_mask else collection.mask_path(i),
            None if i in no_saliency else collection.saliency_path(i),
            collection.labels.get(i),
            collection.classes,
        )


def format_report(report: Report, collections: list[Collection]) -> str:
    """The report as text."""
    lines = []
    if report.decoded:
        modes, heights, widths = zip(*report.decoded, strict=True)
        of_mode = ", ".join(f"{mode} {n}" for mode, n in Counter(modes).most_common())
        lines.append(
            f"sizes: height {min(heights)} to {max(heights)}, width {min(widths)} to "
            f"{max(widths)}; modes: {of_mode}"
        )
    if report.looks:
        lines.append(f"saliency maps: {len(report.looks)}, {coverage_of(report.looks)}")
    lines += ["", *class_table(collections, report.mask_classes)]
    for kind, found in report.findings.items():
        heading = f"{'note' if kind in NOTES else 'PROBLEM'}: {len(found)} {kind}"
        lines += ["", heading, *(f"  {line}" for line in found[:SHOWN])]
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


def _command(args: argparse.Namespace) -> int:
    layout, root, saliency = open_layout(args)
    index = build_index(layout, root)
    if args.split:
        index = with_list(layout, root, args.split, index)
    index = with_labels_file(args.labels_file, layout, index)
    splits = [args.split] if args.split else list(index.lists)
    collections, refused = open_splits(layout, root, splits, index, saliency)
    start = time.perf_counter()
    report = check_collections(collections, args.workers)
    seconds = time.perf_counter() - start
    report.add("annotations that cannot be read", *index.texts(unreadable=True))
    report.add("splits that cannot be used", *refused)
    print(f"{layout.NAME} {root}: {', '.join(splits)}")
    print(format_report(report, collections) + "\n")
    notes = [*index.texts(), *suspicions(report.looks)]
    if layout is custom:
        notes += about_others(root / "JPEGImages")
    for what in ("masks", "saliency"):
        without = [c.split for c in collections if getattr(c, what) is None]
        if without:
            notes.append(f"no {what} at all for {', '.join(without)}: not checked")
    print_notes(notes)
    print(
        f"{report.photographs} photographs read in {seconds:.1f} s, "
        f"{report.photographs / seconds:.1f} images/s ({args.workers} processes)\n"
        f"{f'PROBLEMS: {report.problems}' if report.problems else 'no problems'}"
    )
    return 2 if report.problems else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = new_parser(__doc__, prog="python -m datasets.check")
    parser.add_argument("--dataset", choices=LAYOUTS, default="voc12", help="layout of the data")
    parser.add_argument("--split", help="one split (default: all)")
    add_common_options(parser)
    return run(_command, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
