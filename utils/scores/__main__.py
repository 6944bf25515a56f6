"""Score any folder of label PNGs against ground truth, or compare several.

mIoU, per-class IoU, precision and recall of labels that other tools refined, or of a trained
segmentation network's predictions, as the evaluators score pseudo labels (those of --uncertain they
score without 255; here it counts as background).

    python -m utils.scores --pred DIR --gt DIR --list FILE

Of several folders it says how far each is from the first, with a 95 % interval by bootstrap: the
photographs are drawn anew 2000 times, the same for all. How another training would differ is not in
it.

    python -m utils.scores --pred BEFORE AFTER --gt DIR --list FILE --photographs scores.csv
"""

import argparse
from pathlib import Path

from datasets.classes import named_classes
from datasets.collection import png_ids
from datasets.command_line import new_parser
from datasets.files import write_json
from datasets.listing import read_id_list
from utils.runs.start import start
from utils.runs.wording import counted
from utils.scores.comparison import compare, iou_table, write_photographs
from utils.scores.label_folders import Scored, require_all, score_folder


def score(args: argparse.Namespace) -> None:
    """Score the list, print tables, and write the files that are asked for."""
    classes, gt = named_classes(args.classes), Path(args.gt)
    ids = read_id_list(args.list, png_ids(gt))
    for folder in (args.gt, *args.pred):
        require_all(Path(folder), ids)
    several = [score_folder(Path(folder), gt, ids, classes) for folder in args.pred]
    for found in several:
        if found.uncertain:
            where = counted(found.uncertain, "label map")
            print(f"note: 255 counts as background; in {where} of {found.folder}")
    first, *others = several
    print(first.table.table() if not others else iou_table(several))
    comparisons = compare(others, first) if others else []
    for number, found in enumerate(comparisons, 2):
        print(found.in_words(number))
    if not others:
        print(f"mIoU {100 * first.table.best_miou:.2f} over {counted(len(ids), 'image')}")
    if args.photographs:
        write_photographs(args.photographs, ids, several)
        print(f"every photograph: {args.photographs}")
    if args.json:
        content = as_json(first, len(ids))
        for found, comparison in zip(others, comparisons, strict=True):
            more = {**as_json(found, len(ids)), "from_the_first": comparison.as_json()}
            content.setdefault("others", []).append(more)
        write_json(args.json, content)


def as_json(found: Scored, images: int) -> dict:
    """The scores of a folder as --json writes them."""
    result = found.table.as_json()
    values = {"pred": str(found.folder), **result["thresholds"][0], "classes": result["classes"]}
    values.pop("threshold")
    return {**values, "images": images}


if __name__ == "__main__":
    options = new_parser(__doc__, prog="python -m utils.scores")
    options.add_argument(
        "--pred",
        required=True,
        nargs="+",
        action="extend",
        metavar="DIR",
        help="<id>.png to be scored",
    )
    options.add_argument("--gt", required=True, metavar="DIR", help="<id>.png of ground truth")
    options.add_argument(
        "--list", required=True, metavar="FILE", help="ids or names of photographs, one a line"
    )
    options.add_argument(
        "--classes", default="voc12", metavar="NAMES", help="voc12, coco, or a labels.txt"
    )
    options.add_argument(
        "--photographs", metavar="FILE", help="write the mIoU of every photograph as CSV"
    )
    options.add_argument("--json", metavar="FILE", help="write the scores as JSON too")
    options.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    start(score, options)
