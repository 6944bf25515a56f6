import numpy as np
import pytest

from utils.scores.confusion import class_scores
from utils.scores.counts import Counts
from utils.scores.threshold_sweep import ThresholdSweep

THRESHOLDS = (0.2, 0.4, 0.6, 0.8)


@pytest.fixture
def measured():
    """The counts of seven photographs, and their confusion matrices (T, C, C)."""
    rng = np.random.default_rng(0)
    matrices = []
    for _ in range(7):
        sweep = ThresholdSweep(6, THRESHOLDS)
        truth = rng.choice([0, 0, 1, 3, 4, 255], (20, 30)).astype(np.uint8)
        cams = rng.random((2, 20, 30), np.float32)
        sweep.add_present(rng.choice(4, 2, replace=False), cams, truth)
        matrices.append(sweep.result())
    return Counts.of(THRESHOLDS, matrices), matrices


def test_photographs_add_up_to_the_confusion_of_all(measured):
    counts, matrices = measured
    total = sum(matrices)
    assert (counts.truth.sum(0) == total[0].sum(1)).all()
    assert (total.diagonal(axis1=1, axis2=2) == counts.hits.sum(0).T).all()
    assert (total.sum(1) == counts.predicted.sum(0).T).all()


@pytest.mark.parametrize("drawn", [range(7), (3, 3, 3, 0, 6), (5,)])
def test_miou_of_any_selection(measured, drawn):
    counts, matrices = measured
    total = sum(matrices[i] for i in drawn)
    weights = np.bincount(np.array(drawn), minlength=7)
    expected = [class_scores(matrix).miou for matrix in total]  # class 5 never occurs
    np.testing.assert_allclose(counts.mious(weights[None])[0], expected, rtol=1e-12)


def test_miou_of_every_photograph(measured):
    counts, matrices = measured
    expected = [[class_scores(matrix).miou for matrix in one] for one in matrices]
    np.testing.assert_allclose(counts.photograph_mious(), expected, rtol=1e-12)


def test_joined_photographs(measured):
    counts, matrices = measured
    parts = [Counts.of(THRESHOLDS, matrices[:3]), Counts.of(THRESHOLDS, matrices[3:])]
    assert (Counts.joined(parts).mious() == counts.mious()).all()
