import json

import numpy as np
import pytest

from benchmarks.packed_counts import near_best, packed, unpacked
from utils.scores.counts import Counts

THRESHOLDS = (0.2, 0.4, 0.6, 0.8)


@pytest.fixture
def counts():
    """The counts of seven photographs."""
    rng = np.random.default_rng(0)
    truth = rng.integers(50, 100, (7, 6))
    hits = rng.integers(0, 50, (7, 6, 4))
    return Counts(THRESHOLDS, truth, hits, hits + rng.integers(0, 50, hits.shape))


def test_counts_near_the_best_threshold(counts):
    best = counts.mious()[0].argmax()
    assert counts.best() == best
    near = near_best(counts, 1)
    assert near.thresholds == THRESHOLDS[max(0, best - 1) : best + 2]
    assert near.mious().max() == counts.mious().max()


def test_what_a_results_file_says_of_them(counts):
    found = unpacked(json.loads(json.dumps(packed(counts))), photographs=7)
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
    assert 5 * 11 * len(json.dumps(packed(counts))) < 1_000_000
