"""Which photographs gain by a training, and which lose?

    python -m benchmarks.gains benchmarks/results/photographs_report_900.json
    python -m benchmarks.gains FILE --training DCR --inference "superpixels, AP gamma 0.6"

Reads a results file of benchmarks.photographs. A photograph's score is its mean IoU over
background and the classes in its mask, at each training's own best threshold, in the mean of the
seeds that both trainings have, with the same inference. It prints the means for large and small
objects and for one and several classes, and the photographs that change most.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.evidence import BASELINE, Budget
from benchmarks.measure import table
from datasets import command_line
from datasets.files import InputError, read_json
from utils.runs.start import start
from utils.scores.counts import Counts

LISTED = 10
"""Photographs that gain most, and as many that lose most."""


def photograph_ious(counts: Counts) -> np.ndarray:
    """Mean IoU (%) of each photograph over the classes in its mask, (P,), at the best threshold."""
    best = counts.best()
    hits = counts.hits[..., best]
    union = counts.truth + counts.predicted[..., best] - hits
    present = counts.truth > 0
    iou = np.divide(hits, union, out=np.zeros(hits.shape), where=union > 0)
    return 100 * (iou * present).sum(1) / np.maximum(present.sum(1), 1)


def groups(truth: np.ndarray) -> dict[str, np.ndarray]:
    """Kinds of photographs, each as booleans (P,), by the pixels (P, C) of classes in masks."""
    objects = 1 - truth[:, 0] / np.maximum(truth.sum(1), 1)
    several = (truth[:, 1:] > 0).sum(1) > 1
    small, large = objects < 0.1, objects >= 0.3
    return {
        "all": np.ones_like(small),
        "objects cover less than a tenth": small,
        "a tenth to three tenths": ~small & ~large,
        "three tenths or more": large,
        "one class": ~several,
        "several classes": several,
    }


def group_rows(truth: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[list[object]]:
    """A row a kind of photographs: how many, mean scores, and shares that gain and lose.

    Args:
        truth: (P, C) pixels.
        before: (P,) scores of the baseline.
        after: (P,) of the other training.
    """
    rows = []
    for name, these in groups(truth).items():
        if these.any():
            change = (after - before)[these]
            means = [f"{x.mean():.1f}" for x in (before[these], after[these])]
            shares = [f"{100 * np.mean(x):.0f} %" for x in (change > 1, change < -1)]
            rows.append([name, int(these.sum()), *means, f"{change.mean():+.1f}", *shares])
    return rows


def listed(ids: Sequence[str], before: np.ndarray, after: np.ndarray) -> list[list[object]]:
    """A row for each of the photographs that change most, from the greatest gain on."""
    order = np.argsort(before - after, kind="stable")
    count = min(LISTED, len(order) // 2)
    chosen = [*order[:count], *order[len(order) - count :]]
    return [
        [ids[i], f"{before[i]:.1f}", f"{after[i]:.1f}", f"{after[i] - before[i]:+.1f}"]
        for i in chosen
    ]


def main(args: argparse.Namespace) -> None:
    """Print both tables."""
    content = read_json(args.results)
    budget = Budget(content, args.results.name)
    both = (BASELINE, args.inference), (args.training, args.inference)
    seeds = budget.seeds(*both)
    if not seeds:
        raise InputError(
            f"{args.results}: no seed of {BASELINE} and of {args.training} was inferred with "
            f"{args.inference}; it has {', '.join(sorted({'; '.join(one) for one in budget.cams}))}"
        )
    counts = [[budget.counts(cams, seed) for seed in seeds] for cams in both]
    before, after = (np.mean([photograph_ious(one) for one in mine], axis=0) for mine in counts)
    ids = next(iter(content.values()))["photographs"].splitlines()
    title = f"{args.training} beside {BASELINE}, {args.inference}, {len(seeds)} seeds"
    header = ["photographs", "number", "before", "after", "change", "gain > 1", "lose > 1"]
    print(table(title, header, group_rows(counts[0][0].truth, before, after)))
    print(table("most changed", ["id", "before", "after", "change"], listed(ids, before, after)))


if __name__ == "__main__":
    parser = command_line.new_parser(__doc__)
    parser.add_argument("results", type=Path, metavar="FILE", help="of benchmarks.photographs")
    parser.add_argument("--training", default="image method", metavar="NAME")
    parser.add_argument("--inference", default="superpixels", metavar="NAME", help="of both")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(main, parser)
