"""How well superpixels follow a ground truth: ASA, boundary recall, undersegmentation error.

All three take two partitions of the same pixels, (H, W) integers each, whose ids mean nothing
beyond "the same region"; a `ValueError` says that their shapes differ or that there is no pixel.
With superpixels s, true regions g and N pixels:

- achievable segmentation accuracy (ASA): the best accuracy that a segmentation made of whole
  superpixels can reach, `sum_s max_g |s and g| / N`;
- boundary recall (BR): the fraction of true boundary pixels with a superpixel boundary near;
- undersegmentation error (UE), as corrected by Neubert and Protzel (2012): what superpixels leak
  across true boundaries, `sum_g sum_{s touching g} min(|s and g|, |s without g|) / N`.

ASA and BR are better high, UE low. More superpixels improve all three, so that only segmentations
into equally many are to be compared, and each superpixel has to be one piece (`connected`).
Boundaries lie on both sides, as in the benchmark of Stutz et al. (2018).
"""

from collections import Counter
from heapq import heapify, heappop, heappush

import cv2
import numpy as np
from skimage.measure import label as components_of
from skimage.segmentation import find_boundaries

TOLERANCE = 2
"""Chebyshev distance, pixels, at which a superpixel boundary still recalls a true one."""


def _check(labels: np.ndarray, truth: np.ndarray) -> None:
    if labels.shape != truth.shape or labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels {labels.shape} and truth {truth.shape} must be equal (H, W)")


def overlaps(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many pixels each superpixel shares with each true region.

    Returns:
        (superpixels, regions) int64; ids that do not occur have no row or column.
    """
    _check(labels, truth)
    superpixels, rows = np.unique(labels, return_inverse=True)
    regions, columns = np.unique(truth, return_inverse=True)
    pairs = rows.ravel() * len(regions) + columns.ravel()
    counts = np.bincount(pairs, minlength=len(superpixels) * len(regions))
    return counts.reshape(len(superpixels), len(regions))


def asa(labels: np.ndarray, truth: np.ndarray) -> float:
    """Achievable segmentation accuracy of superpixels in 0..1."""
    return float(overlaps(labels, truth).max(1).sum() / labels.size)


def undersegmentation_error(labels: np.ndarray, truth: np.ndarray) -> float:
    """Undersegmentation error of Neubert and Protzel, 0 at best."""
    shared = overlaps(labels, truth)
    without = shared.sum(1, keepdims=True) - shared
    return float(np.minimum(shared, without).sum() / labels.size)


def boundaries(labels: np.ndarray) -> np.ndarray:
    """The pixels one of whose four neighbours has another id: (H, W) -> (H, W) bool."""
    return find_boundaries(labels, connectivity=1)


def boundary_recall(labels: np.ndarray, truth: np.ndarray, tolerance: int = TOLERANCE) -> float:
    """The fraction of true boundary pixels near a superpixel boundary.

    Args:
        labels: superpixels, (H, W) integers.
        truth: regions, (H, W) integers.
        tolerance: largest Chebyshev distance that counts as near, pixels.

    Returns:
        In 0..1; 1 where the truth has no boundary.
    """
    _check(labels, truth)
    wanted = boundaries(truth)
    if not wanted.any():
        return 1.0
    square = np.ones((2 * tolerance + 1, 2 * tolerance + 1), np.uint8)
    near = cv2.dilate(boundaries(labels).astype(np.uint8), square)
    return float(near[wanted].mean())


def connected(labels: np.ndarray, smallest: int) -> np.ndarray:
    """Make every superpixel one 4-connected piece of at least `smallest` pixels.

    Pieces of a superpixel that lie apart become superpixels of their own; a piece that is too
    small, the smallest first, joins the neighbour with which it has the longest border.

    Args:
        labels: superpixels, (H, W) integers.
        smallest: pixels.

    Returns:
        (H, W) int64, ids 0, 1, .. without gaps.
    """
    pieces = components_of(labels - labels.min() + 1, background=0, connectivity=1) - 1
    sizes = np.bincount(pieces.ravel()).tolist()
    borders = _borders(pieces, len(sizes))
    joined = list(range(len(sizes)))
    # An untrained network leaves a hundred thousand pieces.
    waiting = [(size, piece) for piece, size in enumerate(sizes) if size < smallest]
    heapify(waiting)
    while waiting:
        size, piece = heappop(waiting)
        if joined[piece] != piece or sizes[piece] != size:  # it has joined another, or has grown
            continue
        if not borders[piece]:  # the only one left
            break
        other, _ = max(borders[piece].items(), key=lambda border: (border[1], -border[0]))
        joined[piece] = other
        _join(piece, other, sizes, borders)
        if sizes[other] < smallest:
            heappush(waiting, (sizes[other], other))
    return np.unique(_ends(joined)[pieces], return_inverse=True)[1].reshape(labels.shape)


def _borders(pieces: np.ndarray, count: int) -> list[Counter]:
    """For each piece, its neighbours and how many pixel sides it shares with them."""
    sides = [(pieces[:, :-1], pieces[:, 1:]), (pieces[:-1], pieces[1:])]
    pairs = np.concatenate([np.stack([a[a != b], b[a != b]], axis=1) for a, b in sides])
    borders = [Counter() for _ in range(count)]
    unique, lengths = np.unique(pairs, axis=0, return_counts=True)
    for (a, b), length in zip(unique.tolist(), lengths.tolist(), strict=True):
        borders[a][b] += length
        borders[b][a] += length
    return borders


def _join(piece: int, other: int, sizes: list[int], borders: list[Counter]) -> None:
    """Let `other` take over the pixels and the borders of `piece`."""
    sizes[other] += sizes[piece]
    for neighbour, length in borders[piece].items():
        del borders[neighbour][piece]
        if neighbour != other:
            borders[neighbour][other] += length
            borders[other][neighbour] += length


def _ends(joined: list[int]) -> np.ndarray:
    """Where each piece ends up, following who joined whom."""
    ends = np.array(joined)
    while (ends[ends] != ends).any():
        ends = ends[ends]
    return ends
