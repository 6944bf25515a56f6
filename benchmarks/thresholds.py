"""How long does it take to score pseudo labels at several thresholds?

python -m benchmarks.thresholds [--size full]
"""

from functools import partial

import numpy as np

from benchmarks.measure import Report, compare
from benchmarks.options import parse
from benchmarks.plain_pipeline import threshold_counts
from utils.scores.threshold_sweep import ThresholdSweep


def main() -> None:
    """Print the table; the counts of both are compared."""
    given = parse(__doc__)
    cases = [(21, 7)]
    if given.size == "full":
        cases += [(21, 1), (21, 35), (81, 7)]
    rows = []
    for num_classes, count in cases:
        rng = np.random.default_rng(0)
        thresholds = np.linspace(0.1, 0.4, count) if count > 1 else np.array([0.25])
        cams = np.zeros((num_classes - 1, 375, 500), np.float32)
        present = np.array([1, 5])
        cams[present] = rng.random((2, 375, 500), np.float32)
        truth = rng.choice([0, 2, 6, 255], (375, 500)).astype(np.uint8)
        sweep = ThresholdSweep(num_classes, thresholds)
        sweep.add(cams, truth)
        matrices = sweep.result()
        ours = np.stack(
            [matrices.diagonal(axis1=1, axis2=2), matrices.sum(1), matrices.sum(2)], axis=-1
        )
        exact = (ours == threshold_counts(cams, truth, thresholds)).all()
        runs = {
            "plain": partial(threshold_counts, cams, truth, thresholds),
            "all cams": partial(sweep.add, cams, truth),
            "ours": partial(sweep.add_present, present, cams[present], truth),
        }
        times = compare(runs, max(3, given.repeats), warmup=1)
        spreads = [times.spread(run, 1e3) for run in runs]
        name = f"{num_classes} classes, {count} thresholds"
        rows.append([name, *spreads, times.ratio("plain", "ours"), str(bool(exact))])
    header = ["scoring a photograph", "plain ms", "all cams ms", "ours ms", "plain / ours", "exact"]
    title = "Scoring thresholds, 375x500, two classes in the photograph"
    Report(given).add(title, header, rows)


if __name__ == "__main__":
    main()
