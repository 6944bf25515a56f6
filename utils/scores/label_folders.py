"""Scores of a folder of label maps."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datasets.collection import png_ids, png_path
from datasets.files import InputError
from datasets.images import IGNORE, read_label_map
from utils.runs.progress import progress
from utils.scores.confusion import confusion_matrix
from utils.scores.counts import Counts
from utils.scores.tables import ScoreTable, score_table


@dataclass(frozen=True)
class Scored:
    """What a folder of label maps scores.

    Attributes:
        folder: of the label maps.
        table: the scores of all together.
        counts: the pixels of every photograph, without a threshold.
        uncertain: in how many of them 255 was counted as background.
    """

    folder: Path
    table: ScoreTable
    counts: Counts
    uncertain: int


def score_folder(folder: Path, gt: Path, ids: Sequence[str], classes: Sequence[str]) -> Scored:
    """Score the label maps of some photographs.

    Args:
        folder: of label maps `<id>.png`; 255 in them counts as background.
        gt: of ground truth `<id>.png`, in which 255 is not scored.
        ids: of the photographs.
        classes: foreground class names.

    Raises:
        InputError: a file is missing or unreadable, sizes differ, or a class is out of range.
    """
    score = partial(score_one, folder=folder, gt=gt, num_classes=len(classes) + 1)
    total, counts, uncertain = 0, [], 0
    with ThreadPoolExecutor() as pool:
        for matrix, held in progress(pool.map(score, ids), "scoring", "image", len(ids)):
            total, uncertain = total + matrix, uncertain + held
            counts.append(Counts.of((None,), [matrix[None]]))
    table = score_table(classes, [None], total[None])
    return Scored(folder, table, Counts.joined(counts), uncertain)


def score_one(identifier: str, folder: Path, gt: Path, num_classes: int) -> tuple[np.ndarray, bool]:
    """The confusion matrix of one label map, and whether it holds 255, counted as background.

    Raises:
        InputError: a file is missing or unreadable, sizes differ, or a class is out of range.
    """
    predicted, given = png_path(folder, identifier), png_path(gt, identifier)
    prediction, truth = read_label_map(predicted), read_label_map(given)
    if prediction.shape != truth.shape:
        raise InputError(
            f"{predicted}: {prediction.shape[1]} x {prediction.shape[0]} pixels, but "
            f"the ground truth has {truth.shape[1]} x {truth.shape[0]}; resize it by "
            "nearest neighbour"
        )
    uncertain = prediction == IGNORE
    prediction = np.where(uncertain, 0, prediction)
    scored = truth != IGNORE
    for path, labels in ((predicted, prediction[scored]), (given, truth[scored])):
        highest = int(labels.max(initial=0))
        if highest >= num_classes:
            raise InputError(
                f"{path}: holds class {highest}; there are 0 to {num_classes - 1} (--classes)"
            )
    return confusion_matrix(truth, prediction, num_classes), bool((uncertain & scored).any())


def require_all(folder: Path, ids: Sequence[str]) -> None:
    """Refuse a folder that lacks label maps of a list.

    Raises:
        InputError: it does.
    """
    there = png_ids(folder)
    missing = [identifier for identifier in ids if identifier not in there]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(ids)} label maps of the list are missing, such as "
            f"{missing[0]}.png; complete them or shorten the list"
        )
