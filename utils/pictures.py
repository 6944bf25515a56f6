"""Pictures for people: superpixel boundaries, heat maps, label overlays, contact sheets.

Layers are pictures that a browser draws over a photograph; they are small and compress well.
"""

import io
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from skimage.segmentation import find_boundaries
from torch import Tensor, nn

from networks.association import hard_labels
from networks.normalisation import normalise
from utils.cams import resize, round_up

TILE = 200
"""Longer side of a picture in a contact sheet, pixels."""

BOUNDARY = (255, 230, 0)
"""Colour of superpixel boundaries."""

LABEL_ALPHA = 166
"""How opaque a label layer is, of 255: as `overlay` blends."""


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
    drawn[find_boundaries(ids, mode="inner")] = BOUNDARY
    return drawn


def heat_map(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 under a map (H, W) in 0..1, blue to red."""
    colours = cv2.applyColorMap((cam * 255).round().astype(np.uint8), cv2.COLORMAP_JET)
    return cv2.addWeighted(image, 0.45, np.ascontiguousarray(colours[..., ::-1]), 0.55, 0)


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 with a label map (H, W) blended over all but background."""
    blended = cv2.addWeighted(image, 0.35, palette[labels], 0.65, 0)
    return np.where((labels == 0)[..., None], image, blended)


def thumbnail(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A photograph (H, W, 3) uint8 resized to `size` = (width, height)."""
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def boundary_layer(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The boundaries of regions (H, W) as a layer of `size` = (width, height): (h, w, 4) uint8.

    Transparency has three steps: more would be five times the size of the file.
    """
    drawn = np.zeros(ids.shape, np.uint8)
    drawn[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    drawn[1:] |= ids[1:] != ids[:-1]
    small = cv2.resize(drawn * 255, size, interpolation=cv2.INTER_AREA)
    alpha = (small / 127.5).round() * 127.5
    return np.dstack([np.full((*small.shape, 3), BOUNDARY, np.uint8), alpha.astype(np.uint8)])


def label_layer(labels: np.ndarray, size: tuple[int, int], palette: np.ndarray) -> np.ndarray:
    """A label map (H, W) as a layer of `size` = (width, height), background clear: (h, w, 4)."""
    small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    alpha = np.where(small == 0, 0, LABEL_ALPHA).astype(np.uint8)
    return np.dstack([palette[small], alpha])


def heat_layer(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (H, W) in 0..1 as an opaque layer of `size` = (width, height): (h, w, 3) uint8.

    Its colours, dark blue to yellow, grow steadily lighter, so they read without colour vision too.
    """
    small = cv2.resize(cam, size, interpolation=cv2.INTER_AREA)
    values = (small.clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(values, cv2.COLORMAP_PLASMA)[..., ::-1])


def encode_webp(image: np.ndarray, quality: int | None = None) -> bytes:
    """A picture (H, W, 3 or 4) uint8 as WebP, of a quality in 0..100 or without loss."""
    options = {"lossless": True, "quality": 50} if quality is None else {"quality": quality}
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", **options)
    return buffer.getvalue()


def size_within(shape: Sequence[int], side: int) -> tuple[int, int]:
    """(width, height) of a picture of a shape (H, W, ..) resized to a longer side, in pixels."""
    scale = side / max(shape[:2])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


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
