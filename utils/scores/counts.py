"""Pixel counts of every photograph, from which the scores of any selection of them follow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.scores.confusion import mean_known

BLOCK = 100
"""Selections that are summed at a time: their weights are copied as floating-point numbers."""


@dataclass(frozen=True)
class Counts:
    """What labels at T background thresholds have right, for P photographs and C classes.

    Attributes:
        thresholds: (T,), ascending; one None for labels that need none.
        truth: (P, C) int64 pixels of each class in the masks.
        hits: (P, C, T) int64 of them with the right label.
        predicted: (P, C, T) int64 pixels with that label.
    """

    thresholds: tuple[float | None, ...]
    truth: np.ndarray
    hits: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, thresholds: Sequence[float | None], matrices: Sequence[np.ndarray]) -> "Counts":
        """From the confusion matrices (T, C, C) of every photograph, rows ground truth."""
        hits = np.stack([matrix.diagonal(axis1=1, axis2=2).T for matrix in matrices])
        predicted = np.stack([matrix.sum(1).T for matrix in matrices])
        truth = np.stack([matrix[0].sum(1) for matrix in matrices])
        return cls(tuple(thresholds), truth, hits, predicted)

    @classmethod
    def joined(cls, parts: Sequence["Counts"]) -> "Counts":
        """The photographs of all parts, which have the same thresholds, one after the other."""
        arrays = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("truth", "hits", "predicted")
        )
        return cls(parts[0].thresholds, *arrays)

    def mious(self, weights: np.ndarray | None = None) -> np.ndarray:
        """mIoU in 0..1 at each threshold, over the classes that occur; 0 where none does.

        Args:
            weights: (R, P), how often each photograph counts; by default each once.

        Returns:
            (R, T).
        """
        weights = np.ones((1, len(self.truth))) if weights is None else np.asarray(weights)
        blocks = range(0, len(weights), BLOCK)
        return np.concatenate([self._mious(weights[i : i + BLOCK]) for i in blocks])

    def _mious(self, weights: np.ndarray) -> np.ndarray:
        photographs, classes, _ = self.hits.shape
        weights = weights.astype(np.float64)

        def total(counts: np.ndarray) -> np.ndarray:  # exact: whole numbers far below 2^53
            return (weights @ counts.reshape(photographs, -1)).reshape(len(weights), classes, -1)

        hits = total(self.hits)
        union = total(self.truth) + total(self.predicted) - hits
        occurs = union > 0
        iou = np.divide(hits, union, out=np.zeros_like(hits), where=occurs)
        return iou.sum(1) / np.maximum(occurs.sum(1), 1)

    def best(self) -> int:
        """The index of the threshold with the greatest mIoU, the lowest where several have it."""
        return int(np.argmax(self.mious()[0]))

    def photograph_mious(self) -> np.ndarray:
        """Of every photograph the mean IoU in 0..1 over the classes in its mask or labels: (P, T).

        NaN where none of its pixels is scored.
        """
        union = self.truth[..., None] + self.predicted - self.hits
        iou = np.divide(self.hits, union, out=np.full(union.shape, np.nan), where=union > 0)
        every = iou.transpose(0, 2, 1).reshape(-1, iou.shape[1])
        return np.array([mean_known(row) for row in every]).reshape(len(iou), -1)
