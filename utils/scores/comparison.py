"""Which of several folders of label maps is better, and where."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.files import write_text
from utils.runs.wording import counted
from utils.scores.bootstrap import Draws, Interval, interval
from utils.scores.label_folders import Scored
from utils.scores.tables import percent

FEW = 20
"""Photographs below which an interval is too narrow to be believed."""


@dataclass(frozen=True)
class Comparison:
    """How labels compare with others of the same photographs.

    Attributes:
        ahead: points of mIoU, with a 95 % interval from drawing photographs anew.
        better: photographs with a greater mIoU of their own.
        worse: with a smaller one.
        photographs: that are scored in both.
    """

    ahead: Interval
    better: int
    worse: int
    photographs: int

    def in_words(self, number: int) -> str:
        """Two lines; `number` is that of the labels in the table, which has the others as 1."""
        found = self.ahead
        photographs = counted(self.photographs, "photograph")
        side = "ahead of" if found.value >= 0 else "behind"
        chance = "" if found.excludes(0) else ", within chance"
        if self.photographs < FEW:
            chance = f"; {photographs} are too few to tell"
        return (
            f"{number} is {abs(found.value):.2f} points of mIoU {side} 1 (95 % interval "
            f"{found.low:+.2f} to {found.high:+.2f}{chance})\n"
            f"{number} is better than 1 in {self.better} of {photographs}, "
            f"worse in {self.worse}"
        )

    def as_json(self) -> dict:
        """Points, interval and photographs."""
        return {
            "points": round(self.ahead.value, 3),
            "interval": [round(self.ahead.low, 3), round(self.ahead.high, 3)],
            "better": self.better,
            "worse": self.worse,
            "photographs": self.photographs,
        }


def compare(several: Sequence[Scored], first: Scored) -> list[Comparison]:
    """How each of several compares with the first, scored on the same photographs."""
    draws = Draws(1, len(first.counts.truth))
    base, base_each = draws.mious([first.counts]), first.counts.photograph_mious()
    comparisons = []
    for found in several:
        ahead = interval(draws.mious([found.counts]) - base)
        gain = found.counts.photograph_mious() - base_each  # NaN where nothing is scored
        better, worse, scored = (gain > 0).sum(), (gain < 0).sum(), np.isfinite(gain).sum()
        comparisons.append(Comparison(ahead, int(better), int(worse), int(scored)))
    return comparisons


def iou_table(several: Sequence[Scored]) -> str:
    """IoU of every class and mIoU in columns, which are numbered from 1."""
    scores = [found.table.scores[0] for found in several]
    head = "".join(f"{number:>7}" for number in range(1, len(several) + 1))
    lines = [f"{'IoU (%)':<22}{head}"]
    for i, name in enumerate(several[0].table.classes):
        lines.append(f"{name:<22}" + "".join(percent(found.iou[i], 7) for found in scores))
    lines.append(f"{'mIoU':<22}" + "".join(percent(found.miou, 7) for found in scores))
    lines += [f"{number}: {found.folder}" for number, found in enumerate(several, 1)]
    return "\n".join(lines)


def write_photographs(path: str | Path, ids: Sequence[str], several: Sequence[Scored]) -> None:
    """Write a CSV with a line for every photograph: its id, classes, and mIoU (%) in each folder.

    Classes are those in the mask, separated by semicolons; an mIoU is the mean over the classes in
    mask or labels, background included, and empty where no pixel is scored.

    Raises:
        InputError: it cannot be written.
    """
    truth = several[0].counts.truth
    names = several[0].table.classes[1:]
    columns = [found.counts.photograph_mious()[:, 0] for found in several]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "classes", *(str(found.folder) for found in several)])
    for i, identifier in enumerate(ids):
        present = ";".join(names[k] for k in np.flatnonzero(truth[i, 1:]))
        writer.writerow([identifier, present, *(percent(one[i], nothing="") for one in columns)])
    write_text(path, text.getvalue())
