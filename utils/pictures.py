"""Pictures for people: superpixel boundaries, heat maps, label overlays, contact sheets."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from skimage.segmentation import find_boundaries
from torch import Tensor, nn

from networks.association import hard_labels
from networks.normalisation import normalise
from utils.cams import resize, round_up

TILE = 200
"""Longer side of a picture in a contact sheet, pixels."""


@torch.no_grad()
def superpixels(image: Tensor, scn: nn.Module) -> np.ndarray:
    """Superpixel ids (H, W) int32 of an 8-bit photograph (3, H, W) on the network's device."""
    height, width = image.shape[1:]
    full = (round_up(height), round_up(width))
    ids = hard_labels(scn(resize(normalise(image)[None], full)))[0].cpu().numpy().astype(np.int32)
    return cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST)


def with_boundaries(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 with the boundaries of regions (H, W) drawn on it."""
    drawn = image.copy()
    drawn[find_boundaries(ids, mode="inner")] = (255, 230, 0)
    return drawn


def heat_map(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 under a map (H, W) in 0..1, blue to red."""
    colours = cv2.applyColorMap((cam * 255).round().astype(np.uint8), cv2.COLORMAP_JET)
    return cv2.addWeighted(image, 0.45, np.ascontiguousarray(colours[..., ::-1]), 0.55, 0)


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 with a label map (H, W) blended over all but background."""
    blended = cv2.addWeighted(image, 0.35, palette[labels], 0.65, 0)
    return np.where((labels == 0)[..., None], image, blended)


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """A picture resized to a longer side, centred on a white square of that side."""
    scale = side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
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
