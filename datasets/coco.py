"""COCO 2014 as it is downloaded.

    root/{train,val}2014/COCO_train2014_000000000009.jpg    an id is the name without ending
    root/annotations/instances_{train,val}2014.json
    root/SegmentationClass/{train,val}2014/<id>.png         label maps, rendered by prepare
    root/SegmentationClass/{train,val}2014/rendered_from.txt    hash of the annotations then
    root/saliency_map/<id>.png                              unless they lie elsewhere

Lists: a photograph without any object cannot be learned from by its labels, so it is left out of
train; val keeps it (its label map is all background). A crowd region counts as an object.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.classes import coco_classes
from datasets.collection import Collection, Index, Note, Progress, collect, missing_masks
from datasets.files import InputError, read_bytes, read_json, read_text, write_text
from datasets.labels import label_vector
from datasets.listing import check_id, list_photographs

NAME = "coco"
EXPECTED = ("train2014", "annotations/instances_train2014.json")
"""What a root must hold."""

ROOT_OPTION = "--coco_root or COCO_ROOT"
SALIENCY_OPTION = "--coco_sal_root or COCO_SAL_ROOT"

TRAIN_AUG, MAY_BE_EMPTY = False, True
"""There is no split train_aug; photographs may show none of the classes."""

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Instances:
    """An instances_*.json, checked.

    Attributes:
        path: the file.
        images: id -> record of the photograph (`id`, `height`, `width`, `file_name`).
        objects: number of the photograph -> (class index, record) of its objects.
    """

    path: Path
    images: dict[str, dict]
    objects: dict[int, list[tuple[int, dict]]]


def sources(root: Path) -> list[Path]:
    """The files and folders that lists and labels are made from."""
    return [
        path for split in SPLITS for path in (instances_path(root, split), _folder(root, split))
    ]


def build_index(root: Path, progress: Progress) -> Index:
    """Lists and 80-class labels from the instances."""
    classes = coco_classes()
    lists, labels, notes = {}, {}, []
    for split in SPLITS:
        path = instances_path(root, split)
        if not path.exists():
            notes.append(Note(f"no {path}: there is no split {split}", split))
            continue
        instances = read_instances(path)
        refuse_other_masks(root, split)
        for identifier, record in progress(instances.images.items()):
            found = {index - 1 for index, _ in instances.objects[record["id"]]}
            labels[identifier] = label_vector(found, len(classes))
        empty = [i for i in instances.images if not labels[i].any()]
        dropped = set(empty if split == "train" else ())
        lists[split] = tuple(sorted(instances.images.keys() - dropped))
        if empty:
            what = "left out" if split == "train" else "kept, all background"
            text = f"{len(empty)} photographs of {split} have no object: {what}"
            notes.append(Note(text, split))
    return Index(classes, lists, labels, tuple(notes))


def build_collection(root: Path, split: str, index: Index, saliency: Path | None) -> Collection:
    """The collection of one split.

    Raises:
        InputError: prepare was stopped while it rendered the masks.
    """
    folder = _folder(root, split)
    photographs = list_photographs(folder) if split in index.lists else {}
    masks = mask_folder(root, split)
    if saliency is not None and (saliency / folder.name).is_dir():
        saliency = saliency / folder.name
    collection = collect(NAME, split, index, photographs, masks, saliency)
    absent = len(missing_masks(collection)) if collection.masks else 0
    if absent:
        raise InputError(
            f"{masks}: {absent} of {len(collection.ids)} masks are not rendered yet; "
            f"go on with: python -m datasets.prepare coco --coco_root {root}"
        )
    return collection


def published_ids(identifier: str) -> tuple[str, ...]:
    """The ids a photograph has in published label files: itself, its digits, its number."""
    digits = identifier.rpartition("_")[2]
    return identifier, digits, digits.lstrip("0")


def instances_path(root: Path, split: str) -> Path:
    """Where COCO 2014 has the annotations of a split."""
    return root / "annotations" / f"instances_{split}2014.json"


def mask_folder(root: Path, split: str) -> Path:
    """Where the label maps of a split are rendered."""
    return root / "SegmentationClass" / f"{split}2014"


def remember_annotations(root: Path, split: str) -> None:
    """Keep a hash of the annotations from which the label maps are about to be rendered."""
    write_text(_rendered_from(root, split), content_hash(instances_path(root, split)) + "\n")


def refuse_other_masks(root: Path, split: str) -> None:
    """Refuse label maps that were rendered from other annotations than there are now.

    Masks that prepare did not render are taken as they are.

    Raises:
        InputError: naming the folder to remove.
    """
    source, annotations = _rendered_from(root, split), instances_path(root, split)
    if source.is_file() and read_text(source).strip() != content_hash(annotations):
        raise InputError(
            f"{source.parent}: its masks were rendered from another {annotations.name}; remove the "
            f"folder, then: python -m datasets.prepare coco --coco_root {root}"
        )


def _rendered_from(root: Path, split: str) -> Path:
    return mask_folder(root, split) / "rendered_from.txt"


def content_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def _folder(root: Path, split: str) -> Path:
    return root / f"{split}2014"


# --- reading the annotations ----------------------------------------------------------------------


def read_instances(path: Path) -> Instances:
    """Read an instances_*.json.

    Raises:
        InputError: not such a file, a category that is not COCO's, or a record that names a
            photograph or a category that is not there.
    """
    content = read_json(path)
    images: dict[str, dict] = {}
    fields = {"id": int, "file_name": str, "height": int, "width": int}
    for record in _records(content, "images", fields, path):
        identifier = check_id(Path(check_id(record["file_name"], path)).stem, path)
        if identifier in images:
            raise InputError(f"{path}: the photograph {identifier!r} appears twice")
        if min(record["height"], record["width"]) < 1:
            raise InputError(f"{path}: the photograph {identifier!r} has no size")
        images[identifier] = record
    class_index = _class_index(content, path)
    objects: dict[int, list[tuple[int, dict]]] = {record["id"]: [] for record in images.values()}
    if len(objects) < len(images):
        raise InputError(f"{path}: two photographs have the same number")
    fields = {"image_id": int, "category_id": int}
    for record in _records(content, "annotations", fields, path):
        if record["image_id"] not in objects or record["category_id"] not in class_index:
            raise InputError(
                f"{path}: annotation {number_of(record)} names the photograph {record['image_id']} "
                f"and category {record['category_id']}, and one of them is not in the file"
            )
        objects[record["image_id"]].append((class_index[record["category_id"]], record))
    return Instances(path, images, objects)


def _records(content: Any, key: str, fields: dict[str, type], path: Path) -> list[dict]:
    """The list `key` of a COCO file, every record with these fields."""
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise InputError(f"{path}: no list {key!r} in it; not an instances file of COCO")
    for number, record in enumerate(records):
        for field, kind in fields.items():
            if not isinstance(record, dict) or type(record.get(field)) is not kind:
                raise InputError(
                    f"{path}: {key}[{number}] has no {field!r}, or something else under it"
                )
    return records


def _class_index(content: dict, path: Path) -> dict[int, int]:
    """Category id -> class index. Ids have gaps (1..90), so the name decides."""
    position = {name: index for index, name in enumerate(coco_classes(), 1)}
    class_index = {}
    for record in _records(content, "categories", {"id": int, "name": str}, path):
        if record["name"] not in position:
            raise InputError(
                f"{path}: the category {record['name'][:80]!r} is not one of COCO's 80; "
                "your own classes go with --dataset custom"
            )
        class_index[record["id"]] = position[record["name"]]
    return class_index


def number_of(record: dict) -> int | str:
    """An annotation's own number, which nothing needs, so that anything can stand there."""
    number = record.get("id")
    return number if type(number) is int else "without a number"
