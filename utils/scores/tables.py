"""Scores for several thresholds as a printed table and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.scores.confusion import Scores, best_of, class_scores, mean_known


@dataclass(frozen=True)
class ScoreTable:
    """Scores for every threshold.

    Attributes:
        classes: names, background first.
        thresholds: of background; one None for labels that need none.
        scores: one for each threshold.
        confusion: (thresholds, C, C) int64, rows ground truth.
    """

    classes: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    scores: tuple[Scores, ...]
    confusion: np.ndarray

    @property
    def best(self) -> int:
        """Index of the best threshold."""
        return best_of([found.miou for found in self.scores])

    @property
    def best_miou(self) -> float:
        """The mIoU at the best threshold, 0..1."""
        return self.scores[self.best].miou

    def as_json(self) -> dict:
        """What result.json says of the scores; null where a score has no meaning."""
        return {
            "classes": list(self.classes),
            "best": {
                "threshold": self.thresholds[self.best],
                "miou": or_null(self.best_miou),
            },
            "thresholds": [
                {
                    "threshold": threshold,
                    "miou": or_null(found.miou),
                    "iou": with_null(found.iou),
                    "precision": with_null(found.precision),
                    "recall": with_null(found.recall),
                    "confusion": confusion.tolist(),
                }
                for threshold, found, confusion in zip(
                    self.thresholds, self.scores, self.confusion, strict=True
                )
            ],
        }

    def table(self) -> str:
        """IoU per class for every threshold, the means, and precision and recall at the best.

        Without a threshold, the scores of every class.
        """
        if self.thresholds == (None,):
            return class_table(self.classes, self.scores[0])
        best = self.scores[self.best]
        head = "".join(f"{f'{t:g}':>7}" for t in self.thresholds)
        lines = [f"{'IoU (%) at threshold':<22}{head}{'precision':>11}{'recall':>8}"]
        for i, name in enumerate(self.classes):
            row = "".join(percent(found.iou[i], 7) for found in self.scores)
            ends = percent(best.precision[i], 11) + percent(best.recall[i], 8)
            lines.append(f"{name:<22}{row}{ends}")
        for name, values in (
            ("mIoU", [found.miou for found in self.scores]),
            ("mean precision", [mean_known(found.precision) for found in self.scores]),
            ("mean recall", [mean_known(found.recall) for found in self.scores]),
        ):
            lines.append(f"{name:<22}" + "".join(percent(value, 7) for value in values))
        at = f"{self.thresholds[self.best]:g}"
        # Where the best is at an end, a better one may lie beyond.
        ends = {0: ", the lowest tried", len(self.thresholds) - 1: ", the highest tried"}
        end = ends.get(self.best, "") if len(self.thresholds) > 1 else ""
        lines.append(f"best: mIoU {100 * best.miou:.2f} at threshold {at}{end}")
        lines.append(
            f"(the last two columns are at threshold {at}; - is the precision of a class that is "
            "never predicted, the recall of one that is never there; means leave them out)"
        )
        return "\n".join(lines)


def class_table(classes: Sequence[str], scores: Scores) -> str:
    """IoU, precision and recall of every class (names, background first) in lines."""
    lines = [f"{'':<22}{'IoU':>7}{'precision':>11}{'recall':>8}"]
    for i, name in enumerate(classes):
        row = percent(scores.iou[i], 7) + percent(scores.precision[i], 11)
        lines.append(f"{name:<22}{row}{percent(scores.recall[i], 8)}")
    return "\n".join(lines)


def percent(value: float, width: int = 0, nothing: str = "-") -> str:
    """A share in 0..1 in percent with one digit, right-aligned; `nothing` for NaN."""
    return f"{nothing:>{width}}" if np.isnan(value) else f"{100 * value:>{width}.1f}"


def or_null(value: float) -> float | None:
    """NaN as None: JSON has no NaN."""
    return None if np.isnan(value) else float(value)


def with_null(values: np.ndarray) -> list[float | None]:
    """A list with NaN as None."""
    return [or_null(value) for value in values]


def score_table(
    classes: Sequence[str], thresholds: Sequence[float | None], confusion: np.ndarray
) -> ScoreTable:
    """The scores of confusion matrices.

    Args:
        classes: foreground class names.
        thresholds: of background; one None for labels that need none.
        confusion: (thresholds, C, C) int64, rows ground truth.
    """
    return ScoreTable(
        classes=("background", *classes),
        thresholds=tuple(thresholds),
        scores=tuple(class_scores(matrix) for matrix in confusion),
        confusion=confusion,
    )


def table_in(found: dict) -> ScoreTable:
    """The scores that result.json holds, from its confusion matrices."""
    thresholds = [row["threshold"] for row in found["thresholds"]]
    confusion = np.array([row["confusion"] for row in found["thresholds"]], np.int64)
    return score_table(found["classes"][1:], thresholds, confusion)
