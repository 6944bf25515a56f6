"""Lists and labels of a data set, made once from the official download.

    python -m datasets.prepare voc12 --voc_root DIR
    python -m datasets.prepare coco --coco_root DIR        also renders COCO's masks
    python -m datasets.prepare custom --root DIR

COCO's masks go to COCO's own folder; a rendering that was stopped goes on where it stopped.
Lists and labels go to data/prepared/<dataset>-<hash of the root>/ (PREPARED_ROOT, in
dataset_root.py or the environment, names another folder): `<split>.txt` (ids), `labels.json`
(classes and class indices of every id) and `meta.json` (the root, and sizes and times of what they
were made from). The scripts call load_collection, which uses them as long as meta.json
still holds and otherwise makes them on the spot.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np

from datasets import coco, roots
from datasets.coco_masks import mask_tasks, masks_to_render, render_mask, require_pycocotools
from datasets.collection import (
    Collection,
    Index,
    about_classes,
    missing_labels,
    missing_masks,
    missing_saliency,
    without_class,
)
from datasets.command_line import new_parser, number, print_notes, run
from datasets.prepared import (
    LAYOUTS,
    build_index,
    check_root,
    find_layout,
    prepared_folder,
    require_annotations,
    saliency_folder,
    sources_state,
    with_labels_file,
    write_index,
)
from datasets.progress import progress_bar
from datasets.workers import cores, in_processes


def render_coco_masks(root: Path, index: Index, workers: int) -> None:
    """Render the COCO masks that are not there yet, and say how fast."""
    for split, ids in index.lists.items():
        absent = masks_to_render(root, split, ids)
        if not absent:
            continue
        require_pycocotools()
        if len(absent) == len(ids):
            coco.remember_annotations(root, split)
        start = time.perf_counter()
        done = len(ids) - len(absent)
        tasks = mask_tasks(root, split, absent)
        rendered = in_processes(render_mask, tasks, workers, chunk=16)
        for _ in progress_bar(rendered, f"masks {split}", total=len(ids), done=done):
            pass
        seconds = time.perf_counter() - start
        print(
            f"{split}: {len(absent)} masks rendered in {seconds:.1f} s, "
            f"{len(absent) / seconds:.1f} images/s ({workers} processes)"
        )


def summary(collections: list[Collection]) -> str:
    """The table at the end of prepare: images, labels, masks and saliency maps of every split,
    and images per class."""
    lines = [f"{'split':<12}{'images':>10}{'with label':>14}{'with mask':>14}{'with saliency':>16}"]
    for c in collections:
        images = len(c.ids)
        lines.append(
            f"{c.split:<12}{images:>10}{images - len(missing_labels(c)):>14}"
            f"{images - len(missing_masks(c)):>14}{images - len(missing_saliency(c)):>16}"
        )
    return "\n".join([*lines, "", *class_table(collections)])


def class_table(collections: list[Collection], in_masks: Counter | None = None) -> list[str]:
    """A table's lines: photographs with each class by their labels, and by their masks if given."""
    names = collections[0].classes
    columns = []
    for c in collections:
        labels = [c.labels[i] for i in c.ids if i in c.labels]
        columns.append([c.split, *np.sum([np.zeros(len(names), int), *labels], axis=0)])
    if in_masks is not None:
        columns.append(["in masks", *(in_masks[k] for k in range(1, len(names) + 1))])
    rows = zip(["images per class", *names], *columns, strict=True)
    return [f"{name:<20}" + "".join(f"{cell:>12}" for cell in cells) for name, *cells in rows]


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """The options of prepare and check: where the data set lies, workers, debug."""
    roots.add_options(parser.add_argument_group("where the data set lies"))
    parser.add_argument(
        "--workers",
        type=number(int, 1),
        default=cores(),
        metavar="N",
        help="processes (default: one per CPU core)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def open_layout(args: argparse.Namespace) -> tuple[ModuleType, Path, Path | None]:
    """The layout, its root and its saliency folder, as options and dataset_root.py say."""
    layout = find_layout(args.dataset)
    root, saliency = roots.chosen(args)
    root = check_root(layout, root)
    return layout, root, saliency_folder(layout, root, saliency)


def _command(args: argparse.Namespace) -> int:
    layout, root, saliency = open_layout(args)
    folder = prepared_folder(layout, root)
    meta = sources_state(layout, root)
    annotated = build_index(layout, root)
    index = with_labels_file(args.labels_file, layout, annotated)
    require_annotations(index)
    write_index(folder, annotated, meta)
    if layout is coco:
        render_coco_masks(root, index, args.workers)
    collections = [layout.build_collection(root, s, index, saliency) for s in index.lists]
    print(f"{layout.NAME} {root}: lists and labels are in {folder}\n")
    print(summary(collections) + "\n")
    notes = index.texts()
    for c in collections:
        empty = [] if layout.MAY_BE_EMPTY else without_class(c)
        if empty:
            notes.append(f"{len(empty)} photographs of {c.split} have no class, such as {empty[0]}")
    notes += about_classes(collections)
    if saliency is None:
        notes.append(f"no saliency maps; {layout.SALIENCY_OPTION} or {root / 'saliency_map'}")
    print_notes(notes)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = new_parser(__doc__, prog="python -m datasets.prepare")
    parser.add_argument("dataset", choices=LAYOUTS)
    add_common_options(parser)
    return run(_command, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
