"""Average precision of a classification."""

import numpy as np


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
