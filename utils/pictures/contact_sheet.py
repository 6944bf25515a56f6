"""Contact sheets: rows of pictures under titles."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch

from datasets.palette import voc_palette
from utils.inference.collection_cams import Inferred
from utils.inference.superpixels import superpixels
from utils.pictures.drawing import heat_map, overlay, size_within, with_boundaries

TILE = 200
"""Longer side of a picture in a contact sheet, pixels."""


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """A picture resized to a longer side, centred on a white square of that side."""
    size = size_within(image.shape, side)
    shrinks = max(image.shape[:2]) > side
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square


def _caption(text: str, width: int, height: int = 24) -> np.ndarray:
    strip = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return strip


def contact_sheet(titles: Sequence[str], rows: Sequence[tuple[str, Sequence]]) -> np.ndarray:
    """Rows of pictures under titles.

    Args:
        titles: of the columns.
        rows: (caption, pictures (H, W, 3) uint8 of any size or None for an empty place).

    Returns:
        (H, W, 3) uint8.
    """
    gap = np.full((TILE, 6, 3), 255, np.uint8)
    blank = np.full((TILE, TILE, 3), 235, np.uint8)
    width = len(titles) * (TILE + gap.shape[1])
    lines = [np.hstack([_caption(title, TILE + gap.shape[1]) for title in titles])]
    for caption, pictures in rows:
        tiles = [blank if picture is None else fit(picture, TILE) for picture in pictures]
        lines.append(np.hstack([part for tile in tiles for part in (tile, gap)]))
        lines.append(_caption(caption, width))
    return np.vstack(lines)


def sheet_row(found: Inferred, scn: torch.nn.Module, labels: np.ndarray) -> list[np.ndarray | None]:
    """Photo, superpixel boundaries, CAM, pseudo label and ground truth of one photograph."""
    image = found.image.permute(1, 2, 0).numpy()
    palette = voc_palette()
    cam = found.cams.max(0) if len(found.cams) else np.zeros(image.shape[:2], np.float32)
    return [
        image,
        with_boundaries(image, superpixels(found.image, scn)),
        heat_map(image, cam),
        overlay(image, labels, palette),
        None if found.mask is None else overlay(image, found.mask, palette),
    ]


def labelled_sheet(
    shown: Sequence[Inferred],
    scn: torch.nn.Module,
    labels: Callable[[Inferred], np.ndarray],
    title: str,
    classes: Sequence[str],
) -> np.ndarray:
    """The pictures of some photographs as one, (H, W, 3) uint8.

    Args:
        shown: the photographs.
        scn: draws their superpixels.
        labels: gives their pseudo labels (H, W).
        title: of the pseudo labels.
        classes: names of the foreground classes.
    """
    titles = ("photo", "superpixels", "CAM", title, "ground truth")
    rows = [
        (
            f"{found.id}: {', '.join(classes[k] for k in found.classes)}",
            sheet_row(found, scn, labels(found)),
        )
        for found in shown
    ]
    return contact_sheet(titles, rows)
