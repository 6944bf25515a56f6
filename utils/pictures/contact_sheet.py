"""Contact sheets: rows of pictures under titles."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from datasets.images import IGNORE
from datasets.palette import voc_palette
from utils.inference.collection_cams import Inferred
from utils.inference.segmentation import Segmented
from utils.pictures.drawing import caption, heat_map, overlay, resized, size_within, with_boundaries

SHEET_ROWS = 8
"""Photographs in an evaluation's contact sheet."""

TILE, GAP = 200, 6
"""Longer side of a picture in a contact sheet, and the space to its right and below its caption,
pixels."""


def labelled_sheet(
    shown: Sequence[Inferred],
    labels: Callable[[Inferred], np.ndarray],
    title: str,
    classes: Sequence[str],
) -> np.ndarray:
    """Some photographs and what was inferred for them as one picture, (H, W, 3) uint8.

    Args:
        shown: the photographs, with their superpixels.
        labels: gives their pseudo labels (H, W).
        title: of the pseudo labels.
        classes: names of the foreground classes.
    """
    rows, maps = [], []
    for found in shown:
        there, drawn = ", ".join(classes[k] for k in found.classes), labels(found)
        rows.append((described(found.id, there), _pictures(found, drawn)))
        maps += [drawn, found.mask]
    titles = ("photo", "superpixels", "CAM", title, "ground truth")
    return contact_sheet(titles, rows, occurring(maps, classes))


def _pictures(found: Inferred, labels: np.ndarray) -> list[np.ndarray | None]:
    """Photo, superpixels, CAM, pseudo label and ground truth, None where there is no mask."""
    image = found.photograph
    return [
        image,
        with_boundaries(image, found.superpixels),
        heat_map(image, found.cams.max(0, initial=0)),
        overlay(image, labels),
        None if found.mask is None else overlay(image, found.mask),
    ]


def described(identifier: str, classes: str) -> str:
    """A caption: the photograph, and its classes if it has any."""
    return f"{identifier}: {classes}" if classes else identifier


def segmentation_sheet(shown: Sequence[Segmented], classes: Sequence[str]) -> np.ndarray:
    """Some photographs, their predicted and true labels as one picture, (H, W, 3) uint8.

    Args:
        shown: the photographs.
        classes: names of the foreground classes.
    """
    names = ("background", *classes)
    rows = []
    for found in shown:
        there = ", ".join(names[k] for k in np.unique(found.labels) if k)
        rows.append((described(found.id, there), found.photograph, [found.labels, found.mask]))
    return label_map_sheet(("prediction", "ground truth"), rows, classes)


def label_map_sheet(
    titles: Sequence[str],
    rows: Sequence[tuple[str, np.ndarray, Sequence[np.ndarray | None]]],
    classes: Sequence[str],
) -> np.ndarray:
    """Photographs, and label maps drawn on them, as one picture, (H, W, 3) uint8.

    Args:
        titles: of the label maps.
        rows: (caption, photograph (H, W, 3) uint8, label maps (H, W) or None where there is none).
        classes: names of the foreground classes.
    """
    drawn = [
        (text, [image, *(None if one is None else overlay(image, one) for one in maps)])
        for text, image, maps in rows
    ]
    legend = occurring((one for _, _, maps in rows for one in maps), classes)
    return contact_sheet(("photo", *titles), drawn, legend)


def contact_sheet(
    titles: Sequence[str],
    rows: Sequence[tuple[str, Sequence[np.ndarray | None]]],
    legend: Mapping[int, str] | None = None,
) -> np.ndarray:
    """Rows of pictures under titles, (H, W, 3) uint8; columns without any picture are left out.

    Args:
        titles: of the columns.
        rows: (caption, pictures (H, W, 3) uint8 of any size or None for an empty place).
        legend: label index -> name: the colours that are explained at the bottom.
    """
    empty = [all(pictures[i] is None for _, pictures in rows) for i in range(len(titles))]
    kept = [i for i in range(len(titles)) if not (rows and empty[i])]
    lines = [np.hstack([caption(titles[i], TILE + GAP) for i in kept])]
    width = lines[0].shape[1]
    for text, pictures in rows:
        lines.append(np.hstack([_tile(pictures[i]) for i in kept]))
        lines += [caption(text, width), np.full((GAP, width, 3), 255, np.uint8)]
    return np.vstack([*lines, *_legend(legend or {}, width)])


def occurring(label_maps: Iterable[np.ndarray | None], classes: Sequence[str]) -> dict[int, str]:
    """Label index -> name of all but background that occurs in some label maps (H, W)."""
    found = {int(k) for labels in label_maps if labels is not None for k in np.unique(labels)}
    names = {**dict(enumerate(classes, 1)), IGNORE: "unlabelled"}
    return {index: name for index, name in names.items() if index in found}


def _legend(names: Mapping[int, str], width: int) -> list[np.ndarray]:
    """Label indices as squares of their colour, with their names, in strips of a width."""
    strips, right = [], width
    for index, name in names.items():
        square = np.full((24, 24, 3), 255, np.uint8)
        square[5:19, 5:19] = voc_palette()[index]
        text = caption(name, width - square.shape[1])
        inked = np.flatnonzero((text < 255).any((0, 2)))
        entry = np.hstack([square, text[:, : inked.max(initial=0) + 8]])
        if right + entry.shape[1] > width:
            strips.append(np.full((len(entry), width, 3), 255, np.uint8))
            right = 0
        strips[-1][:, right : right + entry.shape[1]] = entry
        right += entry.shape[1]
    return strips


def _tile(picture: np.ndarray | None) -> np.ndarray:
    """A picture on a white tile, just above its caption; grey where there is none; and the gap."""
    tile = np.full((TILE, TILE + GAP, 3), 255, np.uint8)
    if picture is None:
        tile[:, :TILE] = 235
        return tile
    width, height = size_within(picture.shape, TILE)
    top, left = TILE - height, (TILE - width) // 2
    tile[top : top + height, left : left + width] = resized(picture, (width, height))
    return tile
