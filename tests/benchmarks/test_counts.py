import json

import numpy as np
import pytest

from benchmarks.counts import Counts
from utils.scores.confusion import class_scores
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


def test_counts_near_the_best_threshold(measured):
    counts, _ = measured
    best = counts.mious()[0].argmax()
    assert counts.best() == best
    near = counts.near_best(1)
    assert near.thresholds == THRESHOLDS[max(0, best - 1) : best + 2]
    assert near.mious().max() == counts.mious().max()


def test_what_a_results_file_says_of_them(measured):
    counts, _ = measured
    found = Counts.from_json(json.loads(json.dumps(counts.as_json())), photographs=7)
    assert found.thresholds == counts.thresholds
    for name in ("truth", "hits", "predicted"):
        assert (getattr(found, name) == getattr(counts, name)).all()


def test_results_of_five_trainings_with_five_seeds_are_small():
    """118 photographs of 21 classes, about three in each, in eleven inferences a seed."""
    rng = np.random.default_rng(0)
    present = rng.random((118, 21)) < 0.14
    pixels = rng.integers(0, 50_000, (118, 21, 5)) * present[..., None]
    shrinking = np.sort(pixels, axis=2)[..., ::-1]
    counts = Counts((0.2, 0.25, 0.3, 0.35, 0.4), shrinking[..., 0], shrinking // 2, shrinking)
    assert 5 * 11 * len(json.dumps(counts.as_json())) < 1_000_000
