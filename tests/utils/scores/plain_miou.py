"""mIoU as it is defined, from the label maps themselves."""

from collections.abc import Sequence

import numpy as np


def plain_miou(found: Sequence[np.ndarray], truth: Sequence[np.ndarray], classes: int) -> float:
    """The mean over classes that occur of |intersection| / |union| over all photographs."""
    found = np.concatenate([labels.ravel() for labels in found])
    truth = np.concatenate([labels.ravel() for labels in truth])
    found, truth = found[truth != 255], truth[truth != 255]
    ious = []
    for k in range(classes):
        both, either = (found == k) & (truth == k), (found == k) | (truth == k)
        if either.any():
            ious.append(both.sum() / either.sum())
    return float(np.mean(ious))
