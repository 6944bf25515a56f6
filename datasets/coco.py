"""COCO 2014 as it is downloaded.

    root/{train,val}2014/COCO_train2014_000000000009.jpg    an id is the name without ending
    root/annotations/instances_{train,val}2014.json
    root/SegmentationClass/{train,val}2014/<id>.png         label maps, rendered by prepare
    root/saliency_map/<id>.png                              unless they lie elsewhere

Lists: a photograph without any object cannot be learned from by its labels, so it is left out of
train; val keeps it (its label map is all background). A crowd region counts as an object.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.classes import coco_classes
from datasets.collection import Collection, Index, Note, Progress, collect
from datasets.files import InputError, check_id, list_ids, list_photographs, read_json
from datasets.images import IGNORE, MAX_PIXELS, write_label_map
from datasets.labels import label_vector
from datasets.palette import voc_palette

NAME = "coco"
EXPECTED = ("train2014", "annotations/instances_train2014.json")
"""What a root must hold."""

ROOT_OPTION = "--coco_root or COCO_ROOT"
SALIENCY_OPTION = "--coco_sal_root or COCO_SAL_ROOT"

SPLITS = ("train", "val")
MAX_OUTLINE = 4_000_000
"""An object's polygons are not drawn if their edges are longer in all, pixels: drawing takes about
80 bytes of memory for each."""


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
    absent = collection.masks and len(set(collection.ids) - list_ids(masks, ".png"))
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
                f"{path}: annotation {_number(record)} names the photograph {record['image_id']} "
                f"and category {record['category_id']}, and one of them is not in the file"
            )
        objects[record["image_id"]].append((class_index[record["category_id"]], record))
    return Instances(path, images, objects)


def _records(content: Any, key: str, fields: dict[str, type], path: Path) -> list[dict]:  # noqa: ANN401
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


# --- rendering the masks --------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskTask:
    """One mask to render.

    Attributes:
        path: where it goes.
        source: the instances file, for messages.
        size: (height, width) of the photograph.
        objects: (class index, record) of every object.
    """

    path: Path
    source: Path
    size: tuple[int, int]
    objects: list[tuple[int, dict]]


def masks_to_render(root: Path, split: str, ids: tuple[str, ...]) -> list[str]:
    """The ids whose mask is not there yet. A mask that is there is whole."""
    rendered = list_ids(mask_folder(root, split), ".png")
    return [identifier for identifier in ids if identifier not in rendered]


def mask_tasks(root: Path, split: str, ids: list[str]) -> Iterator[MaskTask]:
    """What render_mask needs, one by one, so that no process gets the whole file."""
    instances = read_instances(instances_path(root, split))
    for identifier in ids:
        record = instances.images[identifier]
        yield MaskTask(
            mask_folder(root, split) / f"{identifier}.png",
            instances.path,
            (record["height"], record["width"]),
            instances.objects[record["id"]],
        )


def render_mask(task: MaskTask) -> None:
    """Render a mask and write it as a palette PNG."""
    try:
        label_map = paint(task)
    except InputError as error:
        raise InputError(f"{task.source}: {error}") from None
    write_label_map(task.path, label_map, voc_palette())


def paint(task: MaskTask) -> np.ndarray:
    """The label map of one photograph.

    Crowd regions are 255 and painted first, then the objects from large to small area, so that
    nothing small is hidden.

    Returns:
        (H, W) uint8.

    Raises:
        InputError: a segmentation that is missing or does not fit the photograph.
    """
    height, width = task.size
    if height * width > MAX_PIXELS:
        raise InputError(f"{task.path.stem}: {width} x {height} pixels are too many; refused")
    canvas = np.zeros(task.size, np.uint8)
    order = sorted(task.objects, key=lambda o: (not o[1].get("iscrowd"), -_area(o[1])))
    for label, record in order:
        canvas[decode(record, task.size)] = IGNORE if record.get("iscrowd") else label
    return canvas


def _area(record: dict) -> float:
    area = record.get("area")
    # Compared, not converted: an integer can be too large for a float.
    if not isinstance(area, int | float) or not -math.inf < area < math.inf:
        raise _bad(record, "no finite number under 'area'")
    return area


def decode(record: dict, size: tuple[int, int]) -> np.ndarray:
    """The pixels of one object: (H, W) bool, as pycocotools draws them.

    pycocotools' C code trusts its input, so polygons and run lengths are checked before.
    """
    mask_api = require_pycocotools()
    segmentation = record.get("segmentation")
    if isinstance(segmentation, dict):
        if segmentation.get("size") != list(size):
            raise _bad(record, f"its run lengths are not for {size[0]} x {size[1]}")
        counts = _run_lengths(record, segmentation.get("counts"), size)
        encoded = mask_api.frPyObjects({"size": list(size), "counts": counts}, *size)
    else:
        encoded = mask_api.merge(mask_api.frPyObjects(_polygons(record, segmentation, size), *size))
    return mask_api.decode(encoded).astype(bool)


def _bad(record: dict, what: str) -> InputError:
    return InputError(f"annotation {_number(record)}: {what}")


def _number(record: dict) -> int | str:
    """An annotation's own number, which nothing needs, so that anything can stand there."""
    number = record.get("id")
    return number if type(number) is int else "without a number"


def _polygons(record: dict, segmentation: Any, size: tuple[int, int]) -> list[list[float]]:  # noqa: ANN401
    """The polygons of an object, each x, y, x, y, .. of three points or more.

    Points far outside the photograph are refused, and outlines of absurd length: rasterising costs
    memory by the length of edges.
    """
    if not isinstance(segmentation, list) or not segmentation:
        raise _bad(record, "neither polygons nor run lengths under 'segmentation'")
    reach = 2 * max(size)
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise _bad(record, "a polygon needs three points or more, x and y each")
        if not all(type(v) in (int, float) and -reach <= v <= reach for v in polygon):
            raise _bad(record, "a polygon's point is not a number, or far outside the photograph")
    if sum(map(_outline, segmentation)) > MAX_OUTLINE:
        raise _bad(record, f"its outline is longer than {MAX_OUTLINE} pixels")
    return segmentation


def _outline(polygon: list[float]) -> float:
    """The length of a polygon's edges along the axis in which each is longer, pixels."""
    points = np.reshape(np.array(polygon, float), (-1, 2))
    return np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()


def _run_lengths(record: dict, counts: Any, size: tuple[int, int]) -> list[int]:  # noqa: ANN401
    """Uncompressed run lengths, which must cover the photograph exactly."""
    if isinstance(counts, str):
        counts = _decompress(counts)
    if not isinstance(counts, list) or not all(type(c) is int and c >= 0 for c in counts):
        raise _bad(record, "its run lengths are not a list of numbers")
    if sum(counts) != size[0] * size[1]:
        raise _bad(record, "its run lengths do not cover the photograph")
    return counts


def _decompress(text: str) -> list[int]:
    """COCO's compressed run lengths: five bits a character, low first, from the third run on as
    the difference to the run before the last."""
    counts, value, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if shift > 60:  # no photograph has such runs, and ever longer numbers take ever longer
            return []
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def require_pycocotools() -> Any:  # noqa: ANN401
    """The module pycocotools.mask, which is optional."""
    try:
        from pycocotools import mask
    except ImportError:
        raise InputError(
            "COCO's masks are rendered with pycocotools, which is not installed; "
            "install it with: pip install pycocotools"
        ) from None
    return mask
