"""Pictures for people: superpixel boundaries, heat maps, label overlays, contact sheets.

Layers are pictures that a browser draws over a photograph; they are small and compress well.
"""

import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image
from skimage.segmentation import find_boundaries

BOUNDARY = (255, 230, 0)
"""Colour of superpixel boundaries."""

LABEL_ALPHA = 166
"""How opaque a label layer is, of 255: as `overlay` blends."""


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
