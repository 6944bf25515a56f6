"""Contact sheets: rows of pictures under titles."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from utils.inference.collection_cams import Inferred
from utils.inference.segmentation import Segmented
from utils.inference.superpixels import superpixels
from utils.pictures.drawing import caption, heat_map, overlay, resized, size_within, with_boundaries

TILE, GAP = 200, 6
"""Longer side of a picture in a contact sheet, and the space to its right, pixels."""


def labelled_sheet(
    shown: Sequence[Inferred],
    scn: torch.nn.Module,
    labels: Callable[[Inferred], np.ndarray],
    title: str,
    classes: Sequence[str],
) -> np.ndarray:
    """Some photographs and what was inferred for them as one picture, (H, W, 3) uint8.

    Args:
        shown: the photographs.
        scn: draws their superpixels.
        labels: gives their pseudo labels (H, W).
        title: of the pseudo labels.
        classes: names of the foreground classes.
    """
    rows = [
        (
            f"{found.id}: {', '.join(classes[k] for k in found.classes)}",
            _pictures(found, superpixels(found.image, scn), labels(found)),
        )
        for found in shown
    ]
    return contact_sheet(("photo", "superpixels", "CAM", title, "ground truth"), rows)


def _pictures(
    found: Inferred, superpixel_ids: np.ndarray, labels: np.ndarray
) -> list[np.ndarray | None]:
    """Photo, superpixels, CAM, pseudo label and ground truth, None where there is no mask."""
    image = found.photograph
    return [
        image,
        with_boundaries(image, superpixel_ids),
        heat_map(image, found.cams.max(0, initial=0)),
        overlay(image, labels),
        None if found.mask is None else overlay(image, found.mask),
    ]


def segmentation_sheet(shown: Sequence[Segmented], classes: Sequence[str]) -> np.ndarray:
    """Some photographs, their predicted and true labels as one picture, (H, W, 3) uint8.

    Args:
        shown: the photographs.
        classes: names of the foreground classes.
    """
    names = ("background", *classes)
    rows = []
    for found in shown:
        image = found.photograph
        truth = None if found.mask is None else overlay(image, found.mask)
        there = ", ".join(names[k] for k in np.unique(found.labels) if k)
        rows.append((f"{found.id}: {there}", [image, overlay(image, found.labels), truth]))
    return contact_sheet(("photo", "prediction", "ground truth"), rows)


def contact_sheet(
    titles: Sequence[str], rows: Sequence[tuple[str, Sequence[np.ndarray | None]]]
) -> np.ndarray:
    """Rows of pictures under titles, (H, W, 3) uint8.

    Args:
        titles: of the columns.
        rows: (caption, pictures (H, W, 3) uint8 of any size or None for an empty place).
    """
    lines = [np.hstack([caption(title, TILE + GAP) for title in titles])]
    for text, pictures in rows:
        lines.append(np.hstack([_tile(picture) for picture in pictures]))
        lines.append(caption(text, lines[0].shape[1]))
    return np.vstack(lines)


def _tile(picture: np.ndarray | None) -> np.ndarray:
    """A picture in the middle of a white tile, grey where there is none, and the gap beside it."""
    tile = np.full((TILE, TILE + GAP, 3), 255, np.uint8)
    if picture is None:
        tile[:, :TILE] = 235
        return tile
    width, height = size_within(picture.shape, TILE)
    top, left = (TILE - height) // 2, (TILE - width) // 2
    tile[top : top + height, left : left + width] = resized(picture, (width, height))
    return tile
