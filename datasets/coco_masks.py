"""COCO's label maps, rendered from its polygons and run lengths."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.coco import instances_path, mask_folder, number_of, read_instances
from datasets.collection import png_ids
from datasets.files import InputError
from datasets.images import IGNORE, MAX_PIXELS, write_label_map

MAX_OUTLINE = 4_000_000
"""An object's polygons are not drawn if their edges are longer in all, pixels: drawing takes about
80 bytes of memory for each."""


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
    rendered = png_ids(mask_folder(root, split))
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
    write_label_map(task.path, label_map)


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
    return InputError(f"annotation {number_of(record)}: {what}")


def _polygons(record: dict, segmentation: Any, size: tuple[int, int]) -> list[list[float]]:
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


def _run_lengths(record: dict, counts: Any, size: tuple[int, int]) -> list[int]:
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


def require_pycocotools() -> Any:
    """The module pycocotools.mask, which is optional."""
    try:
        from pycocotools import mask
    except ImportError:
        raise InputError(
            "COCO's masks are rendered with pycocotools, which is not installed; "
            "install it with: pip install pycocotools"
        ) from None
    return mask
