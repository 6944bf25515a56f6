"""Pixel counts of every photograph, from which the scores of any selection of them follow."""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counts:
    """What pseudo labels at T background thresholds have right, for P photographs and C classes.

    Attributes:
        thresholds: (T,), ascending.
        truth: (P, C) int64 pixels of each class in the masks.
        hits: (P, C, T) int64 of them with the right label.
        predicted: (P, C, T) int64 pixels with that label.
    """

    thresholds: tuple[float, ...]
    truth: np.ndarray
    hits: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, thresholds: Sequence[float], matrices: Sequence[np.ndarray]) -> "Counts":
        """From the confusion matrices (T, C, C) of every photograph, rows ground truth."""
        stacked = np.stack(matrices)
        hits = stacked.diagonal(axis1=2, axis2=3).transpose(0, 2, 1)
        predicted = stacked.sum(2).transpose(0, 2, 1)
        return cls(tuple(thresholds), stacked[:, 0].sum(2), hits, predicted)

    def mious(self, weights: np.ndarray | None = None) -> np.ndarray:
        """mIoU in 0..1 at each threshold, over the classes that occur.

        Args:
            weights: (R, P), how often each photograph counts; by default each once.

        Returns:
            (R, T).
        """
        photographs, classes, _ = self.hits.shape
        weights = np.ones((1, photographs)) if weights is None else np.asarray(weights, np.float64)

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

    def near_best(self, steps: int) -> "Counts":
        """The counts at the best threshold and as many next to it on either side."""
        kept = slice(max(0, self.best() - steps), self.best() + steps + 1)
        return Counts(
            self.thresholds[kept], self.truth, self.hits[..., kept], self.predicted[..., kept]
        )

    def as_json(self) -> dict:
        """`thresholds`, and `pixels`: all counts as little-endian int32, deflated, in base 85.

        Uncompressed they are an array (P, C, 1 + 2 T): truth, hits, predicted.
        """
        every = np.concatenate([self.truth[..., None], self.hits, self.predicted], axis=2)
        packed = zlib.compress(np.ascontiguousarray(every, "<i4").tobytes(), 9)
        return {"thresholds": list(self.thresholds), "pixels": base64.b85encode(packed).decode()}

    @classmethod
    def from_json(cls, content: dict, photographs: int) -> "Counts":
        """What `as_json` says of so many photographs."""
        thresholds = tuple(content["thresholds"])
        packed = zlib.decompress(base64.b85decode(content["pixels"]))
        every = np.frombuffer(packed, "<i4").astype(np.int64)
        every = every.reshape(photographs, -1, 1 + 2 * len(thresholds))
        hits, predicted = np.split(every[..., 1:], 2, axis=2)
        return cls(thresholds, every[..., 0], hits, predicted)
