"""Scores of label maps: confusion matrices, and what follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.images import IGNORE


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


def mean_known(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says; per class (C,) in 0..1, NaN where a class never occurs."""

    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in the ground truth or the prediction."""
        return mean_known(self.iou)


def class_scores(confusion: np.ndarray) -> Scores:
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
