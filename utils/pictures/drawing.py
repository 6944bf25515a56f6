"""Pictures for people: region boundaries, heat maps, label overlays, captions.

Layers are pictures that a browser draws over a photograph; they are small and compress well.
"""

import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from datasets.palette import voc_palette
from utils.scores.superpixels import boundaries

BOUNDARY = (255, 230, 0)
"""Colour of superpixel boundaries."""

LABEL_ALPHA = 166
"""How opaque a label layer is, of 255: as `overlay` blends."""


def with_boundaries(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 with the boundaries of regions (H, W) drawn on it."""
    return np.where(boundaries(ids)[..., None], np.uint8(BOUNDARY), image)


def heat(cam: np.ndarray) -> np.ndarray:
    """A map (H, W) in 0..1 in colours: (H, W, 3) uint8.

    From dark blue to yellow they grow steadily lighter, so they read without colour vision too.
    """
    values = (cam.clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(values, cv2.COLORMAP_PLASMA)[..., ::-1])


def heat_map(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 under the colours of a map (H, W) in 0..1."""
    return cv2.addWeighted(image, 0.45, heat(cam), 0.55, 0)


def overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 with a label map (H, W) blended over all but background."""
    blended = cv2.addWeighted(image, 0.35, voc_palette()[labels], 0.65, 0)
    return np.where((labels == 0)[..., None], image, blended)


def caption(text: str, width: int, height: int = 24, paper: int = 255) -> np.ndarray:
    """A line of text on a grey strip, (height, width, 3) uint8.

    OpenCV 5 has letters of every script, OpenCV 4 draws `?` for all outside ASCII; Pillow's own
    font lacks even accents.
    """
    strip = np.full((height, width, 3), paper, np.uint8)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")  # names that are not UTF-8
    font, size, place = cv2.FONT_HERSHEY_SIMPLEX, height / 57, (5, round(height * 0.67))
    cv2.putText(strip, text, place, font, size, (30, 30, 30), 1, cv2.LINE_AA)
    return strip


def boundary_layer(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The boundaries of regions (H, W) as a layer of `size` = (width, height): (h, w, 4) uint8.

    Transparency has three steps: more would be five times the size of the file.
    """
    small = resized(boundaries(ids).astype(np.uint8) * 255, size)
    alpha = np.uint8((small / 127.5).round() * 80)
    return np.dstack([np.full((*small.shape, 3), BOUNDARY, np.uint8), alpha])


def label_layer(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map (H, W) as a layer of `size` = (width, height), background clear: (h, w, 4)."""
    small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return np.dstack([voc_palette()[small], np.where(small == 0, 0, LABEL_ALPHA).astype(np.uint8)])


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, ..) of `size` = (width, height), by averages where it shrinks."""
    shrinks = size[0] < picture.shape[1]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def size_within(shape: Sequence[int], side: int) -> tuple[int, int]:
    """(width, height) of a picture of a shape (H, W, ..) resized to a longer side, in pixels."""
    scale = side / max(shape[:2])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def encode_webp(image: np.ndarray, quality: int | None = None) -> bytes:
    """A picture (H, W, 3 or 4) uint8 as WebP, of a quality in 0..100 or without loss."""
    options = {"lossless": True, "quality": 50} if quality is None else {"quality": quality}
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", **options)
    return buffer.getvalue()
