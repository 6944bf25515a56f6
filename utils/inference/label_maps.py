"""From cams to label maps. docs/method.md, section 3."""

from collections.abc import Sequence

import numpy as np

from datasets.images import IGNORE

USUAL_THRESHOLD = 0.25
"""Of background, where nothing names one."""


def strongest(cams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which cam is the greatest at every pixel, the first where several are.

    Args:
        cams: (n, H, W), n at least 1.

    Returns:
        (its index (H, W) int64, its value (H, W)).
    """
    # A photograph has one to three classes: as many passes are far faster than argmax over axis 0.
    best, value = np.zeros(cams.shape[1:], np.int64), cams[0]
    for k in range(1, len(cams)):
        best[cams[k] > value] = k
        value = np.maximum(value, cams[k])
    return best, value


def label_maps(classes: np.ndarray, cams: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """The argmax of `[threshold, cams]` for several thresholds: class indices, background 0.

    Args:
        classes: (n,) foreground class indices, 0-based.
        cams: (n, H, W) their cams.
        thresholds: of background.

    Returns:
        (thresholds, H, W) uint8.

    Raises:
        ValueError: a class does not fit into a label map.
    """
    if not len(classes):
        return np.zeros((len(thresholds), *cams.shape[1:]), np.uint8)
    if not 0 <= np.min(classes) <= np.max(classes) < IGNORE - 1:
        raise ValueError(f"foreground classes in label maps are 0 to {IGNORE - 2}, got {classes}")
    best, value = strongest(cams)
    labels = (np.asarray(classes, np.uint8) + 1)[best]
    levels = np.asarray(thresholds, np.float32)[:, None, None]
    return np.where(value > levels, labels, np.uint8(0))


def label_map(classes: np.ndarray, cams: np.ndarray, threshold: float) -> np.ndarray:
    """`label_maps` for one threshold: (H, W) uint8."""
    return label_maps(classes, cams, (threshold,))[0]


def uncertain_pixels(cams: np.ndarray, between: tuple[float, float] | None) -> np.ndarray | None:
    """Where the strongest of the cams (n, H, W) lies above the first bound, up to the second.

    Returns:
        (H, W) bool; None without bounds.
    """
    if between is None:
        return None
    low, high = np.asarray(between, np.float32)
    if not len(cams):
        return np.zeros(cams.shape[1:], bool)
    _, value = strongest(cams)
    return (value > low) & (value <= high)


def with_ignored(labels: np.ndarray, ignored: np.ndarray | None) -> np.ndarray:
    """Labels (.., H, W) uint8 with 255 where `ignored` (H, W) says so; None is nowhere."""
    return labels if ignored is None else np.where(ignored, np.uint8(IGNORE), labels)
