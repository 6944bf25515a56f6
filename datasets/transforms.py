"""Random resizing, mirroring and cropping of 8-bit photographs and what lies on them."""

from collections.abc import Sequence

import cv2
import numpy as np

from datasets.images import IGNORE

PADDING_COLOUR = (124, 116, 104)
"""ImageNet's mean colour: what 0 in the normalised image looks like."""

Box = tuple[int, int, int, int]
"""Top, left, bottom, right, pixels, ends exclusive."""


def resize_photograph(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W) or (H, W, D) uint8 bilinearly; areas are averaged when shrinking a lot.

    Bilinear without antialiasing is what inference does too, and three times as fast.
    """
    shrinks = 2 * height < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def random_long_side(
    size: tuple[int, int], lengths: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """A size of the same aspect whose longer side is drawn from `lengths`, ends included."""
    height, width = size
    scale = rng.integers(lengths[0], lengths[1] + 1) / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def random_window(length: int, crop: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Place a crop along one axis of an image.

    Args:
        length: of the image.
        crop: length of the crop.
        rng: random numbers.

    Returns:
        (first pixel taken from the image, where it goes in the crop, how many are taken).
    """
    slack = int(rng.integers(0, abs(length - crop) + 1))
    if length >= crop:
        return slack, 0, crop
    return 0, slack, length


def random_crop(
    layers: list[tuple[np.ndarray, tuple[int, ...] | int]], crop: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], Box]:
    """Cut the same random square out of several layers of a photograph, padding where it ends.

    Args:
        layers: (H, W) or (H, W, D) uint8 arrays of one size, each with its padding value.
        crop: side of the square, pixels.
        rng: random numbers.

    Returns:
        (the squares, where the photograph lies in them).
    """
    height, width = layers[0][0].shape[:2]
    y, top, rows = random_window(height, crop, rng)
    x, left, columns = random_window(width, crop, rng)
    box = (top, left, top + rows, left + columns)
    margins = (top, crop - box[2], left, crop - box[3])
    squares = []
    for layer, padding in layers:
        window = layer[y : y + rows, x : x + columns]
        squares.append(
            cv2.copyMakeBorder(window, *margins, cv2.BORDER_CONSTANT, value=padding)
            if any(margins)
            else np.ascontiguousarray(window)
        )
    return squares, box


def mirror(squares: list[np.ndarray], box: Box) -> tuple[list[np.ndarray], Box]:
    """Mirror images left to right, and where the photograph lies in them."""
    crop = squares[0].shape[1]
    top, left, bottom, right = box
    return [cv2.flip(square, 1) for square in squares], (top, crop - right, bottom, crop - left)


def augment(
    image: np.ndarray,
    saliency: np.ndarray | None,
    crop: int,
    long_side: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray | None, Box]:
    """The training augmentation: random resize of the longer side, random mirror, random crop.

    Args:
        image: (H, W, 3) uint8.
        saliency: (H, W) uint8 or None.
        crop: side of the crop, pixels.
        long_side: range of the longer side after resizing, pixels, ends included.
        rng: random numbers.

    Returns:
        (image (crop, crop, 3), saliency (crop, crop) or None, where the photograph lies in them).
    """
    size = random_long_side(image.shape[:2], long_side, rng)
    layers = [(resize_photograph(image, *size), PADDING_COLOUR)]
    if saliency is not None:
        layers.append((resize_photograph(saliency, *size), 0))
    squares, box = random_crop(layers, crop, rng)
    if rng.random() < 0.5:
        squares, box = mirror(squares, box)
    return squares[0], squares[1] if saliency is not None else None, box


def augment_labelled(
    image: np.ndarray,
    mask: np.ndarray,
    crop: int,
    scales: Sequence[float],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """The augmentation of the segmentation network: random scale, random crop, random mirror.

    What is smaller than the crop is padded right and below.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) uint8 class indices.
        crop: side of the crop, pixels.
        scales: of the sides; one is drawn.
        rng: random numbers.

    Returns:
        (image (crop, crop, 3), mask (crop, crop), 255 in the padding).
    """
    scale = scales[rng.integers(len(scales))]
    height, width = (max(1, round(side * scale)) for side in mask.shape)
    y, x = (int(rng.integers(max(0, side - crop) + 1)) for side in (height, width))
    window = np.s_[y : y + crop, x : x + crop]
    # The nearest pixel by its centre, as the loss takes it too.
    resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)[window]
    labels = np.full((crop, crop), IGNORE, np.uint8)
    labels[: resized.shape[0], : resized.shape[1]] = resized
    pixels = np.full((crop, crop, 3), PADDING_COLOUR, np.uint8)
    pixels[: resized.shape[0], : resized.shape[1]] = resize_photograph(image, height, width)[window]
    if rng.random() < 0.5:
        pixels, labels = cv2.flip(pixels, 1), cv2.flip(labels, 1)
    return pixels, labels
