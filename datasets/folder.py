"""A folder of photographs, or one, with a CSV of classes or without any label, and no masks."""

from dataclasses import replace
from pathlib import Path

from datasets.collection import Collection, Index, collect
from datasets.files import InputError
from datasets.labels import about_unused, read_csv_labels
from datasets.listing import about_others, check_id, some_photographs
from datasets.orientation import about_orientation

NAME = "images"
SPLIT = "all"


def folder_collection(
    images: str | Path,
    labels_csv: str | Path | None = None,
    classes: tuple[str, ...] | None = None,
) -> Collection:
    """All photographs of a folder, or a single one.

    Args:
        images: the folder, or the photograph; ids are the file names without ending.
        labels_csv: lines of `id,class,class,..`; without it the labels are unknown.
        classes: the foreground classes; by default the sorted names in the CSV.

    Raises:
        InputError: no photograph in the folder, a class in the CSV that is not in `classes`, or a
            CSV that knows none of the photographs.
    """
    path = Path(images)
    if path.is_file():
        check_id(path.stem, path)
        photographs = {path.stem: path}
    else:
        photographs = some_photographs(images)
    labels, notes = {}, about_orientation(list(photographs.values()))
    if path.is_dir():
        notes += about_others(path)
    if labels_csv is not None:
        classes, labels = read_csv_labels(labels_csv, classes)
        if labels.keys().isdisjoint(photographs):
            raise InputError(f"{labels_csv}: it has none of the photographs in {images}")
        if path.is_dir():  # one photograph may be one of those that the CSV is of
            notes += about_unused(labels, photographs, labels_csv, path)
    index = Index(classes or (), {SPLIT: tuple(photographs)}, labels)
    folder = collect(NAME, SPLIT, index, photographs, masks=None, saliency=None)
    return replace(folder, notes=notes)
