"""A data set as prepare left it: its lists and labels, used as long as they hold, else made anew.

datasets/prepare.py names the files and says where they lie.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from datasets import coco, custom, roots, voc
from datasets.classes import DATA
from datasets.collection import Collection, Index, Note
from datasets.files import InputError, read_json, write_json, write_text
from datasets.labels import read_csv_labels, read_labels_json, write_labels_json
from datasets.listing import list_photographs, read_id_list
from datasets.progress import progress_bar
from datasets.published_labels import read_published_labels

PUBLISHED_LABELS = {
    voc.NAME: DATA / "voc" / "cls_labels.npy",
    coco.NAME: DATA / "coco" / "cls_labels.npy",
}
"""Where the published steps of the method put image-level labels."""

LAYOUTS = {layout.NAME: layout for layout in (voc, coco, custom)}
"""The data sets. Each module has NAME, EXPECTED, ROOT_OPTION, SALIENCY_OPTION, TRAIN_AUG,
MAY_BE_EMPTY, sources, build_index and build_collection, and, where lists may be added to
ImageSets/Segmentation, read_labels."""


# --- for the scripts ------------------------------------------------------------------------------


def load_collection(
    dataset: str,
    root: str | os.PathLike | None,
    split: str,
    saliency: str | os.PathLike | None = None,
    labels_file: str | os.PathLike | None = None,
    quiet: bool = False,
) -> Collection:
    """The photographs of one split.

    Lists and labels come from `prepared_root()` if they were made from this root as it is now, and
    are made on the spot otherwise. COCO's masks are not: without them the collection has none.

    Args:
        dataset: `voc12`, `coco` or `custom`.
        root: the data set's folder.
        split: `train`, `val` or `train_aug` (`train` or `val` of COCO).
        saliency: folder of `<id>.png`; by default root/saliency_map if it is there.
        labels_file: a published cls_labels.npy or a CSV, whose labels replace the annotations';
            by default what PUBLISHED_LABELS names, if it is there, for the photographs in it.
        quiet: print nothing (a process that is not the first).

    Raises:
        InputError: anything that is not as it should be, with what to do.
    """
    layout = find_layout(dataset)
    root = check_root(layout, root)
    index = load_index(layout, root, quiet)
    index = with_list(layout, root, split, index)
    index = with_labels_file(labels_file, layout, index)
    require_annotations(index)
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


def load_index(layout: ModuleType, root: Path, quiet: bool) -> Index:
    """The lists and labels of a root: those that were prepared if they still hold, else new."""
    folder = prepared_folder(layout, root)
    meta = sources_state(layout, root)
    index = _read_prepared(folder, meta)
    if index is not None:
        return index
    if not quiet:
        print(f"{layout.NAME}: {root} is not prepared yet, or has changed; preparing it now")
    index = build_index(layout, root, quiet)
    try:
        write_index(folder, index, meta)
    except InputError as error:  # an installation that the user may not write to still works
        note = Note(f"{error}; lists and labels are made anew each time")
        index = replace(index, notes=(note, *index.notes))
    return index


def with_list(layout: ModuleType, root: Path, split: str, index: Index) -> Index:
    """The index with the list of a split that is not prepared, such as VOC's test, and its labels.

    Labels may be missing. Layouts without `read_labels`, such as COCO's, have no such lists.
    """
    path = voc.list_path(root, split)
    if not hasattr(layout, "read_labels") or split in index.lists or not path.is_file():
        return index
    ids = read_id_list(path, list_photographs(root / "JPEGImages"))
    unknown = [identifier for identifier in ids if identifier not in index.labels]
    labels, notes = layout.read_labels(root, unknown, index.classes, iter)
    return replace(
        index,
        lists={**index.lists, split: ids},
        labels={**index.labels, **labels},
        notes=(*index.notes, *(note for note in notes if note.unreadable)),
    )


def with_labels_file(path: str | os.PathLike | None, layout: ModuleType, index: Index) -> Index:
    """The index with the labels of a published file or a CSV instead of its own.

    Args:
        path: the file; its labels replace all, so annotations that cannot be read do not count.
            None for what PUBLISHED_LABELS names, if it is there: its labels replace those of the
            photographs in it, and a note says so.
        layout: the data set.
        index: lists and labels.

    Raises:
        InputError: the file cannot be read, or knows none of the photographs though it was named.
    """
    if path is not None:
        if not Path(path).is_file():
            raise InputError(f"--labels_file {path}: no such file; name a cls_labels.npy or a CSV")
        found = _labels_for(Path(path), layout, index)
        if not found:
            raise InputError(
                f"{path}: it has none of the data set's photographs; "
                "name the data set that it belongs to"
            )
        readable = tuple(note for note in index.notes if not note.unreadable)
        return replace(index, labels=found, notes=readable)
    default = PUBLISHED_LABELS.get(layout.NAME)
    if default is None or not default.is_file():
        return index
    found = _labels_for(default, layout, index)
    text = (
        f"image-level labels of {len(found)} photographs come from {default}, not from the "
        "annotations; to use the annotations, move that file away"
        if found
        else f"{default} is not used: it has none of the data set's photographs"
    )
    return replace(index, labels={**index.labels, **found}, notes=(*index.notes, Note(text)))


def _labels_for(path: Path, layout: ModuleType, index: Index) -> dict[str, np.ndarray]:
    """The labels that a published file or a CSV has for the photographs in the lists."""
    if path.suffix == ".npy":
        labels = read_published_labels(path)
        length = len(next(iter(labels.values())))
        if length != len(index.classes):
            raise InputError(
                f"{path}: labels of {length} classes, but the data set has {len(index.classes)}; "
                "name the data set that it belongs to"
            )
    else:
        _, labels = read_csv_labels(path, index.classes)
    found = {}
    for identifier in {i for ids in index.lists.values() for i in ids}:
        keys = coco.published_ids(identifier) if layout is coco else (identifier,)
        known = [key for key in keys if key in labels]
        if known:
            found[identifier] = labels[known[0]]
    return found


# --- preparing ------------------------------------------------------------------------------------


def build_index(layout: ModuleType, root: Path, quiet: bool = False) -> Index:
    """Make lists and labels of a root, with a bar. Annotations that cannot be read are notes."""

    return layout.build_index(root, partial(progress_bar, title="labels", quiet=quiet))


def require_annotations(index: Index) -> None:
    """Refuse annotations that cannot be read.

    Raises:
        InputError: naming the first and how many there are.
    """
    unreadable = index.texts(unreadable=True)
    if unreadable:
        more = len(unreadable) - 1
        raise InputError(
            f"{unreadable[0]}{f' (and {more} more annotations)' if more else ''}; correct "
            "the file or leave the photograph out (python -m datasets.check lists all such files)"
        )


def write_index(folder: Path, index: Index, meta: dict[str, Any]) -> None:
    """Write lists and labels, and at last meta.json, without which they count as not prepared."""
    for split, ids in index.lists.items():
        write_text(folder / f"{split}.txt", "".join(f"{identifier}\n" for identifier in ids))
    write_labels_json(folder / "labels.json", index.classes, index.labels)
    splits_and_notes = {"splits": list(index.lists), "notes": [asdict(n) for n in index.notes]}
    write_json(folder / "meta.json", {**meta, **splits_and_notes})


def prepared_root() -> Path:
    """Where lists and labels of all roots go: what dataset_root.py or the environment names."""
    return Path(roots.standing("prepared_root") or DATA / "prepared")


def prepared_folder(layout: ModuleType, root: Path) -> Path:
    """Where the lists and labels of a root go: no two roots share a folder."""
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()
    return prepared_root() / f"{layout.NAME}-{digest[:12]}"


def sources_state(layout: ModuleType, root: Path) -> dict[str, Any]:
    """What lists and labels depend on: the root, and size and time of every source.

    A folder's time changes when a file in it is added, removed or replaced; of annotations, which
    may be edited in place, the newest counts too.
    """
    return {
        "dataset": layout.NAME,
        "root": str(root),
        "sources": {str(path.relative_to(root)): _state(path) for path in layout.sources(root)},
    }


def _state(path: Path) -> list[int] | None:
    try:
        status = path.stat()
        times = []
        if path.name == "Annotations":
            with os.scandir(path) as entries:
                for entry in entries:
                    with suppress(OSError):  # a link to nowhere
                        times.append(entry.stat().st_mtime_ns)
        return [status.st_size, status.st_mtime_ns, max(times, default=status.st_mtime_ns)]
    except OSError:
        return None


def _read_prepared(folder: Path, meta: dict[str, Any]) -> Index | None:
    """What prepare wrote, or None if it is not there, damaged, or made from something else."""
    try:
        written = read_json(folder / "meta.json")
        if not isinstance(written, dict) or any(written.get(k) != v for k, v in meta.items()):
            return None
        lists = {split: read_id_list(folder / f"{split}.txt") for split in written["splits"]}
        classes, labels = read_labels_json(folder / "labels.json")
        notes = tuple(Note(**note) for note in written["notes"])
        if any(not isinstance(note.text, str) for note in notes):
            return None
        return Index(classes, lists, labels, notes)
    except (InputError, KeyError, TypeError):
        return None
