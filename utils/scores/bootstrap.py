"""How sure a mIoU, a difference or a ratio is: 95 % intervals by bootstrap.

A replicate draws as many seeds as there are, and as many photographs, both with replacement. All
that is compared shares the draws: differences are paired by seed and by photograph. Each training
takes its own best background threshold on the photographs drawn, as it does on all of them.

Drawing n seeds gives (n - 1) / n of their variance, so deviations from drawing each once are
stretched by the root of n / (n - 1). Of few seeds intervals are somewhat narrow all the same: five
tell little of the tails.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.scores.counts import Counts

REPLICATES = 2000


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval.

    Attributes:
        value: from all seeds and photographs.
        low: the 2.5th percentile of the replicates.
        high: the 97.5th.
    """

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the interval lies above or below a value."""
        return not self.low <= value <= self.high


class Draws:
    """The draws that all comparisons of some seeds on some photographs share.

    Args:
        seeds: how many.
        photographs: how many.
        replicates: how many.
    """

    def __init__(self, seeds: int, photographs: int, replicates: int = REPLICATES) -> None:
        generator = np.random.default_rng(0)
        drawn = (_times_drawn(generator, 1, photographs) for _ in range(replicates))
        # Small numbers, and COCO's photographs are many.
        self.photographs = np.concatenate([one.astype(np.uint16) for one in drawn])
        self.seeds = _times_drawn(generator, replicates, seeds)

    def mious(self, trainings: Sequence[Counts]) -> np.ndarray:
        """Mean mIoU (%) of a training's seeds, in their order: of all, then of each replicate.

        Returns:
            (1 + replicates,).
        """
        every = np.vstack([np.ones_like(self.photographs[:1]), self.photographs])
        best = np.stack([counts.mious(every).max(1) for counts in trainings], axis=1)
        count = len(trainings)
        stretch = math.sqrt(count / (count - 1)) if count > 1 else 1.0
        chosen = 1 + stretch * (np.vstack([np.ones_like(self.seeds[:1]), self.seeds]) - 1)
        return 100 * (best * chosen).mean(1)


def intervals_of_means(values: np.ndarray) -> list[Interval]:
    """The mean of each column of (photographs, columns), with its interval."""
    drawn = Draws(1, len(values)).photographs
    every = np.vstack([np.ones_like(drawn[:1]), drawn])
    return [interval(means) for means in (every @ values).T / len(values)]


def _times_drawn(generator: np.random.Generator, replicates: int, count: int) -> np.ndarray:
    """How often each of `count` things is drawn in each replicate: (replicates, count)."""
    return generator.multinomial(count, np.full(count, 1 / count), size=replicates)


def interval(values: np.ndarray) -> Interval:
    """The interval of a value and its replicates (1 + replicates,)."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Interval(float(values[0]), float(low), float(high))
