"""Scores of pseudo labels at many background thresholds from one pass."""

from collections.abc import Sequence

import numpy as np

from datasets.images import IGNORE
from utils.inference.label_maps import strongest


class ThresholdSweep:
    """Confusion matrices of pseudo labels for many background thresholds from one pass.

    The label of a pixel is its strongest class if that exceeds the threshold, else background. So
    it is enough to count pixels by ground truth, strongest class, and the number of thresholds
    that its cam exceeds; the matrix of every threshold follows from sums over these counts.

    Args:
        num_classes: C, background included.
        thresholds: background thresholds.
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float]) -> None:
        if num_classes < 2 or not len(thresholds):
            raise ValueError("a sweep needs at least two classes and one threshold")
        self.num_classes = num_classes
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        # cams are float32; a float32 threshold makes `>` here the same as argmax([threshold, cams])
        self._levels = np.sort(np.asarray(self.thresholds, np.float32))
        self.counts = np.zeros((num_classes, num_classes - 1, len(self.thresholds) + 1), np.int64)

    def add(self, cams: np.ndarray, labels_map: np.ndarray) -> None:
        """Count one photograph.

        Args:
            cams: (K, H, W) float32 in 0..1, zero for classes that are not in the photograph.
            labels_map: ground truth (H, W) uint8; 255 is not scored.

        Raises:
            ValueError: the shapes do not fit, or a class index is out of range.
        """
        self.add_present(np.arange(self.num_classes - 1), cams, labels_map)

    def add_present(self, classes: np.ndarray, cams: np.ndarray, labels_map: np.ndarray) -> None:
        """`add` with only the cams (n, H, W) of the foreground classes (n,) in the photograph."""
        self.counts += self.count(classes, cams, labels_map)

    def count(self, classes: np.ndarray, cams: np.ndarray, labels_map: np.ndarray) -> np.ndarray:
        """What `add_present` would add to `counts`: (C, K, thresholds + 1) int64."""
        if cams.shape != (len(classes), *labels_map.shape):
            raise ValueError(f"{len(classes)} cams {cams.shape} do not fit {labels_map.shape}")
        if len(classes) and not 0 <= np.min(classes) <= np.max(classes) < self.num_classes - 1:
            raise ValueError(f"foreground classes are 0 to {self.num_classes - 2}, got {classes}")
        truth = labels_map.astype(np.int64)
        np.minimum(truth, self.num_classes, out=truth)  # ignored pixels get a row of their own
        bad = labels_map[(truth == self.num_classes) & (labels_map != IGNORE)]
        if bad.size:
            raise ValueError(f"class {bad.max()} in the ground truth of {self.num_classes}")
        strongest_class, exceeded = 0, 0
        if len(classes):
            best, value = strongest(np.asarray(cams, np.float32))
            strongest_class = np.asarray(classes, np.int64)[best]
            exceeded = np.searchsorted(self._levels, value, side="left")
        rows, columns, depth = self.num_classes + 1, *self.counts.shape[1:]
        place = ((truth * columns + strongest_class) * depth + exceeded).ravel()
        counted = np.bincount(place, minlength=rows * columns * depth)
        return counted.reshape(rows, columns, depth)[:-1]

    def result(self) -> np.ndarray:
        """Confusion matrices (thresholds, C, C) int64, rows ground truth, in the given order."""
        # A pixel that exceeds n thresholds is foreground at the n lowest of them.
        foreground = self.counts[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
        background = self.counts.sum((1, 2))[:, None] - foreground.sum(1)
        matrices = np.concatenate([background[:, None], foreground], 1).transpose(2, 0, 1)
        rank = np.argsort(np.argsort(self.thresholds, kind="stable"), kind="stable")
        return np.ascontiguousarray(matrices[rank])
