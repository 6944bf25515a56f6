"""A folder of photographs, with a CSV of their classes or without any label, and no masks."""

from pathlib import Path

from datasets.collection import Collection, Index, collect
from datasets.files import InputError, list_photographs
from datasets.labels import read_csv_labels

NAME = "images"
SPLIT = "all"


def folder_collection(
    images_dir: str | Path,
    labels_csv: str | Path | None = None,
    classes: tuple[str, ...] | None = None,
) -> Collection:
    """All photographs of a folder.

    Args:
        images_dir: the folder; ids are the file names without ending.
        labels_csv: lines of `id,class,class,..`; without it the labels are unknown.
        classes: the foreground classes; by default the sorted names in the CSV.

    Raises:
        InputError: no photograph in the folder, a class in the CSV that is not in `classes`, or a
            CSV that knows none of the photographs.
    """
    photographs = list_photographs(images_dir)
    if not photographs:
        raise InputError(f"{images_dir}: no photographs in it")
    labels = {}
    if labels_csv is not None:
        classes, labels = read_csv_labels(labels_csv, classes)
        if labels.keys().isdisjoint(photographs):
            raise InputError(f"{labels_csv}: it has none of the photographs in {images_dir}")
    index = Index(classes or (), {SPLIT: tuple(photographs)}, labels)
    return collect(NAME, SPLIT, index, photographs, masks=None, saliency=None)
