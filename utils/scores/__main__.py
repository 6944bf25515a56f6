"""Score any folder of label PNGs against ground truth.

mIoU, per-class IoU, precision and recall of labels that other tools refined, or of a trained
segmentation network's predictions, exactly as the evaluators score pseudo labels.

    python -m utils.scores --pred DIR --gt DIR --list FILE
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from datasets.classes import FIXED_CLASSES, read_class_list
from datasets.collection import png_ids
from datasets.files import InputError, read_id_list, write_json
from datasets.images import IGNORE, read_label_map
from utils.runs.options import new_parser
from utils.runs.progress import progress
from utils.runs.start import start
from utils.scores.confusion import confusion_matrix
from utils.scores.tables import score_table


def class_names(name: str) -> tuple[str, ...]:
    """Foreground class names of `voc12`, `coco`, or of a labels.txt."""
    return FIXED_CLASSES[name]() if name in FIXED_CLASSES else read_class_list(name)


def score_one(identifier: str, pred: Path, gt: Path, num_classes: int) -> np.ndarray:
    """The confusion matrix of one label map.

    Raises:
        InputError: a file is missing or unreadable, sizes differ, or a class is out of range.
    """
    prediction = read_label_map(pred / f"{identifier}.png")
    truth = read_label_map(gt / f"{identifier}.png")
    if prediction.shape != truth.shape:
        raise InputError(
            f"{pred / identifier}.png: {prediction.shape[1]} x {prediction.shape[0]} pixels, but "
            f"the ground truth has {truth.shape[1]} x {truth.shape[0]}"
        )
    scored = truth != IGNORE
    for path, labels in ((pred, prediction[scored]), (gt, truth[scored])):
        highest = int(labels.max(initial=0))
        if highest >= num_classes:
            raise InputError(
                f"{path / identifier}.png: holds class {highest}; there are 0 to "
                f"{num_classes - 1} (--classes)"
            )
    return confusion_matrix(truth, prediction, num_classes)


def score(args: argparse.Namespace) -> None:
    """Score the list and print the table."""
    classes = class_names(args.classes)
    ids = read_id_list(args.list, png_ids(Path(args.pred)))
    one = partial(score_one, pred=Path(args.pred), gt=Path(args.gt), num_classes=len(classes) + 1)
    with ThreadPoolExecutor() as pool:
        counts = progress(pool.map(one, ids), "scoring", "image", len(ids))
        confusion = sum(counts, np.zeros((len(classes) + 1,) * 2, np.int64))
    table = score_table(classes, [None], confusion[None])
    print(table.table())
    print(f"mIoU {100 * table.best_miou:.2f} over {len(ids)} images")
    if args.json:
        result = table.as_json()
        values = {**result["thresholds"][0], "classes": result["classes"], "images": len(ids)}
        values.pop("threshold")
        write_json(args.json, values)


if __name__ == "__main__":
    options = new_parser(__doc__)
    options.prog = "python -m utils.scores"
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
