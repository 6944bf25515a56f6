"""Score any folder of label PNGs against ground truth.

mIoU, per-class IoU, precision and recall of labels that other tools refined, or of a trained
segmentation network's predictions, as the evaluators score pseudo labels (those of --uncertain they
score without 255; here it counts as background).

    python -m utils.scores --pred DIR --gt DIR --list FILE
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from datasets.classes import named_classes
from datasets.collection import png_ids, png_path
from datasets.command_line import new_parser
from datasets.files import InputError, write_json
from datasets.images import IGNORE, read_label_map
from datasets.listing import read_id_list
from utils.runs.progress import progress
from utils.runs.start import start
from utils.runs.wording import counted
from utils.scores.confusion import confusion_matrix
from utils.scores.tables import score_table


def score_one(identifier: str, pred: Path, gt: Path, num_classes: int) -> tuple[np.ndarray, bool]:
    """The confusion matrix of one label map, and whether it holds 255, counted as background.

    Raises:
        InputError: a file is missing or unreadable, sizes differ, or a class is out of range.
    """
    predicted, given = png_path(pred, identifier), png_path(gt, identifier)
    prediction, truth = read_label_map(predicted), read_label_map(given)
    if prediction.shape != truth.shape:
        raise InputError(
            f"{predicted}: {prediction.shape[1]} x {prediction.shape[0]} pixels, but "
            f"the ground truth has {truth.shape[1]} x {truth.shape[0]}"
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


def score(args: argparse.Namespace) -> None:
    """Score the list and print the table."""
    classes, pred, gt = named_classes(args.classes), Path(args.pred), Path(args.gt)
    ids = read_id_list(args.list, png_ids(pred))
    require_all(pred, ids)
    require_all(gt, ids)
    one = partial(score_one, pred=pred, gt=gt, num_classes=len(classes) + 1)
    with ThreadPoolExecutor() as pool:
        confusion, uncertain = 0, 0
        for counts, held in progress(pool.map(one, ids), "scoring", "image", len(ids)):
            confusion, uncertain = confusion + counts, uncertain + held
    if uncertain:
        print(f"note: 255 counts as background; in {counted(uncertain, 'label map')}")
    table = score_table(classes, [None], confusion[None])
    print(table.table())
    print(f"mIoU {100 * table.best_miou:.2f} over {len(ids)} images")
    if args.json:
        result = table.as_json()
        values = {**result["thresholds"][0], "classes": result["classes"], "images": len(ids)}
        values.pop("threshold")
        write_json(args.json, values)


if __name__ == "__main__":
    options = new_parser(__doc__, prog="python -m utils.scores")
    options.add_argument("--pred", required=True, metavar="DIR", help="<id>.png to be scored")
    options.add_argument("--gt", required=True, metavar="DIR", help="<id>.png of ground truth")
    options.add_argument(
        "--list", required=True, metavar="FILE", help="ids or names of photographs, one a line"
    )
    options.add_argument(
        "--classes", default="voc12", metavar="NAMES", help="voc12, coco, or a labels.txt"
    )
    options.add_argument("--json", metavar="FILE", help="write the scores as JSON too")
    options.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(score, options)
