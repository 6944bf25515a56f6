"""Lists and labels of a data set, made once from the official download.

    python -m datasets.prepare voc12 --voc_root DIR
    python -m datasets.prepare coco --coco_root DIR        also renders COCO's masks
    python -m datasets.prepare custom --root DIR

COCO's masks go to COCO's own folder; a rendering that was stopped goes on where it stopped.
Lists and labels go to data/prepared/<dataset>-<hash of the root>/: `<split>.txt` (ids),
`labels.json` (classes and class indices of every id) and `meta.json` (the root, and sizes and times
of what they were made from). The scripts call load_collection, which uses them as long as meta.json
still holds and otherwise makes them on the spot.
"""

import argparse
import hashlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from datasets import coco, custom, roots, voc
from datasets.classes import DATA
from datasets.collection import (
    Collection,
    Index,
    missing_labels,
    missing_masks,
    missing_saliency,
    without_class,
)
from datasets.command_line import Parser, number, run
from datasets.files import InputError, read_id_list, read_json, write_json, write_text
from datasets.labels import (
    read_csv_labels,
    read_labels_json,
    read_published_labels,
    write_labels_json,
)
from datasets.workers import end_with_parent

PREPARED = DATA / "prepared"

LAYOUTS = {layout.NAME: layout for layout in (voc, coco, custom)}
"""The data sets. Each module has EXPECTED, ROOT_OPTION, SALIENCY_OPTION, sources, build_index and
build_collection."""


# --- for the scripts ------------------------------------------------------------------------------


def load_collection(
    dataset: str,
    root: str | os.PathLike | None,
    split: str,
    saliency: str | os.PathLike | None = None,
    labels_file: str | os.PathLike | None = None,
    prepared: str | os.PathLike | None = None,
    quiet: bool = False,
) -> Collection:
    """The photographs of one split.

    Lists and labels come from `prepared` if they were made from this root as it is now, and are
    made on the spot otherwise. COCO's masks are not: without them the collection has none.

    Args:
        dataset: `voc12`, `coco` or `custom`.
        root: the data set's folder.
        split: `train`, `val` or `train_aug` (`train` or `val` of COCO).
        saliency: folder of `<id>.png`; by default root/saliency_map if it is there.
        labels_file: a published cls_labels.npy or a CSV, whose labels replace the annotations'.
        prepared: folder of what prepare writes; by default the repository's data/prepared.
        quiet: print nothing (a process that is not the first).

    Raises:
        InputError: anything that is not as it should be, with what to do.
    """
    layout = find_layout(dataset)
    root = check_root(layout, root)
    index = load_index(layout, root, Path(prepared or PREPARED), quiet)
    if labels_file is not None:
        index = with_labels_of(Path(labels_file), layout, index)
    return layout.build_collection(root, split, index, saliency_folder(layout, root, saliency))


def find_layout(dataset: str) -> ModuleType:
    """The module of a data set."""
    if dataset not in LAYOUTS:
        raise InputError(f"--dataset {dataset}: unknown; it is one of {', '.join(LAYOUTS)}")
    return LAYOUTS[dataset]


def check_root(layout: ModuleType, root: str | os.PathLike | None) -> Path:
    """The root, resolved, if it holds what the layout expects."""
    if not root:
        raise InputError(
            f"{layout.NAME}: the data set's root is not set; give {layout.ROOT_OPTION}"
        )
    if not Path(root).is_dir():
        raise InputError(f"{root}: no such folder; set {layout.ROOT_OPTION}")
    absent = [name for name in layout.EXPECTED if not (Path(root) / name).exists()]
    if absent:
        raise InputError(
            f"{root}: no {' and no '.join(absent)} in it; {layout.NAME} needs "
            f"{', '.join(layout.EXPECTED)}; set {layout.ROOT_OPTION}"
        )
    return Path(root).resolve()


def saliency_folder(
    layout: ModuleType, root: Path, saliency: str | os.PathLike | None
) -> Path | None:
    """The folder of saliency maps that was given, else root/saliency_map, else None."""
    if saliency:
        if not Path(saliency).is_dir():
            raise InputError(
                f"{saliency}: no such folder of saliency maps; set {layout.SALIENCY_OPTION}"
            )
        return Path(saliency)
    default = root / "saliency_map"
    return default if default.is_dir() else None


def load_index(layout: ModuleType, root: Path, prepared: Path, quiet: bool) -> Index:
    """The lists and labels of a root: those that were prepared if they still hold, else new."""
    folder = prepared_folder(layout, root, prepared)
    meta = fingerprint(layout, root)
    index = _read_prepared(folder, meta)
    if index is not None:
        return index
    if not quiet:
        print(f"{layout.NAME}: {root} is not prepared yet, or has changed; preparing it now")
    index = build_index(layout, root, quiet)
    require_annotations(index)
    try:
        write_index(folder, index, meta)
    except InputError as error:  # an installation that the user may not write to still works
        if not quiet:
            print(f"note: {error}; lists and labels are made anew each time")
    if not quiet:
        for note in index.notes:
            print(f"note: {note}")
    return index


def with_labels_of(path: Path, layout: ModuleType, index: Index) -> Index:
    """The index with the labels in a published file or a CSV instead of its own."""
    if not path.is_file():
        raise InputError(f"--labels_file {path}: no such file; name a cls_labels.npy or a CSV")
    if path.suffix == ".npy":
        labels = read_published_labels(path)
        found = len(next(iter(labels.values())))
        if found != len(index.classes):
            raise InputError(
                f"{path}: labels of {found} classes, but the data set has {len(index.classes)}; "
                "name the data set that it belongs to"
            )
    else:
        _, labels = read_csv_labels(path, index.classes)
    chosen = {}
    for identifier in {i for ids in index.lists.values() for i in ids}:
        keys = coco.published_ids(identifier) if layout is coco else (identifier,)
        known = [key for key in keys if key in labels]
        if known:
            chosen[identifier] = labels[known[0]]
    if not chosen:
        raise InputError(
            f"{path}: it has none of the data set's photographs; "
            "name the data set that it belongs to"
        )
    return replace(index, labels=chosen)


# --- preparing ------------------------------------------------------------------------------------


def build_index(layout: ModuleType, root: Path, quiet: bool = False) -> Index:
    """Make lists and labels of a root, with a bar. Annotations that cannot be read are notes."""

    def progress(items: Iterable) -> Iterable:
        return tqdm(items, desc="labels", unit="img", disable=quiet, leave=False)

    return layout.build_index(root, progress)


def require_annotations(index: Index) -> None:
    """Refuse annotations that cannot be read.

    Raises:
        InputError: naming the first and how many there are.
    """
    if index.unreadable:
        more = len(index.unreadable) - 1
        raise InputError(
            f"{index.unreadable[0]}{f' (and {more} more annotations)' if more else ''}; correct "
            "the file or leave the photograph out (python -m datasets.check lists all such files)"
        )


def write_index(folder: Path, index: Index, meta: dict[str, Any]) -> None:
    """Write lists and labels, and at last meta.json, without which they count as not prepared."""
    for split, ids in index.lists.items():
        write_text(folder / f"{split}.txt", "".join(f"{identifier}\n" for identifier in ids))
    write_labels_json(folder / "labels.json", index.classes, index.labels)
    splits_and_notes = {"splits": list(index.lists), "notes": list(index.notes)}
    write_json(folder / "meta.json", {**meta, **splits_and_notes})


def prepared_folder(layout: ModuleType, root: Path, prepared: Path) -> Path:
    """Where the lists and labels of a root go: no two roots share a folder."""
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()
    return prepared / f"{layout.NAME}-{digest[:12]}"


def fingerprint(layout: ModuleType, root: Path) -> dict[str, Any]:
    """What lists and labels depend on: the root, and size and time of every source.

    A folder's time changes when a file in it is added, removed or replaced; of annotations, which
    may be edited in place, the newest counts too.
    """
    sources = {}
    for path in layout.sources(root):
        try:
            status = path.stat()
            newest = status.st_mtime_ns
            if path.name == "Annotations":
                with os.scandir(path) as entries:
                    newest = max((entry.stat().st_mtime_ns for entry in entries), default=newest)
            sources[str(path.relative_to(root))] = [
                status.st_size,
                status.st_mtime_ns,
                newest,
            ]
        except OSError:
            sources[str(path.relative_to(root))] = None
    return {"dataset": layout.NAME, "root": str(root), "sources": sources}


def _read_prepared(folder: Path, meta: dict[str, Any]) -> Index | None:
    """What prepare wrote, or None if it is not there, damaged, or made from something else."""
    try:
        written = read_json(folder / "meta.json")
        if not isinstance(written, dict) or any(written.get(k) != v for k, v in meta.items()):
            return None
        lists = {split: read_id_list(folder / f"{split}.txt") for split in written["splits"]}
        classes, labels = read_labels_json(folder / "labels.json")
        return Index(classes, lists, labels, tuple(written["notes"]))
    except (InputError, KeyError, TypeError):
        return None


# --- the command ----------------------------------------------------------------------------------


def render_coco_masks(root: Path, index: Index, workers: int) -> None:
    """Render the COCO masks that are not there yet, and say how fast."""
    for split, ids in index.lists.items():
        absent = coco.masks_to_render(root, split, ids)
        if not absent:
            continue
        coco.require_pycocotools()
        start = time.perf_counter()
        done = len(ids) - len(absent)
        with tqdm(total=len(ids), initial=done, desc=f"masks {split}", unit="img") as bar:
            tasks = coco.mask_tasks(root, split, absent)
            for count in in_processes(coco.render_masks, tasks, workers):
                bar.update(count)
        seconds = time.perf_counter() - start
        print(
            f"{split}: {len(absent)} masks rendered in {seconds:.1f} s, "
            f"{len(absent) / seconds:.1f} images/s ({workers} processes)"
        )


def in_processes(function: Callable, tasks: Iterable, workers: int) -> Iterator:
    """`function(task)` of every task, as they are done, in `workers` processes (here, if 1).

    Tasks are taken from the iterable only as fast as they are worked off, so that memory stays
    bounded.

    Raises:
        InputError: a process was killed.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    # spawn: the processes share nothing with this one, which may hold gigabytes of annotations.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
    running = set()
    try:
        for task in tasks:
            running.add(pool.submit(function, task))
            if len(running) >= 2 * workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in as_completed(running))
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, perhaps for want of memory; try fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


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
    lines += ["", f"{'images per class':<20}" + "".join(f"{c.split:>12}" for c in collections)]
    counts = [images_per_class(c) for c in collections]
    for k, name in enumerate(collections[0].classes):
        lines.append(f"{name:<20}" + "".join(f"{count[k]:>12}" for count in counts))
    return "\n".join(lines)


def images_per_class(collection: Collection) -> np.ndarray:
    """(K,) the number of photographs with each class, by their labels."""
    labels = [collection.labels[i] for i in collection.ids if i in collection.labels]
    return np.sum([np.zeros(len(collection.classes), int), *labels], axis=0)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """The options of prepare and check: where the data set lies, workers, debug."""
    roots.add_options(parser.add_argument_group("where the data set lies"))
    parser.add_argument(
        "--workers",
        type=number(int, 1),
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: one a CPU core)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def roots_of(options: argparse.Namespace) -> tuple[ModuleType, Path, Path | None]:
    """The layout, its root and its saliency folder, as options and dataset_root.py say."""
    layout = find_layout(options.dataset)
    root, saliency = roots.chosen(options)
    root = check_root(layout, root)
    return layout, root, saliency_folder(layout, root, saliency)


def _command(options: argparse.Namespace) -> int:
    layout, root, saliency = roots_of(options)
    folder = prepared_folder(layout, root, options.out)
    meta = fingerprint(layout, root)
    index = build_index(layout, root)
    require_annotations(index)
    annotated = index
    if options.labels_file is not None:
        index = with_labels_of(Path(options.labels_file), layout, index)
    write_index(folder, annotated, meta)
    if layout is coco:
        render_coco_masks(root, index, options.workers)
    collections = [layout.build_collection(root, s, index, saliency) for s in index.lists]
    print(f"{layout.NAME} {root}: lists and labels are in {folder}\n")
    print(summary(collections))
    print()
    for note in index.notes:
        print(f"note: {note}")
    for c in collections:
        empty = [] if layout is coco else without_class(c)
        if empty:
            print(f"note: {len(empty)} photographs of {c.split} have no class, such as {empty[0]}")
    if saliency is None:
        print(f"note: no saliency maps; {layout.SALIENCY_OPTION} or {root / 'saliency_map'}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = Parser(prog="python -m datasets.prepare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("dataset", choices=LAYOUTS)
    add_common_options(parser)
    parser.add_argument(
        "--out", type=Path, default=PREPARED, metavar="DIR", help=f"default: {PREPARED}"
    )
    return run(_command, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
