import numpy as np
import pytest

from utils.scores.bootstrap import Draws, interval, intervals_of_means
from utils.scores.counts import Counts


def invented(rng, photographs=9, thresholds=3):
    """The counts of one training: two classes, pixels anyhow."""
    truth = rng.integers(50, 100, (photographs, 2))
    hits = rng.integers(0, 50, (photographs, 2, thresholds))
    return Counts((0.1, 0.2, 0.3)[:thresholds], truth, hits, hits + rng.integers(0, 50, hits.shape))


def naive(trainings, seeds, photographs):
    """Mean mIoU (%) of the seeds, drawn so many times, on the photographs drawn, with loops."""
    stretch, scores = (len(trainings) / (len(trainings) - 1)) ** 0.5, []
    for counts, times in zip(trainings, seeds, strict=True):
        found = []
        for t in range(len(counts.thresholds)):
            ious = []
            for c in range(counts.truth.shape[1]):
                hit = sum(counts.hits[p, c, t] for p in photographs)
                union = sum(counts.truth[p, c] + counts.predicted[p, c, t] for p in photographs)
                ious.append(hit / (union - hit))
            found.append(sum(ious) / len(ious))
        scores.append(max(found) * (1 + (times - 1) * stretch))
    return 100 * sum(scores) / len(scores)


def test_replicates_are_those_of_loops():
    rng = np.random.default_rng(0)
    trainings = [invented(rng) for _ in range(3)]
    draws = Draws(seeds=3, photographs=9, replicates=20)
    expected = [naive(trainings, [1, 1, 1], range(9))]
    for seeds, photographs in zip(draws.seeds, draws.photographs, strict=True):
        assert seeds.sum() == 3 and photographs.sum() == 9
        expected.append(naive(trainings, seeds, np.repeat(range(9), photographs)))
    np.testing.assert_allclose(draws.mious(trainings), expected, rtol=1e-12)


def test_the_interval_of_a_known_answer():
    """One class; every photograph has 100 pixels, of which a training hits 0 or 100.

    So the mIoU of those drawn is a mean of 400 coins, with a deviation of 2.5 points.
    """
    hits = np.repeat([0, 100], 200)[:, None, None]
    coins = Counts((0.5,), np.full((400, 1), 100), hits, np.full((400, 1, 1), 100) * (hits > 0))
    found = interval(Draws(seeds=2, photographs=400).mious([coins, coins]))
    assert found.value == 50
    assert found.low == pytest.approx(50 - 1.96 * 2.5, abs=0.4)
    assert found.high == pytest.approx(50 + 1.96 * 2.5, abs=0.4)
    assert found.excludes(44) and found.excludes(56) and not found.excludes(50)


def test_seeds_spread_too():
    """Photographs are all alike: what is left are five seeds, 10 to 50 %."""

    def training(hit):
        alike = np.full((4, 1, 1), hit)
        return Counts((0.5,), np.full((4, 1), 100), alike, alike)

    found = interval(Draws(5, 4).mious([training(hit) for hit in (10, 20, 30, 40, 50)]))
    deviation = np.std([10, 20, 30, 40, 50], ddof=1) / 5**0.5
    assert found.value == pytest.approx(30)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * deviation, rel=0.1)


def test_pairs_share_their_draws():
    """A training that is two points better everywhere is so for sure, however much mIoU varies."""
    rng = np.random.default_rng(1)
    truth, hits = np.full((30, 1), 100), rng.integers(0, 90, (30, 1, 1))
    worse = [Counts((0.5,), truth, hits, hits) for _ in range(3)]
    better = [Counts((0.5,), truth, hits + 2, hits + 2) for _ in range(3)]
    draws = Draws(3, 30)
    alone, ahead = draws.mious(worse), draws.mious(better) - draws.mious(worse)
    assert interval(alone).high - interval(alone).low > 10
    assert interval(ahead).low == pytest.approx(2) and interval(ahead).high == pytest.approx(2)


def test_a_single_seed_is_not_stretched():
    rng = np.random.default_rng(0)
    one = invented(rng)
    draws = Draws(seeds=1, photographs=9, replicates=20)
    assert (draws.seeds == 1).all()
    expected = [one.mious(times[None]).max() for times in (np.ones(9), *draws.photographs)]
    np.testing.assert_allclose(draws.mious([one]), 100 * np.array(expected), rtol=1e-12)


def test_intervals_of_means():
    """Of each column its own; the deviation of a mean of 400 is a 20th of that of one."""
    values = np.random.default_rng(0).normal((1, -5), (2, 0.1), (400, 2))
    for column, found in zip(values.T, intervals_of_means(values), strict=True):
        half = 1.96 * column.std() / 20
        assert found.value == pytest.approx(column.mean())
        assert found.low == pytest.approx(column.mean() - half, abs=half / 10)
        assert found.high == pytest.approx(column.mean() + half, abs=half / 10)
