"""Scores of label maps and of classification: confusion matrices and what follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.files import IGNORE
from utils.cams import strongest


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Count pixels by ground truth (rows) and prediction (columns).

    Args:
        truth: (H, W) uint8 class indices; 255 is not scored.
        prediction: (H, W) uint8 class indices below `num_classes`.
        num_classes: C, background included.

    Returns:
        (C, C) int64.
    """
    scored = truth != IGNORE
    pairs = truth[scored].astype(np.int64) * num_classes + prediction[scored]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


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


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says; per class (C,) in 0..1, NaN where a class never occurs."""

    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in the ground truth or the prediction."""
        return float(np.nanmean(self.iou)) if np.isfinite(self.iou).any() else float("nan")


def scores(confusion: np.ndarray) -> Scores:
    """IoU, precision and recall of every class from a confusion matrix (C, C), rows truth."""
    hit = np.diag(confusion).astype(np.float64)
    truth, predicted = confusion.sum(1), confusion.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Scores(
            iou=hit / (truth + predicted - hit), precision=hit / predicted, recall=hit / truth
        )


def best_of(mious: Sequence[float]) -> int:
    """The index of the greatest mIoU, NaN (no pixel was scored) the least of all."""
    return int(np.argmax(np.nan_to_num(np.asarray(mious, np.float64), nan=-1.0)))


def _last_of_equal(ordered: np.ndarray) -> np.ndarray:
    """For each row of sorted columns (n, K): the last row with the same value, (n, K)."""
    ends = np.full(ordered.shape, len(ordered) - 1)
    rows = np.arange(len(ordered) - 1)[:, None]
    ends[:-1] = np.where(ordered[:-1] != ordered[1:], rows, len(ordered) - 1)
    return np.minimum.accumulate(ends[::-1], 0)[::-1]


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision of every class.

    Args:
        scores: (n, K) classification scores.
        labels: (n, K) 0/1.

    Returns:
        (K,) area under the precision-recall curve (the mean precision at each positive; among equal
        scores, at the last of them), NaN for classes without a positive.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(labels.astype(np.float64), order, 0)
    precision = ranked.cumsum(0) / np.arange(1, len(ranked) + 1)[:, None]
    precision = np.take_along_axis(
        precision, _last_of_equal(np.take_along_axis(scores, order, 0)), 0
    )
    positives = ranked.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (precision * ranked).sum(0) / positives
